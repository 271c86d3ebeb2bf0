"""The stand-in for GitHub starts, refuses, guards and counts as GitHub does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import workflow_expressions as expressions
from workflow_events import ACTIONS, DEPENDABOT, Event, completed, dispatch, of_main, push
from workflow_expressions import UnknownError, render
from workflow_files import fits
from workflow_hub import Environment, Hub, Refused, Rule
from workflow_probe import CHECK_OUT, UPLOAD, hub_of, probe, probe_hub
from workflow_runner import Run, again, begin, go, run


@pytest.fixture
def hub(projects: dict[str, Path], tmp_path: Path) -> Hub:
    """A hub with the default project."""
    return hub_of(tmp_path, projects["defaults"])


@pytest.mark.parametrize(
    ("pattern", "branch", "value"),
    [
        ("env/**", "env/production", True),
        ("env/**", "environment", False),
        ("main", "main", True),
        ("dependabot/uv/**", "dependabot/uv/python-1/x", True),
        ("release/*", "release/1/2", False),
    ],
)
def test_pattern_of_branches(pattern: str, branch: str, value: bool) -> None:
    assert fits(pattern, branch) is value


def test_what_starts_what(hub: Hub) -> None:
    main = hub.git("rev-parse", "main")
    ci = Run(hub, 1, "ci.yaml", push(hub), {"name": "CI"}, {})
    for branch in ("other", "env/production", "dependabot/uv/python-1", "gh-readonly-queue/main/pr-1-a", "a/b"):
        hub.git("update-ref", f"refs/heads/{branch}", main)
    queued = {"action": "checks_requested", "merge_group": {}}
    pull: dict[str, Any] = {"head": {"ref": "other", "sha": main}, "base": {"ref": "main"}}
    for event, files in (
        (push(hub), ["ci.yaml"]),
        (push(hub, "other"), ["ci.yaml"]),
        (push(hub, "a/b"), ["ci.yaml"]),
        (push(hub, "other", actor=ACTIONS), []),
        (push(hub, "env/production"), []),
        (push(hub, "gh-readonly-queue/main/pr-1-a"), []),
        (push(hub, "dependabot/uv/python-1", actor=DEPENDABOT), ["ci.yaml", "locks.yaml"]),
        (Event("push", {}, main, "refs/tags/v1"), []),
        (Event("merge_group", queued, main, "refs/heads/gh-readonly-queue/main/pr-1-a"), ["ci.yaml"]),
        (Event("pull_request", {"action": "opened", "pull_request": pull}, main), ["ci.yaml", "report.yaml"]),
        (Event("pull_request", {"action": "synchronize", "pull_request": pull}, main), ["ci.yaml"]),
        (Event("pull_request", {"action": "closed", "pull_request": pull}, main), []),
        (Event("pull_request", {"action": "opened", "pull_request": pull}, main, actor=ACTIONS), []),
        (Event("pull_request", {"action": "opened", "pull_request": pull | {"base": {"ref": "env/x"}}}, main), []),
        (dispatch(hub, "ci.yaml", "other"), ["ci.yaml"]),
        (dispatch(hub, "ci.yaml", "other", actor=ACTIONS), ["ci.yaml"]),
        (dispatch(hub, "rollback.yaml"), ["rollback.yaml"]),
        (of_main(hub, "schedule"), ["monitor.yaml", "retrain.yaml"]),
        (of_main(hub, "repository_dispatch", {"action": "new-data"}), ["retrain.yaml"]),
        (of_main(hub, "repository_dispatch", {"action": "other"}), []),
        (completed(hub, ci), ["report.yaml"]),
        (completed(hub, Run(hub, 2, "locks.yaml", push(hub), {"name": "Locks"}, {})), []),
    ):
        assert list(hub.workflows(event)) == files, event


def test_fork_of_a_private_repository_starts_nothing(hub: Hub) -> None:
    """Unless a setting says so."""
    pull = {"head": {"ref": "x", "sha": "", "repo": {"full_name": "stranger/name"}}, "base": {"ref": "main"}}
    payload = {"action": "opened", "pull_request": pull}
    event = Event("pull_request", payload, hub.git("rev-parse", "main"), "refs/pull/1/merge", fork=True)
    assert "ci.yaml" in hub.workflows(event)
    hub.visibility = "private"
    assert hub.workflows(event) == {}
    hub.fork_runs = True
    assert "ci.yaml" in hub.workflows(event)


def test_dispatch_by_the_api(hub: Hub) -> None:
    """It takes `actions: write`, a branch that is there, a workflow that both it and main have, and known inputs."""
    token = hub.issue({"actions": "write"})
    hub.git("branch", "candidate", "main")
    for given, ref, file, inputs, code in (
        (hub_token_of_a_reader(hub), "candidate", "ci.yaml", {}, 403),
        ("ghs_unknown", "candidate", "ci.yaml", {}, 403),
        (token, "nowhere", "ci.yaml", {}, 422),
        (token, "candidate", "other.yaml", {}, 404),
        (token, "candidate", "report.yaml", {}, 422),
        (token, "candidate", "ci.yaml", {"force": "1"}, 422),
    ):
        hub.tokens.setdefault(token, {"actions": "write"})
        with pytest.raises(Refused) as refusal:
            hub.dispatch(given, file, ref, inputs)
        assert refusal.value.args[0] == code
    hub.dispatch(token, "ci.yaml", "candidate", {"redeploy": "false"})
    (event,) = hub.caused()
    assert (event.name, event.ref, event.actor) == ("workflow_dispatch", "refs/heads/candidate", ACTIONS)
    assert hub.caused() == []


def hub_token_of_a_reader(hub: Hub) -> str:
    """Return a token that may read runs and start none."""
    token = "ghs_reader"  # noqa: S105
    hub.tokens[token] = {"actions": "read"}
    return token


def test_monitor_without_a_log_is_skipped(hub: Hub) -> None:
    """A project that has no log yet fails no daily job, and none looks as if it had judged."""
    monitor = run(hub, "monitor.yaml", of_main(hub, "schedule"))
    assert monitor.conclusion == "skipped"


@pytest.mark.parametrize(
    ("file", "name"), [("ci.yaml", "pipeline"), ("ci.yaml", "verify"), ("retrain.yaml", "propose")]
)
@pytest.mark.parametrize(("host", "password"), [("git.example", "the-token"), ("evil.example", None)])
def test_git_gives_the_token_to_its_own_server_alone(
    file: str, name: str, host: str, password: str | None, hub: Hub
) -> None:
    hub.url = "https://git.example"
    contexts = hub.contexts(push(hub))
    entries = hub.workflow(file, "main")["jobs"][name]["env"].items()
    settings = {key: expressions.text_of(render(value, contexts)) for key, value in entries if key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "credential", "fill"],
        input=f"protocol=https\nhost={host}\n\n",
        env=os.environ | settings | {"GITHUB_TOKEN": "the-token", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (f"password={password}\n" in done.stdout) if password else "the-token" not in done.stdout


PUSH = "- name: Push\n  run: git push origin HEAD:refs/heads/env/production"
KEPT = CHECK_OUT.replace("persist-credentials: false", "ssh-key: ${{ secrets.TOKEN }}")


@pytest.mark.parametrize(
    ("plan", "visibility", "steps", "keys", "result"),
    [
        ("free", "public", KEPT, ["the-secret"], "success"),
        ("free", "public", KEPT, ["another"], "failure"),
        ("free", "public", KEPT.replace("TOKEN", "NONE"), [], "failure"),
        ("free", "private", KEPT.replace("TOKEN", "NONE"), [], "success"),
        ("team", "private", KEPT.replace("TOKEN", "NONE"), [], "failure"),
        ("team", "private", KEPT, ["the-secret"], "success"),
    ],
)
def test_ruleset_lets_the_deploy_key_through(
    plan: str, visibility: str, steps: str, keys: list[str], result: str, tmp_path: Path
) -> None:
    """And not the job's token, where the plan has rules; where it has none everybody who may write may push."""
    hub = probe_hub(tmp_path, f"{steps}\n{PUSH}", "{contents: write}")
    hub.plan, hub.visibility, hub.keys, hub.rules = plan, visibility, keys, [Rule("env/*")]
    ran = run(hub, "probe.yaml", push(hub))
    assert ran.jobs["probe"].step("Push").result == result, ran.told()
    pushed = [event.actor for event in hub.caused()]
    assert pushed == ([] if result == "failure" else ["owner"] if keys else [ACTIONS])


