"""What each event of a branch and its pull request runs, and which checks that leaves.

The steps are the generated workflows' own, on the small project of workflow_project.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from workflow_events import ACTIONS, DEPENDABOT, Event, completed, dispatch, of_main, push
from workflow_project import BRANCH_ROLE, MAIN_ROLE, Project, small_project
from workflow_runner import Run, again, begin, go, run

Make = Callable[..., Project]


@pytest.fixture
def make(projects: dict[str, Path], tmp_path: Path) -> Iterator[Make]:
    """Return a function that makes the project, set up as `make github` does, and not released yet."""
    with ExitStack() as stack:

        def made(remote: str = "folder") -> Project:
            project = stack.enter_context(small_project(tmp_path, projects["defaults"], remote))
            project.set_up()
            project.push("main")
            project.hub.caused()
            return project

        yield made


def of(runs: list[Run], workflow: str) -> Run:
    """Return the one run of a workflow that did something."""
    [found] = [ran for ran in runs if ran.workflow == workflow and ran.conclusion != "skipped"]
    return found


def ran_nothing(runs: list[Run]) -> bool:
    """Tell whether every job was skipped, which costs nothing."""
    return all(set(ran.results.values()) == {"skipped"} and ran.billed == 0 for ran in runs)


def passed(project: Project, sha: str) -> None:
    """Hold a commit to its `pass`, however GitHub shows the names of jobs that were skipped."""
    for evaluated in (True, False):
        assert project.hub.checks(sha, evaluated).get("pass") == "success"


EVERYTHING = ["test: test", "pipeline: train", "pipeline: judge"]


@pytest.mark.parametrize("remote", ["folder", "bucket"])
def test_push_without_a_pull_request(make: Make, remote: str) -> None:
    """Everything runs, with the branches' role, and there is nobody to tell."""
    project = make(remote)
    sha = project.change("idea", "epochs: 20")
    runs = project.deliver()
    ci = of(runs, "CI")
    assert ci.results == dict.fromkeys(("test", "pipeline", "pass"), "success") | dict.fromkeys(
        ("verify", "build", "release", "register"), "skipped"
    )
    assert project.log() == EVERYTHING
    assert ci.inputs_of("aws-actions/configure-aws-credentials")[0]["role-to-assume"] == BRANCH_ROLE
    assert ran_nothing([ran for ran in runs if ran is not ci])
    passed(project, sha)
    trained = [use["name"] for use in ci.inputs_of("actions/upload-artifact") if use["name"].startswith("trained-")]
    assert len(trained) == (1 if remote == "folder" else 0)


def test_branch_without_its_variable_is_not_signed_in(make: Make) -> None:
    """It never falls back to main's role."""
    project = make("bucket")
    del project.hub.vars["AWS_BRANCH_ROLE_ARN"]
    project.change("idea", "epochs: 20")
    ci = of(project.deliver(), "CI")
    assert ci.results["pipeline"] == ci.results.get("pass") == "failure"
    assert not ci.inputs_of("aws-actions/configure-aws-credentials")


@pytest.mark.parametrize("role", [MAIN_ROLE, BRANCH_ROLE])
def test_each_cloud_needs_an_identity_of_the_branches(make: Make, role: str) -> None:
    """What the clouds have in common is not enough; and the stand-in's cloud gives main's role to no branch."""
    project = make()
    project.hub.vars |= {"GCP_WORKLOAD_IDENTITY_PROVIDER": "p", "AZURE_TENANT_ID": "t", "AWS_BRANCH_ROLE_ARN": role}
    project.change("idea", "epochs: 20")
    ci = of(project.deliver(), "CI")
    assert ci.results["pipeline"] == ("success" if role == BRANCH_ROLE else "failure")
    assert not ci.inputs_of("google-github-actions/auth") and not ci.inputs_of("azure/login")


