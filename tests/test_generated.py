"""Every supported combination: the exact files, all of them valid, linted and formatted, with nobody else's names."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from projects import COMBINATIONS, ROOT, make, package_name, tracked

BIN = Path(sys.executable).parent
OBJECT = "files/md5/0d/1690bbd5734538a9c8b3b1dc902760"

#: The folder of appended rows, which a project with a feature store has not: its listing, and the file in it.
APPENDED = "data/appended.dvc"
LISTING, README = "files/md5/71/3367ad1bb2a8f14aeaa6bab419ec37.dir", "files/md5/b0/8d206c3305fbadb30538549d20c2d3"

#: What only a project with staging has.
STAGING = {
    ".github/workflows/promote.yaml",
    "k8s/argocd-staging/kustomization.yaml",
    "k8s/overlays/staging/kustomization.yaml",
}

#: What only a project with a feature store has; its bundled tables are two, and other ones.
FEATURE_STORE = {
    "data/features.csv.dvc",
    "k8s/components/feature-store/feature-server.yaml",
    "k8s/components/feature-store/kustomization.yaml",
    "k8s/components/feature-store/materialize.yaml",
    "k8s/components/feature-store/networkpolicy.yaml",
    "k8s/redis/kustomization.yaml",
    "k8s/redis/redis.yaml",
    "requirements/features.in",
    "requirements/features.txt",
}
OBJECTS = {
    "files/md5/49/4b3ff8362708d84e7e12262579ed9e": "features.csv",
    "files/md5/d9/11d6c713907a3d3a261b105edf7df0": "raw.csv",
}


def bundled(answers: dict[str, str]) -> dict[str, str]:
    """Return the bundled data of a project with these answers: the object's path in the remote, and its table.

    README is not among them: no pointer names it.
    """
    return OBJECTS if answers.get("feature_store") == "yes" else {OBJECT: "raw.csv", LISTING: "appended"}


def run(*command: str | Path, cwd: Path) -> None:
    """Run a linter; what it says is what the test says."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def texts(project: Path) -> dict[str, str]:
    """Return the tracked files' contents, without the bundled table and the locks, which are data."""
    names = [name for name in tracked(project) if not re.match(r"dvc-remote/files|requirements/.*\.txt$", name)]
    return {name: (project / name).read_text(encoding="utf-8") for name in names}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_exact_files(name: str, projects: dict[str, Path]) -> None:
    expected = set((ROOT / "tests/generated_files.txt").read_text().split())
    answers = COMBINATIONS[name]
    if answers.get("license") == "Proprietary":
        expected -= {"LICENSE"}
    expected |= {f"dvc-remote/{path}" for path in (README, *bundled(answers))}
    if answers.get("feature_store") == "yes":
        expected -= {APPENDED, f"dvc-remote/{README}"}
    if "dvc_remote" in answers:
        expected = {path for path in expected if not path.startswith("dvc-remote/")}
    if answers.get("feature_store") != "yes":
        expected -= FEATURE_STORE
    if answers.get("staging") != "yes":
        expected -= STAGING
    package = package_name(projects[name])
    assert tracked(projects[name]) == sorted(file.replace("PACKAGE", package) for file in expected)


def test_nothing_but_tracked_files(project: Path) -> None:
    """Git ignores files right after generation: the bundled data in the cache, where the remote is elsewhere."""
    output = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    # What a tool has left in the template's folder is ignored there as it is here.
    ignored = {file for file in output.stdout.splitlines() if not re.search(r"_cache/|__pycache__/", file)}
    assert ignored <= {f".dvc/cache/{path}" for path in (OBJECT, LISTING, README, *OBJECTS)}