def test_workflows_are_not_pushed_with_the_token(tmp_path: Path) -> None:
    change = "echo '# x' >> .github/workflows/probe.yaml && git -c user.name=a -c user.email=a commit -qam x"
    steps = f"{CHECK_OUT}\n- name: Push\n  run: {change} && git push origin HEAD:refs/heads/x\n"
    steps += "  env: {GITHUB_TOKEN: '${{ github.token }}'}"
    job = probe(tmp_path, steps, "{contents: write}").jobs["probe"]
    assert job.step("Push").result == "failure" and "without `workflows` permission" in job.step("Push").output


@pytest.mark.parametrize(
    ("plan", "visibility", "branch", "token"),
    [
        ("free", "public", "main", "of the environment"),
        ("free", "public", "other", None),
        ("free", "private", "main", "the-secret"),
        ("free", "private", "other", "the-secret"),
        ("team", "private", "main", "of the environment"),
        ("team", "private", "other", None),
    ],
)
def test_environment(plan: str, visibility: str, branch: str, token: str | None, tmp_path: Path) -> None:
    """Its secrets are its branches' alone; a plan without environments has none of them, and guards nothing."""
    more = "\n    environment:\n      name: release\n      deployment: false"
    told = "- name: Told\n  run: echo \"$IT\"\n  env: {IT: '${{ secrets.TOKEN }}'}"
    hub = probe_hub(tmp_path, told, more=more)
    hub.plan, hub.visibility = plan, visibility
    hub.environments = {"release": Environment({"TOKEN": "of the environment"})}
    job = run(hub, "probe.yaml", push(hub)).jobs["probe"]
    assert job.subject == "repo:owner/name:environment:release"
    event = Event("push", {}, hub.git("rev-parse", "main"), f"refs/heads/{branch}")
    this = begin(hub, "probe.yaml", push(hub))
    this.event = event
    job = go(this).jobs["probe"]
    assert job.result == ("failure" if token is None else "success")
    assert token is None or job.step("Told").output == f"{token}\n"


