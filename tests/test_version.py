"""The version of the package gitops, and the digests by which a project says that somebody has patched it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from projects import ROOT, environment, module_of, tracked

SUMS = "src/gitops/SHA256SUMS"


def said(project: Path) -> str:
    """Return what the line of `make test` prints that compares the package with its digests; it has to succeed."""
    command = ["make", "--dry-run", "test"]
    done = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=True)
    (compare,) = [line for line in done.stdout.splitlines() if "gitops.project.version" in line]
    return subprocess.run(["sh", "-c", compare], cwd=project, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def patched(projects: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the default project."""
    return Path(shutil.copytree(projects["defaults"], tmp_path / "project"))


def test_every_project_has_the_same_files_and_their_digests(projects: dict[str, Path]) -> None:
    (sums,) = {(project / SUMS).read_text() for project in projects.values()}
    for project in projects.values():
        files = [name for name in tracked(project) if name.startswith("src/gitops/") and name != SUMS]
        assert sorted(re.findall(r"(?m)^[0-9a-f]{64}  (.+)$", sums)) == [name[len("src/gitops/") :] for name in files]
        check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
        subprocess.run(check, cwd=project / "src/gitops", check=True)


def test_nothing_is_said_of_a_package_that_is_as_generated(projects: dict[str, Path], patched: Path) -> None:
    (patched / "src/gitops/core/__pycache__").mkdir(exist_ok=True)
    (patched / "src/gitops/core/__pycache__/code.cpython-311.pyc").write_bytes(b"")
    (patched / "src/gitops/.DS_Store").write_bytes(b"")
    assert said(patched) == ""


def test_patched_files_are_named_in_one_line(patched: Path) -> None:
    with (patched / "src/gitops/core/code.py").open("a") as file:
        file.write("# patched\n")
    (patched / "src/gitops/owner.py").unlink()
    (patched / "src/gitops/more.py").touch()
    version = re.findall(r'__version__ = "(.+)"', (patched / "src/gitops/__init__.py").read_text())[0]
    assert said(patched) == (
        f"src/gitops differs from version {version} of the template: core/code.py, more.py (added), "
        "owner.py (removed); an update will replace the package\n"
    )
    for number in range(9):
        (patched / f"src/gitops/{number}.py").touch()
    assert said(patched).count("\n") == 1 and "4.py (added) and 7 more; an update" in said(patched)


def test_without_digests_that_is_said(patched: Path) -> None:
    (patched / SUMS).unlink()
    assert said(patched) == "src/gitops has no SHA256SUMS: whether its files are the template's is unknown\n"


def test_the_changelog_has_the_version() -> None:
    """A version in development ends in .dev0 and has its changes under Unreleased."""
    version = module_of(ROOT, "{{cookiecutter.project_slug}}/src/gitops/__init__.py").__version__
    heading = re.findall(r"(?m)^## (?:\[?([\d.]+)\]?.*|Unreleased)$", (ROOT / "CHANGELOG.md").read_text())[0]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev0)?", version)
    assert version.endswith(".dev0") if heading == "" else version == heading