def test_pull_request_after_its_run(make: Make) -> None:
    """Nothing runs again; the report is posted when the pull request is opened, by main's code."""
    project = make()
    sha = project.change("idea", "epochs: 20")
    project.deliver()
    project.log()
    runs = project.deliver(project.open(1, "idea"))
    report = of(runs, "Report")
    assert ran_nothing([ran for ran in runs if ran is not report])
    assert project.log() == ["comment: comment on 1 at main"]
    passed(project, sha)
    assert project.hub.mergeable(1)


def test_pull_request_before_its_run_has_ended(make: Make) -> None:
    """The end of the push's run posts the report."""
    project = make()
    project.change("idea", "epochs: 20")
    [pushed] = project.hub.caused()
    ci = begin(project.hub, "ci.yaml", pushed)
    for opened in project.deliver(project.open(1, "idea")):
        assert opened.workflow == "Report" or ran_nothing([opened])
    assert not project.hub.mergeable(1)
    project.log()
    go(ci)
    assert ci.state == "ended"  # the pull request's own run, of another group, has not cancelled it
    project.deliver(completed(project.hub, ci))
    assert project.log() == [*EVERYTHING, "comment: comment on 1 at main"]
    assert project.hub.mergeable(1)


def test_closed_and_reopened(make: Make) -> None:
    project = make()
    project.change("idea", "epochs: 20")
    project.deliver()
    project.deliver(project.open(1, "idea"))
    project.log()
    assert project.deliver(project.open(1, "idea", "closed")) == []
    of(project.deliver(project.open(1, "idea", "reopened")), "Report")
    assert project.log() == ["comment: comment on 1 at main"]
    assert project.hub.mergeable(1)


def test_second_push_to_a_pull_request(make: Make) -> None:
    """One run, and one comment; what was trained before is taken over."""
    project = make()
    project.change("idea", "epochs: 20")
    project.deliver()
    project.deliver(project.open(1, "idea"))
    project.log()
    sha = project.change("idea", notes="a word")
    runs = project.deliver(project.open(1, "idea", "synchronize"))
    assert project.log() == ["test: test", "pipeline: judge", "comment: comment on 1 at main"]
    assert len([ran for ran in runs if ran.billed]) == 2
    passed(project, sha)


@pytest.mark.parametrize("what", ["test", "pipeline"])
def test_what_fails_does_not_pass(make: Make, what: str) -> None:
    project = make()
    if what == "test":
        sha = project.change("idea", "epochs: 20", broken__txt="")
    else:
        del project.hub.vars["AWS_BRANCH_ROLE_ARN"]
        sha = project.change("idea", remote__txt="bucket")  # which nobody has signed in for
    ci = of(project.deliver(), "CI")
    assert ci.results[what] == ci.results.get("pass") == "failure"
    project.open(1, "idea")
    assert project.hub.checks(sha).get("pass") == "failure" and not project.hub.mergeable(1)


def test_newer_push_cancels_the_older_of_a_branch(make: Make) -> None:
    project = make()
    project.change("idea", "epochs: 20")
    first = begin(project.hub, "ci.yaml", project.hub.caused()[0])
    project.change("other", "epochs: 30")
    other = begin(project.hub, "ci.yaml", project.hub.caused()[0])
    project.change("idea", "epochs: 40")
    second = begin(project.hub, "ci.yaml", project.hub.caused()[0])
    assert (first.conclusion, other.state, second.state) == ("cancelled", "running", "running")
    assert ran_nothing(project.deliver(completed(project.hub, first)))  # no comment about what was cancelled


def test_newer_push_to_main_waits(make: Make) -> None:
    """A release is not cancelled; of those that wait the newest stays, also where a person has started it."""
    project = make()
    first, second, third = (
        begin(project.hub, "ci.yaml", event)
        for event in (push(project.hub), dispatch(project.hub, "ci.yaml"), push(project.hub))
    )
    assert [ran.state for ran in (first, second, third)] == ["running", "cancelled", "pending"]
    go(first)
    assert third.state == "running"


def fork_of(project: Project, tmp_path: Path) -> Path:
    fork = tmp_path / "fork.git"
    project.git("clone", "--quiet", "--bare", str(project.hub.origin), str(fork))
    return fork


