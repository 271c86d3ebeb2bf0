"""Two branches that both ran the pipeline, merged: `make pipeline` mends dvc.lock, and names what a person decides."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from gitops.core.artifacts import ProjectError
from gitops.integrations import dvc
from gitops.retraining import merge, pipeline

PIPELINE = """\
stages:
  same: {cmd: cp source same, deps: [source], params: [rate], outs: [same]}
  left: {cmd: cat shared one > left, deps: [shared, one], outs: [left]}
  right: {cmd: cat shared two > right, deps: [shared, two], outs: [right]}
"""


def git(*arguments: str, fails: bool = False) -> str:
    person = ("-c", "user.name=Tester", "-c", "user.email=tester@localhost", "-c", "core.editor=true")
    done = subprocess.run(["git", *person, *arguments], capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stdout


def train(branch: str, **files: str) -> None:
    """Run the pipeline on a new branch of main with these files, and commit all."""
    git("switch", "--quiet", "--create", branch, "main")
    for name, text in files.items():
        Path(name).write_text(text)
    reproduce()
    git("add", "--all")
    git("commit", "--quiet", "--message", branch)


def reproduce() -> None:
    with Repo() as repository:
        repository.reproduce()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The branches `ours` and `theirs`, which have both trained: `left` and `right` differ, in what they read too."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        git("init", "--quiet", "--initial-branch=main")
        Repo.init().close()
        Path("dvc.yaml").write_text(PIPELINE)
        Path("params.yaml").write_text("rate: 1.0e-05\n")  # 1e-05 in dvc.lock, which is a text to PyYAML
        for name in ("source", "shared", "one", "two"):
            Path(name).write_text(f"{name}\n")
        git("add", "--all")
        git("commit", "--quiet", "--message", "main")
        train("first", shared="first\n")
        git("branch", "--force", "main", "first")
        train("ours", one="ours\n", two="ours\n")
        train("theirs", one="ours\n", shared="theirs\n")
        git("switch", "--quiet", "ours")
    return folder


@pytest.fixture
def repository(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    shutil.copytree(trained, folder, symlinks=True)
    monkeypatch.chdir(folder)
    return folder


def lock() -> dict[str, Any]:
    return yaml.safe_load(Path("dvc.lock").read_text())["stages"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("how", "style"),
    [
        ("merge", "merge"),
        ("merge", "zdiff3"),
        ("rebase", "diff3"),
        ("with markers added", "merge"),
        ("with markers added", "diff3"),
        ("with markers added", "zdiff3"),
    ],
)
def test_a_merged_lock_keeps_what_both_sides_have(
    repository: Path, how: str, style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    git("config", "merge.conflictStyle", style)
    before = lock()
    git("rebase" if how == "rebase" else "merge", "theirs", fails=True)
    assert "<<<<<<<" in Path("dvc.lock").read_text()
    with pytest.raises(ProjectError, match=r"dvc\.lock holds a merge's conflict, which `make pipeline` resolves"):
        dvc.stale()
    if how == "with markers added":
        git("add", "dvc.lock")
    merge.resolve()
    assert lock() == {"same": before["same"]}
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "agree on (same); run again or taken from the run cache: left, right. " in said
    assert "`git add dvc.lock`, and `git commit` or `git rebase --continue`" in said
    merge.resolve()
    assert capsys.readouterr().out == ""
    assert sorted(dvc.stale()) == ["left", "right"]
    reproduce()
    assert Path("left").read_text() == "theirs\nours\n" and Path("right").read_text() == "theirs\nours\n"
    assert lock().keys() == before.keys() and dvc.stale() == []
    git("add", "dvc.lock")
    git(*(["rebase", "--continue"] if how == "rebase" else ["commit", "--quiet", "--no-edit"]))
    assert git("status", "--porcelain") == ""


def test_a_lock_that_nobody_can_read_is_an_error(repository: Path) -> None:
    Path("dvc.lock").write_text("<<<<<<< HEAD\nstages: [\n=======\n>>>>>>> theirs\n")
    with pytest.raises(ProjectError, match=r"dvc.lock holds .* cannot be read: take one side .* `make pipeline` again"):
        merge.resolve()
    assert Path("dvc.lock").read_text().startswith("<<<<<<<")


@pytest.mark.parametrize(
    "name", ["params.yaml", "dvc.yaml", "data/raw.csv.dvc", "data/appended.dvc", "data/appended.json"]
)
def test_what_a_person_decides_is_named(repository: Path, name: str) -> None:
    git("merge", "theirs", fails=True)
    conflict = Path("dvc.lock").read_text()
    Path("data").mkdir()
    Path(name).write_text("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> theirs\n")
    with pytest.raises(ProjectError, match=f"^{name} holds a merge's conflict: .*`git add {name}`$"):
        merge.resolve()
    assert Path("dvc.lock").read_text() == conflict


def test_make_pipeline_begins_with_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git("merge", "theirs", fails=True)
    Path("params.yaml").write_text("no: settings\n")
    with pytest.raises(ProjectError, match=r"params\.yaml"):
        pipeline.main()
    assert lock().keys() == {"same"}