def test_answers_arrive(projects: dict[str, Path]) -> None:
    answers, project = COMBINATIONS["foreign"], projects["foreign"]
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    assert project.name == settings["project"]["name"] == answers["project_slug"]
    assert package_name(project) == answers["package_name"]
    assert settings["tool"]["uv"]["build-backend"]["module-name"] == [answers["package_name"], "gitops"]
    assert settings["project"]["authors"] == [{"name": answers["github_owner"]}]
    assert answers["github_owner"] in (project / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "license", "first"),
    [
        ("defaults", "MIT", "MIT License"),
        ("license-apache", "Apache-2.0", "Apache License"),
        ("license-bsd", "BSD-3-Clause", "BSD 3-Clause License"),
        ("license-proprietary", "LicenseRef-Proprietary", None),
    ],
)
def test_license(name: str, license: str, first: str | None, projects: dict[str, Path]) -> None:
    settings = tomllib.loads((projects[name] / "pyproject.toml").read_text())
    assert settings["project"]["license"] == license
    if first:
        assert (projects[name] / "LICENSE").read_text().split("\n\n")[0].strip().startswith(first)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_remote(name: str, projects: dict[str, Path]) -> None:
    """The remote is the one asked for, the lock has DVC's extra for it, and the table is where DVC finds it."""
    address = COMBINATIONS[name].get("dvc_remote", "../dvc-remote")
    project = projects[name]
    settings = configparser.ConfigParser()
    settings.read_string(re.sub(r"(?m)^\s+", "", (project / ".dvc/config").read_text()))
    assert settings["core"]["remote"] == "storage"
    assert settings["'remote \"storage\"'"]["url"] == address

    kind = address.split("://")[0] if "://" in address else ""
    packages = {"s3": "dvc-s3", "gs": "dvc-gs", "azure": "dvc-azure", "ssh": "dvc-ssh"}
    lock = (project / "requirements/pipeline.txt").read_text()
    assert {f"\n{package}==" in lock for package in packages.values() if package != packages.get(kind)} == {False}
    assert not kind or f"\n{packages[kind]}==" in lock

    tables = bundled(COMBINATIONS[name])
    assert {path.name.removesuffix(".dvc") for path in project.glob("data/*.dvc")} == set(tables.values())
    for path, table in tables.items():
        [pointer] = yaml.safe_load((project / f"data/{table}.dvc").read_text())["outs"]
        content = (project / ("dvc-remote" if address == "../dvc-remote" else ".dvc/cache") / path).read_bytes()
        md5, size, more = hashlib.md5(content, usedforsecurity=False).hexdigest(), len(content), {}
        if path == LISTING:
            [file] = json.loads(content)
            assert file["md5"][:2] + "/" + file["md5"][2:] == README.removeprefix("files/md5/")
            kept = (project / ("dvc-remote" if address == "../dvc-remote" else ".dvc/cache") / README).read_bytes()
            assert hashlib.md5(kept, usedforsecurity=False).hexdigest() == file["md5"]
            md5, size, more = f"{md5}.dir", len(kept), {"nfiles": 1}
        assert pointer == {"md5": md5, "size": size, "hash": "md5", "path": table} | more
        assert path == f"files/md5/{md5[:2]}/{md5[2:]}"


def test_later_objects_of_the_folder_remote_are_not_tracked(projects: dict[str, Path]) -> None:
    def ignored(path: str) -> bool:
        command = ["git", "check-ignore", "--quiet", path]
        return subprocess.run(command, cwd=projects["defaults"], check=False).returncode == 0

    assert not ignored(f"dvc-remote/{OBJECT}")
    assert ignored("dvc-remote/files/md5/0d/00000000000000000000000000000")
    assert ignored("dvc-remote/files/md5/aa/1690bbd5734538a9c8b3b1dc902760")
    assert ignored("dvc-remote/runs/aa/bb")
    assert not ignored("dvc.lock")


def test_no_template_syntax_is_left(project: Path) -> None:
    for name, text in texts(project).items():
        assert not re.search(r"\{\{-?\s*cookiecutter|\{%-?\s|cookiecutter\.|__dvc_", text), name


def test_files_can_be_read(project: Path) -> None:
    for name, text in texts(project).items():
        assert text == "" or text.endswith("\n"), name
        if name.endswith(".json"):
            json.loads(text)
        elif name.endswith(".toml"):
            tomllib.loads(text)
        elif name.endswith((".yaml", ".yml")):
            list(yaml.safe_load_all(text))


def test_relative_links_lead_somewhere(project: Path) -> None:
    documents = {name: re.sub(r"`[^`\n]+`", "", text) for name, text in texts(project).items() if name.endswith(".md")}
    links = [(name, link) for name, text in documents.items() for link in re.findall(r"\]\(([^)#\s]+)", text)]
    relative = [(name, link) for name, link in links if not re.match(r"[a-z]+:", link)]
    assert relative
    for name, link in relative:
        assert (project / name).parent.joinpath(link).exists(), f"{name}: {link}"


def test_make_lists_its_commands(project: Path) -> None:
    listed = re.findall(r"^  make (\S+)", make(project), re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*) FORCE$", (project / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert listed == phony[1].split()


def test_foreign_names_only(projects: dict[str, Path]) -> None:
    """A project with other names holds none of the defaults, but for the bundled table's own name."""
    for name, text in texts(projects["foreign"]).items():
        found = re.search(
            r"breast[-_ ]cancer(?! Wisconsin)|your-organisation|gitops-mlops authors", text, re.IGNORECASE
        )
        assert not found, f"{name}: {found}"


def test_python_is_linted(projects: dict[str, Path]) -> None:
    run(BIN / "ruff", "check", "--no-cache", *projects.values(), cwd=ROOT)


def test_python_is_formatted(projects: dict[str, Path]) -> None:
    run(BIN / "ruff", "format", "--check", "--no-cache", *projects.values(), cwd=ROOT)


def test_yaml_is_linted(projects: dict[str, Path]) -> None:
    settings = projects["defaults"] / ".yamllint"
    run(BIN / "yamllint", "--strict", "--config-file", settings, *projects.values(), cwd=ROOT)


def test_shell_is_linted(projects: dict[str, Path]) -> None:
    scripts = [
        project / name
        for project in projects.values()
        for name, text in texts(project).items()
        if name.endswith(".sh") or re.match(r"#!.*\b(ba)?sh\b", text)
    ]
    if scripts:
        run(BIN / "shellcheck", *scripts, cwd=ROOT)