@pytest.mark.parametrize("branch", ["idea", "main"])
def test_fork(make: Make, branch: str, tmp_path: Path) -> None:
    """It has what the public has, and its comment; what it trained is a claim that main does not take."""
    project = make()
    project.hub.vars |= {"TRAINING_RUNNER": "big-machine", "MLFLOW_TRACKING_URI": "https://mlflow.invalid"}
    fork = fork_of(project, tmp_path)
    project.change(branch, "epochs: 20", to=str(fork))
    project.git("reset", "--quiet", "--hard", "origin/main")
    event = project.open(1, branch, fork=("stranger/name", fork))
    ci = of(runs := project.deliver(event), "CI")
    assert ci.results.get("pass") == "success" and ci.results["verify"] == "skipped"
    pipeline = ci.jobs["pipeline"]
    assert pipeline.runs_on == "ubuntu-24.04"
    assert pipeline.permissions == dict.fromkeys(("actions", "contents", "deployments", "pull-requests"), "read")
    left = ("Sign in to the data's cloud", "Share the results", "Hand the trained model to main")
    assert {pipeline.step(name).result for name in left} == {"skipped"}
    assert of(runs, "Report").jobs["comment"].permissions["pull-requests"] == "write"
    assert project.log() == [*EVERYTHING, "comment: comment on of the fork at main"]
    passed(project, event.head)
    restorable = project.hub.restorable(event.ref)
    assert restorable and all(cache.key.startswith("setup-uv-") for cache in restorable)
    project.merge(1)
    project.deliver()
    assert project.log()[:3] == ["test: test", "verify: train", "verify: judge"]
    assert project.releases() == 1


def test_fork_that_was_queued(make: Make, tmp_path: Path) -> None:
    """Whoever may write puts it in the queue, which trains with rights; main trains nothing."""
    project = make()
    fork = fork_of(project, tmp_path)
    project.change("idea", "epochs: 20", to=str(fork))
    project.deliver(project.open(1, "idea", fork=("stranger/name", fork)))
    project.queue(1)
    project.log()
    project.deliver()
    assert [line for line in project.log() if "train" in line] == []
    assert project.releases() == 1


def with_replay(project: Project, folder: Path, found: str = "ok") -> None:
    """Let branches' runs replay a request log."""
    log = folder / "log-of-requests"
    log.write_text(found)
    project.hub.vars |= {"REQUEST_LOG": str(log), "REPLAY": "1"}


@pytest.mark.parametrize("remote", ["folder", "bucket"])
def test_replay(make: Make, remote: str, tmp_path: Path) -> None:
    """A branch's run replays the log after the gate, and main's does not."""
    project = make(remote)
    with_replay(project, tmp_path)
    project.change("idea", "epochs: 20")
    project.deliver()
    assert project.log() == [*EVERYTHING, "pipeline: replay"]
    project.deliver(project.open(1, "idea"))
    project.merge(1)
    project.deliver()
    assert not [line for line in project.log() if "replay" in line]


@pytest.mark.parametrize("lacking", ["REPLAY", "REQUEST_LOG"])
def test_replay_is_asked_for(make: Make, lacking: str, tmp_path: Path) -> None:
    """An address for the monitor alone lets no branch read the log."""
    project = make()
    with_replay(project, tmp_path)
    del project.hub.vars[lacking]
    project.change("idea", "epochs: 20")
    assert of(project.deliver(), "CI").jobs["pipeline"].step("Replay").result == "skipped"
    assert project.log() == EVERYTHING


def test_replay_that_fails_holds_up_nothing(make: Make, tmp_path: Path) -> None:
    project = make()
    with_replay(project, tmp_path, "broken")
    sha = project.change("idea", "epochs: 20")
    pipeline = of(project.deliver(), "CI").jobs["pipeline"]
    assert "the log cannot be read" in pipeline.step("Replay").output
    assert pipeline.step("Report").result == "success"
    passed(project, sha)


