"""A retraining in a workflow: one job trains with a token that reads, another proposes what it left, as data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from defaults import ROOT
from github_server import GitHub
from gitops.core.artifacts import ProjectError
from gitops.integrations import dvc, git, github_pulls, github_runs
from gitops.retraining import handover, proposals, propose
from releases import isolate
from retraining_bench import Bench, on_github


@pytest.fixture
def bench(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    isolate(monkeypatch)
    return Bench(origin, tmp_path, monkeypatch)


@pytest.fixture
def server(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """GitHub, which says after a push that the branch has the workflow CI."""
    with on_github(tmp_path / "github", monkeypatch) as made:
        yield made


@pytest.fixture
def left(bench: Bench, server: GitHub) -> Path:
    """The folder that the job `retrain` hands over."""
    bench.ask("r1", "yes", x=7)
    bench.in_workflow()
    return bench.job.path / handover.FOLDER


def test_two_jobs_propose_what_one_command_does(bench: Bench, server: GitHub) -> None:
    bench.ask("r1", "yes", x=7)
    server.permissions[server.token] = {"pull-requests": "read", "actions": "read"}
    outputs = bench.in_workflow()
    left = outputs.pop("branch")
    assert outputs == {"status": "ready", "propose": "true"}
    assert bench.branches() == {} and server.pulls == []
    server.permissions[server.token] = {"pull-requests": "write", "actions": "write"}
    assert bench.propose() == 0
    first = bench.branches()
    assert [*first] == [left] and bench.last() == bench.seed.git("rev-parse", left, at=bench.origin)
    (pull,) = server.pulls
    assert pull["head"]["ref"] == left and "1 labelled requests appended" in pull["body"]
    assert "Retrain-reason: drift" in bench.seed.git("log", "-1", "--format=%B", left, at=bench.origin)
    assert server.dispatched == [("ci.yaml", left)]
    # The same on a laptop, of another origin's state: nothing is left, and the push itself has started CI.
    bench.seed.git("push", "--quiet", "origin", f":refs/heads/{left}", f":{proposals.LAST}")
    server.pulls.clear()
    assert bench.run() == 0
    assert bench.branches() == first and len(server.pulls) == 1
    assert len(server.dispatched) == 1 and not (bench.job.path / handover.FOLDER).exists()


def test_nothing_is_handed_over_where_nothing_is_new(bench: Bench, server: GitHub) -> None:
    assert bench.in_workflow() == {"status": "nothing"}
    assert not (bench.job.path / handover.FOLDER).exists()
    with pytest.raises(ProjectError, match="in a workflow `make retrain` leaves it"), contextlib.chdir(bench.job.path):
        propose.main()


def test_a_refused_candidate_is_recorded_by_the_job_that_may(bench: Bench, server: GitHub) -> None:
    bench.accepted = False
    bench.ask("r1", "yes")
    assert bench.in_workflow() == {"status": "refused", "propose": "true"}
    assert proposals.LAST not in bench.seed.git("ls-remote", "origin")
    assert bench.propose() == 0
    assert "Retrain-result: refused" in bench.refusal()
    assert bench.branches() == {} and server.pulls == [] and server.dispatched == []
    assert bench.in_workflow() == {"status": "waits"}


@pytest.mark.parametrize("ending", ["", ".dir"], ids=["file", "folder"])
def test_an_object_of_a_remote_in_the_repository_is_handed_over(bench: Bench, server: GitHub, ending: str) -> None:
    """Also below a hidden folder, of which an artifact holds nothing."""
    content = b"the table"
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    name = f".remote/files/md5/{md5[:2]}/{md5[2:]}{ending}"

    def tracked(_: Iterable[str]) -> list[Path]:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return [path]

    bench.monkeypatch.setattr(dvc, "tracked_objects", tracked)
    bench.ask("r1", "yes")
    bench.in_workflow()
    hidden = [path.name for path in (bench.job.path / handover.FOLDER).rglob(".*")]
    assert hidden == []
    assert bench.propose() == 0
    (branch,) = bench.branches()
    assert bench.show(branch, name) == content.decode()


class Killed(BaseException):
    """As a signal: nothing in the program catches it."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("again", ["the job", "the retraining"])
