"""`make propose-locks`: the locks of Dependabot's change, as data, on a branch and in a pull request of our own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from defaults import ROOT
from github_server import GitHub
from gitops.core.artifacts import ProjectError
from gitops.integrations import propose_locks
from releases import Job, isolate
from retraining_bench import on_github

THEIRS, OURS = "dependabot/uv/numpy-2.3.1", "locks/uv/numpy-2.3.1"

#: What the requirements are on Dependabot's branch, and what `make lock` makes of them.
BEFORE = {"requirements/a.in": "numpy==2.3.1", "requirements/a.txt": "old", "requirements/more/b.txt": "old"}
LOCKED = {"a.txt": "new", "more/b.txt": "old"}


class Bench:
    """Dependabot's branch, its pull request 9, and the second job of the workflow, in a clone of main."""

    def __init__(self, origin: Path, folder: Path, server: GitHub, job: Job) -> None:
        self.origin, self.folder, self.server, self.job = origin, folder, server, job
        person = Job(origin, folder / "person")
        person.git("switch", "--quiet", "--create", THEIRS)
        for name, text in BEFORE.items():
            person.write(name, text)
        person.git("add", "--all")
        person.git("commit", "--quiet", "--message", "Bump numpy")
        person.git("push", "--quiet", "origin", THEIRS)
        self.person, self.theirs = person, person.git("rev-parse", "HEAD")
        server.open_pull(9, self.theirs, THEIRS)
        self.locks = job.path / propose_locks.FOLDER
        self.leave(LOCKED)

    def leave(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            self.job.write(f"{propose_locks.FOLDER}/{name}", text)

    def run(self, commit: str | None = None, branch: str = THEIRS) -> str | None:
        with contextlib.chdir(self.job.path):
            return propose_locks.propose(branch, propose_locks.FOLDER, self.theirs if commit is None else commit)

    def at_origin(self, *arguments: str) -> str:
        return self.job.git(*arguments, at=self.origin)


@pytest.fixture
def bench(origin: Path, tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    isolate(monkeypatch)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    with on_github(tmp_path / "github", monkeypatch) as server:
        yield Bench(origin, tmp_path, server, job)


def test_the_locks_are_a_commit_on_dependabots(bench: Bench) -> None:
    address = bench.run()
    assert bench.at_origin("rev-parse", f"{OURS}~1") == bench.theirs
    assert bench.at_origin("diff", "--name-only", f"{OURS}~1", OURS) == "requirements/a.txt"
    assert bench.at_origin("show", f"{OURS}:requirements/a.txt") == "new"
    assert bench.at_origin("rev-parse", THEIRS) == bench.theirs
    theirs, ours = bench.server.pulls
    assert (ours["html_url"], ours["head"]["ref"], ours["base"]["ref"]) == (address, OURS, "main")
    assert ours["title"] == "Locks of uv/numpy-2.3.1" and "in place of #9" in ours["body"]
    assert bench.server.dispatched == [("ci.yaml", OURS)]
    assert theirs["state"] == "open"


def test_run_again_it_changes_nothing(bench: Bench) -> None:
    bench.run()
    tip = bench.at_origin("rev-parse", OURS)
    bench.server.ran(5, tip, OURS, event="workflow_dispatch", conclusion="failure")
    bench.run()
    assert bench.at_origin("rev-parse", OURS) == tip
    assert len(bench.server.pulls) == 2 and len(bench.server.dispatched) == 1


def test_a_newer_change_replaces_the_locks(bench: Bench) -> None:
    bench.run()
    bench.person.write("requirements/a.in", "numpy==2.3.2")
    bench.person.git("commit", "--quiet", "--all", "--amend", "--message", "Bump numpy again")
    bench.person.git("push", "--quiet", "--force", "origin", THEIRS)
    assert bench.run() is None, "its own run proposes"
    bench.theirs = bench.person.git("rev-parse", "HEAD")
    bench.leave({"a.txt": "newer"})
    bench.run()
    assert bench.at_origin("rev-parse", f"{OURS}~1") == bench.theirs
    assert bench.at_origin("show", f"{OURS}:requirements/a.txt") == "newer"
    assert len(bench.server.pulls) == 2 and len(bench.server.dispatched) == 2


def test_locks_that_are_right_are_said(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.leave({"a.txt": "old"})
    assert bench.run() is None
    assert "as `make lock` writes them" in capsys.readouterr().out
    assert bench.at_origin("branch", "--list", "locks/*") == "" and bench.server.dispatched == []


def test_only_locks_that_git_tracks_are_taken(bench: Bench) -> None:
    more = ("b.txt", "a.in", "new/c.txt", "../src/x.txt", ".a.txt", "a.txt.sh")
    bench.leave(dict.fromkeys(more, "strange"))
    bench.run()
    assert bench.at_origin("diff", "--name-only", f"{OURS}~1", OURS) == "requirements/a.txt"


def a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def a_linked_folder(path: Path) -> None:
    (path.parent / "more").rename(path.parent / "elsewhere")
    (path.parent / "more").symlink_to("elsewhere")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_large_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(propose_locks.LIMIT + 1)


@pytest.mark.parametrize("make", [a_link, a_linked_folder, a_folder, a_large_file])
def test_what_is_no_small_file_is_refused(bench: Bench, make: Callable[[Path], None]) -> None:
    make(bench.locks / "a.txt")
    with pytest.raises(ProjectError, match="a regular file of at most"):
        bench.run()
    assert bench.at_origin("branch", "--list", "locks/*") == ""


@pytest.mark.parametrize(
    "branch", ["main", "", "dependabot/", "dependabot/x y", "dependabot/x\n::error::", "dependabot/ü"]
)
def test_another_branch_is_refused(bench: Bench, branch: str) -> None:
    with pytest.raises(ProjectError, match="Dependabot's is needed"):
        bench.run(branch=branch)


def test_without_the_first_job_it_is_an_error(bench: Bench) -> None:
    bench.locks.rename(bench.folder / "elsewhere")
    with pytest.raises(ProjectError, match="hands over requirements/"):
        bench.run()


def test_without_dependabots_pull_request_it_names_the_branch(bench: Bench) -> None:
    bench.server.pulls.clear()
    bench.run()
    assert "in place of" not in bench.server.pulls[0]["body"] and THEIRS in bench.server.pulls[0]["body"]


def test_ci_that_cannot_be_started_is_said(bench: Bench) -> None:
    bench.server.dispatchable = {"main": ["ci.yaml"], OURS: []}
    with pytest.raises(ProjectError, match="its checks were not started"):
        bench.run()
    assert len(bench.server.pulls) == 2


def test_it_runs_on_bare_python(bench: Bench) -> None:
    variables = {"PYTHONPATH": str(ROOT / "src"), "GITHUB_REF_NAME": THEIRS, "GITHUB_SHA": bench.theirs}
    command = [sys.executable, "-S", "-m", "gitops.integrations.propose_locks"]
    done = subprocess.run(
        command, cwd=bench.job.path, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "opened: https://" in done.stdout and bench.server.token not in done.stdout + done.stderr