def test_replay_of_what_the_gate_refuses(make: Make, tmp_path: Path) -> None:
    """There is none: what is not merged changes nothing."""
    project = make()
    with_replay(project, tmp_path)
    project.change("idea", gate__txt="refuse")
    pipeline = of(project.deliver(), "CI").jobs["pipeline"]
    assert (pipeline.step("Gate").result, pipeline.step("Replay").result) == ("failure", "skipped")


def test_fork_is_replayed_nothing(make: Make, tmp_path: Path) -> None:
    """Nor is Dependabot, a branch with its versions, or a fork's change in the merge queue."""
    project = make()
    with_replay(project, tmp_path)
    fork = fork_of(project, tmp_path)
    project.change("theirs", "epochs: 20", to=str(fork))
    for branch in ("dependabot/uv/python-1", "locks/uv/python-1"):
        project.change(branch, "epochs: 30", who="maintainer")
    ran = project.deliver(project.open(1, "theirs", fork=("stranger/name", fork))) + project.queue(1)
    ran = [one for one in ran if one.workflow == "CI" and one.conclusion != "skipped"]
    assert {one.event.name for one in ran} == {"pull_request", "push", "merge_group", "workflow_dispatch"}
    assert {one.jobs["pipeline"].step("Replay").result for one in ran} == {"skipped"}
    assert not [line for line in project.log() if "replay" in line]


@pytest.mark.parametrize("method", ["merge", "squash", "queue"])
def test_merge(make: Make, method: str) -> None:
    """One training, whatever the merge looks like, and one release."""
    project = make()
    project.change("idea", "epochs: 20")
    project.deliver()
    project.deliver(project.open(1, "idea"))
    if method == "queue":
        queued = of(project.queue(1), "CI")
        assert (queued.event.name, queued.results.get("pass")) == ("merge_group", "success")
    else:
        project.merge(1, method)
    runs = project.deliver()
    ci = of(runs, "CI")
    assert ci.results["release"] == "success" and ran_nothing([ran for ran in runs if ran is not ci])
    log = project.log()
    assert len([line for line in log if line.endswith(": train")]) == 1
    assert len([line for line in log if line.startswith("release: push")]) == 1


@pytest.mark.parametrize("branch", ["dependabot/github_actions/actions-1", "locks/uv/python-1"])
@pytest.mark.parametrize("actor", [DEPENDABOT, "owner"])
def test_dependabot_has_no_rights(make: Make, branch: str, actor: str) -> None:
    """Nor has anybody's push to a branch of its, nor one with its versions; these pass like a fork's pull request."""
    project = make()
    project.hub.secrets["MLFLOW_TRACKING_PASSWORD"] = "of-mlflow"  # noqa: S105
    project.hub.vars |= {"TRAINING_RUNNER": "big-machine", "MLFLOW_TRACKING_URI": "https://mlflow.invalid"}
    sha = project.change(branch, "epochs: 20", who="maintainer")
    project.hub.caused()
    ci = run(project.hub, "ci.yaml", push(project.hub, branch, actor=actor))
    pipeline = ci.jobs["pipeline"]
    assert pipeline.runs_on == "ubuntu-24.04" and pipeline.step("Share the results").result == "skipped"
    assert not ci.inputs_of("aws-actions/configure-aws-credentials")
    passed(project, sha)
    event = Event("pull_request", {}, sha, "refs/pull/1/merge", DEPENDABOT)
    assert project.hub.contexts(event)["secrets"] == {}


def test_dependabot_where_the_data_is_private(make: Make) -> None:
    """Its own run cannot read the table; a person who has looked at the change runs it under another name."""
    project = make("bucket")
    sha = project.change("dependabot/github_actions/actions-1", "epochs: 20", who="dependabot")
    ci = of(project.deliver(), "CI")
    assert ci.event.actor == DEPENDABOT and ci.results.get("pass") == "failure"
    project.open(1, "dependabot/github_actions/actions-1")
    assert not project.hub.mergeable(1)
    project.push("looked-at")
    project.deliver()
    passed(project, sha)
    assert project.hub.mergeable(1)