@pytest.mark.parametrize(
    ("module", "step"),
    [(handover, "read"), (git, "overlay"), (git, "propose"), (github_runs, "start"), (github_pulls, "open_or_edit")],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_a_kill_and_a_rerun_end_as_one_run_does(
    module: Any, step: str, again: str, after: bool, bench: Bench, server: GitHub
) -> None:
    """Whether the job that proposes is started again, or a new retraining comes."""
    bench.ask("r1", "yes")
    bench.in_workflow()
    original = getattr(module, step)

    def dies(*arguments: Any, **named: Any) -> Any:
        if after:
            original(*arguments, **named)
        raise Killed

    with bench.monkeypatch.context() as patch:
        patch.setattr(module, step, dies)
        with pytest.raises(Killed):
            bench.propose()
    if again == "the retraining" and bench.in_workflow()["status"] != "waits":
        assert bench.propose() == 0
    elif again == "the job":
        bench.runs += 1
        job = bench.job
        bench.job = type(job)(bench.origin, bench.folder / "rerun")
        shutil.copytree(job.path / handover.FOLDER, bench.job.path / handover.FOLDER)
        assert bench.propose() == 0
    (branch,) = bench.branches()
    (pull,) = server.pulls
    assert pull["head"]["ref"] == branch and bench.last() == bench.seed.git("rev-parse", branch, at=bench.origin)
    assert ("ci.yaml", branch) in server.dispatched
    assert bench.in_workflow()["status"] == "waits"


def test_a_closed_proposal_counts_for_the_cooldown(bench: Bench, server: GitHub, left: Path) -> None:
    assert bench.propose() == 0
    server.pulls[0]["state"] = "closed"
    assert bench.in_workflow()["status"] == "waits"


# The folder is a stranger's.


def told(change: dict[str, Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        text = json.loads((folder / "candidate.json").read_text())
        (folder / "candidate.json").write_text(json.dumps(text | change))

    return edit


def instead(name: str) -> Callable[[Path], None]:
    """Let the first file be one of another name."""

    def edit(folder: Path) -> None:
        text = json.loads((folder / "candidate.json").read_text())
        text["files"][0] = name
        (folder / "candidate.json").write_text(json.dumps(text))

    return edit


def linked(folder: Path) -> None:
    (folder / "files/0").unlink()
    (folder / "files/0").symlink_to("/etc/passwd")


def linked_folder(folder: Path) -> None:
    (folder / "files").rename(folder / "elsewhere")
    (folder / "files").symlink_to("elsewhere")


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a workflow": (instead(".github/workflows/ci.yaml"), "does not change '.github/workflows/ci.yaml'"),
    "code": (instead("src/gitops/core/params.py"), "does not change"),
    "a new pointer": (instead("data/more.dvc"), "does not change"),
    "a path": (instead("../data/raw.csv.dvc"), "does not change"),
    "an absolute path": (instead("/etc/passwd"), "does not change"),
    "an object of another name": (instead(f"dvc-remote/files/md5/00/{'0' * 30}"), "does not change"),
    "a listing of another name": (instead(f"dvc-remote/files/md5/00/{'0' * 30}.dir"), "does not change"),
    "a link": (linked, "is no regular file"),
    "a linked folder": (linked_folder, "is missing"),
    "a missing file": (lambda folder: (folder / "files/0").unlink(), "is no regular file"),
    "main": (told({"branch": "main"}), "branch must be retrain/"),
    "another branch": (told({"branch": "retrain/../main"}), "branch must be retrain/"),
    "a force": (told({"branch": "+retrain/0123456789ab"}), "branch must be retrain/"),
    "an option": (told({"main": "--output=x"}), "main is no commit"),
    "a commit that is not on main": (told({"main": "0" * 40}), "is not on main"),
    "a number": (told({"title": 7}), "something else"),
    "another key": (told({"more": ""}), "something else"),
    "files of another kind": (told({"files": [["params.yaml"]]}), "something else"),
    "a refused one with files": (told({"branch": ""}), "has neither"),
    "one without files": (told({"files": []}), "has neither"),
    "a list": (lambda folder: (folder / "candidate.json").write_text("[]"), "something else"),
    "no JSON": (lambda folder: (folder / "candidate.json").write_text("[" * 100_000), "is not JSON"),
    "no text": (lambda folder: (folder / "candidate.json").unlink(), "is missing"),
    "a long text": (lambda folder: (folder / "candidate.json").write_text("x" * 1_000_001), "larger than"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_retraining_does_not_write_is_refused(bench: Bench, server: GitHub, left: Path, what: str) -> None:
    change, why = HOSTILE[what]
    change(left)
    bench.monkeypatch.setattr(git, "_push", lambda *_: pytest.fail("pushed"))
    bench.monkeypatch.setattr(proposals, "record", lambda *_: pytest.fail("recorded"))
    with pytest.raises(ProjectError, match=why) as refusal:
        bench.propose()
    assert "\n" not in str(refusal.value)
    assert {call.method for call in server.calls} == {"GET"}


def test_a_branch_of_this_repository_is_no_commit_of_main(bench: Bench, server: GitHub, left: Path) -> None:
    bench.seed.git("commit", "--quiet", "--allow-empty", "--message", "Unmerged")
    bench.seed.git("push", "--quiet", "origin", "HEAD:refs/heads/unmerged")
    told({"main": bench.seed.git("rev-parse", "HEAD")})(left)
    with pytest.raises(ProjectError, match="is not on main"):
        bench.propose()


def test_hostile_text_is_only_shown(bench: Bench, server: GitHub, left: Path) -> None:
    told({"title": "fixes #1 @all " + "x" * 500, "body": "<img src=x> @all\n" + "y" * 100_000})(left)
    assert bench.propose() == 0
    (pull,) = server.pulls
    assert "@all" not in pull["title"] + pull["body"] and "<img" not in pull["body"] and "#1" not in pull["title"]
    assert len(pull["title"]) <= 256 and len(pull["body"]) <= 65_536


# CI on the branch.


def test_ci_that_cannot_be_started_is_said_and_the_pull_request_is_open(
    bench: Bench, server: GitHub, left: Path
) -> None:
    server.dispatchable = {"main": ["ci.yaml"]} | {branch: [] for branch in branches(left)}
    with pytest.raises(ProjectError, match=r"pull/1 is open, but its checks were not started: .*workflow_dispatch"):
        bench.propose()
    (pull,) = server.pulls
    assert "Start CI by hand: Actions, CI, Run workflow, branch retrain/" in pull["body"]
    server.dispatchable = None
    assert bench.propose() == 0
    assert len(server.dispatched) == 1 and "by hand" not in server.pulls[0]["body"]


def branches(left: Path) -> list[str]:
    return [json.loads((left / "candidate.json").read_text())["branch"]]


def test_a_token_that_may_not_start_ci_is_told_so(bench: Bench, server: GitHub, left: Path) -> None:
    server.permissions[server.token] = {"pull-requests": "write", "actions": "read"}
    with pytest.raises(ProjectError, match="needs the permission `actions: write`"):
        bench.propose()
    assert len(server.pulls) == 1


def test_a_branch_that_github_has_not_seen_yet_is_tried_again(bench: Bench, server: GitHub, left: Path) -> None:
    server.refusals["POST"] = [(422, {}, {"message": "No ref found for: retrain/x"})] * 2
    assert bench.propose() == 0
    assert len(server.dispatched) == 1
    server.refusals["POST"] = [(422, {}, {"message": "No ref found for: retrain/x"})] * 4
    with pytest.raises(ProjectError, match="No ref found"):
        bench.propose()


@pytest.mark.parametrize(
    ("run", "started"),
    [
        ({"status": "in_progress", "conclusion": None}, 0),
        ({"conclusion": "success"}, 0),
        ({"conclusion": "failure"}, 0),
        ({"conclusion": "cancelled"}, 1),
    ],
)
def test_ci_is_started_once(bench: Bench, server: GitHub, left: Path, run: dict[str, Any], started: int) -> None:
    assert bench.propose() == 0
    server.dispatched.clear()
    (branch,) = bench.branches()
    commit = bench.seed.git("rev-parse", branch, at=bench.origin)
    server.ran(5, commit, branch, event="workflow_dispatch", **run)
    assert bench.propose() == 0
    assert len(server.dispatched) == started


def test_a_lost_answer_starts_ci_once(bench: Bench, server: GitHub, left: Path) -> None:
    """The run is there, although GitHub has answered with an error."""
    dispatch = server._dispatch

    def answered(call: Any) -> Any:
        answer = dispatch(call)
        commit = bench.seed.git("rev-parse", call.body["ref"], at=bench.origin)
        server.ran(5, commit, call.body["ref"], event="workflow_dispatch", status="queued", conclusion=None)
        return answer

    server._dispatch = answered  # type: ignore[method-assign]
    server.late, server.refusals["POST"] = True, [(502, {}, {})]
    assert bench.propose() == 0
    assert len(server.dispatched) == 1


def test_it_runs_on_bare_python_in_a_shallow_clone(bench: Bench, server: GitHub, left: Path) -> None:
    """As in its job, which checks out one commit; main has gone on meanwhile."""
    bench.seed.merge("Another merge")
    bench.seed.merge("And another")
    clone = bench.folder / "shallow"
    bench.seed.git("clone", "--quiet", "--depth=3", f"file://{bench.origin}", str(clone))
    shutil.copytree(left, clone / handover.FOLDER)
    variables = {"PYTHONPATH": str(ROOT / "src"), "GITHUB_ACTIONS": "true"}
    command = [sys.executable, "-S", "-m", "gitops.retraining.propose"]
    done = subprocess.run(command, cwd=clone, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(bench.branches()) == len(server.pulls) == len(server.dispatched) == 1
    assert server.token not in done.stdout + done.stderr


def test_without_a_token_nothing_is_pushed(bench: Bench, server: GitHub, left: Path) -> None:
    bench.monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(ProjectError, match="GITHUB_TOKEN is not set"):
        bench.propose()
    assert bench.branches() == {}


def test_github_names_the_setting_that_forbids_it(bench: Bench, server: GitHub, left: Path) -> None:
    server.may_open = False
    with pytest.raises(ProjectError, match="Allow GitHub Actions to create and approve pull requests"):
        bench.propose()
    server.may_open = True
    assert bench.propose() == 0
    assert len(server.pulls) == 1