def test_run_again(tmp_path: Path) -> None:
    """An artifact's name is taken in the run that is run again, unless it is overwritten."""
    steps = f"- name: Make\n  run: echo $GITHUB_RUN_ATTEMPT > a\n- name: Keep\n  uses: {UPLOAD}\n  with:\n"
    steps += "    name: kept\n    path: a\n"
    first = probe(tmp_path, steps)
    assert first.conclusion == "success"
    assert "already exists on the workflow run" in again(first).told()
    first.content["jobs"]["probe"]["steps"][1]["with"]["overwrite"] = "true"
    assert again(first, failed=True).conclusion == "success"
    assert (first.hub.artifact(first.id, "kept") / "a").read_text() == "3\n"


def test_concurrency(tmp_path: Path) -> None:
    """One runs and one waits: a new one takes the place of who waits, and of who runs where it may be cancelled."""
    hub = probe_hub(tmp_path, "- {name: A, run: 'true'}")
    one, two, three = (begin(hub, "probe.yaml", push(hub)) for _ in range(3))
    assert [ran.state for ran in (one, two, three)] == ["running", "cancelled", "pending"]
    with pytest.raises(UnknownError, match="pending"):
        go(three)
    go(one)
    assert go(three).conclusion == "success" and two.conclusion == "cancelled"


def test_checks_of_a_job_that_is_skipped(tmp_path: Path) -> None:
    """Under its name, evaluated or not; a required check that is skipped has passed, as GitHub takes it."""
    hub = probe_hub(tmp_path, "- {name: A, run: 'true'}", more="\n    if: false")
    ran = begin(hub, "probe.yaml", push(hub))
    ran.content["jobs"]["probe"]["name"] = "${{ 'pa' }}ss"
    sha = go(ran).event.sha
    assert hub.checks(sha) == {"pass": "skipped"}
    assert hub.checks(sha, evaluated=False) == {"${{ 'pa' }}ss": "skipped"}
    hub.pulls[1] = {"head": {"sha": sha}}
    assert hub.mergeable(1)


def test_billed_minutes(tmp_path: Path) -> None:
    """A job that ran is a minute at least; one on a machine of one's own is none."""
    hub = probe_hub(tmp_path, "- {name: A, run: 'true'}")
    assert run(hub, "probe.yaml", push(hub)).billed == 1
    own = begin(hub, "probe.yaml", push(hub))
    own.content["jobs"]["probe"]["runs-on"] = "big-machine"
    assert go(own).billed == 0