def test_locks_of_dependabot(make: Make) -> None:
    """Another pull request has its commit and the locks; its checks come from a dispatch, without an App."""
    project = make()
    sha = project.change("dependabot/uv/python-1", "epochs: 20", who="dependabot")
    runs = project.deliver()
    locks = of(runs, "Locks")
    assert locks.results == {"lock": "success", "propose": "success"}
    assert locks.jobs["lock"].permissions == {"contents": "read"}
    assert project.hub.git("rev-parse", "locks/uv/python-1^") == sha
    assert project.hub.git("rev-parse", "dependabot/uv/python-1") == sha  # CI pushes to no pull request's branch
    [started] = [ran for ran in runs if ran.event.name == "workflow_dispatch"]
    assert started.event.actor == ACTIONS and started.event.ref == "refs/heads/locks/uv/python-1"
    passed(project, project.hub.git("rev-parse", "locks/uv/python-1"))
    assert [pull["head"]["ref"] for pull in project.hub.pulls.values()] == ["locks/uv/python-1"]


@pytest.mark.parametrize("remote", ["folder", "bucket"])
def test_retraining(make: Make, remote: str) -> None:
    """One training; the pull request that the token opens gets its checks and its report without an App."""
    project = make(remote)
    runs = project.deliver(of_main(project.hub, "schedule"))
    retrain = of(runs, "Retrain")
    assert retrain.results == {"retrain": "success", "propose": "success"}
    assert retrain.jobs["retrain"].permissions["contents"] == "read"
    [(number, pull)] = project.hub.pulls.items()
    branch = pull["head"]["ref"]
    [started] = [ran for ran in runs if ran.event.name == "workflow_dispatch"]
    assert started.event.ref == f"refs/heads/{branch}" and started.conclusion == "success"
    passed(project, pull["head"]["sha"])
    assert project.log() == [
        *("retrain: train", "retrain: judge", f"propose: propose {branch}"),
        *("test: test", "pipeline: judge", f"comment: comment on {number} at main"),
    ]
    project.merge(number)
    project.deliver()
    assert "verify: train" not in project.log() and project.releases() == 1


@pytest.mark.parametrize("found", ["ok", "drift", "broken"])
def test_monitor(make: Make, found: str, tmp_path: Path) -> None:
    """Drift is a red run, and starts a retraining; so is a monitor that fails, which starts none."""
    project = make()
    log = tmp_path / "log-of-requests"
    log.write_text(found)
    project.hub.vars["REQUEST_LOG"] = str(log)
    monitor = run(project.hub, "monitor.yaml", of_main(project.hub, "schedule"))
    assert monitor.conclusion == ("success" if found == "ok" else "failure")
    runs = project.deliver(completed(project.hub, monitor))
    [retrain] = [ran for ran in runs if ran.workflow == "Retrain"]
    results = {"ok": ("skipped", "skipped"), "drift": ("success", "success"), "broken": ("success", "skipped")}
    assert (retrain.results["retrain"], retrain.results["propose"]) == results[found]
    assert ("retrain: train" in project.log()) is (found == "drift")
    assert len(project.hub.pulls) == (1 if found == "drift" else 0)
    assert monitor.results["record"] == ("skipped" if found == "broken" else "success")
    recorded = project.git("ls-remote", "origin", "refs/monitor/last")
    assert bool(recorded) is (found != "broken")


@pytest.mark.parametrize("failed", [False, True])
def test_branch_run_again(make: Make, failed: bool) -> None:
    """Every artifact's name is taken in the run already."""
    project = make()
    sha = project.change("idea", "epochs: 20", **({"broken__txt": ""} if failed else {}))
    ci = of(project.deliver(), "CI")
    project.log()
    again(ci, failed=failed)
    assert ci.results.get("pass") == project.hub.checks(sha).get("pass") == ("failure" if failed else "success")
    assert project.log() == ([] if failed else ["test: test", "pipeline: judge"])


def test_tag_runs_nothing(make: Make) -> None:
    project = make()
    project.git("push", "--quiet", "origin", "main:refs/tags/v1")
    assert project.deliver() == []
