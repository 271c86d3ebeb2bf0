"""What a promotion waits for: that Argo CD has reported staging's release as live, and for how long."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

import pytest
from github_server import ACTIONS, GitHub
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.deployment import promote
from gitops.integrations import github
from releases import Job, refused
from test_promote import NEXT, merged, origin, promoted, server, tip, to_production  # noqa: F401, two are fixtures


@pytest.fixture(autouse=True)
def released_hours_ago(server: GitHub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Commits are six hours old, so that what was reported since can be old too."""
    then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=6)
    monkeypatch.setenv("GIT_COMMITTER_DATE", then.isoformat())


def main_commit(job: Job) -> str:
    """Return the commit of main that staging runs."""
    return str(job.production("staging").record.commit)


def waits(job: Job, capsys: pytest.CaptureFixture[str]) -> str:
    """Promote in vain and return what was said."""
    capsys.readouterr()
    assert promoted(job, now=False) is None
    return capsys.readouterr().out


def test_it_waits_until_the_release_is_live_for_long_enough(
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    job.release("model A")
    told = waits(job, capsys)
    assert "has not been reported as live" in told and "`now`" in told and "NOW=1" in told
    assert tip(job, NEXT) is tip(job, "env/production") is None, "nothing is pushed for what waits"
    server.report(main_commit(job), "staging", "success", hours=0.5)
    told = waits(job, capsys)
    assert "30 minutes short of promotion.soak_hours (1)" in told and server.pulls == []
    server.deployments.clear()
    server.report(main_commit(job), "staging", "success", hours=1.1)
    assert promoted(job, now=False) == tip(job, NEXT)
    [pull] = server.pulls
    assert "Staging:" not in pull["body"] and f"\nMain-commit: {main_commit(job)}\n" in pull["body"]


def test_a_person_does_not_wait(job: Job, server: GitHub) -> None:  # noqa: F811
    """Nor is it taken back by the next hour's run; the pull request says what was not waited for."""
    job.release("model A")
    proposed = promoted(job, now=True)
    [pull] = server.pulls
    assert "**Staging:** toy" in pull["body"] and "has not been reported as live" in pull["body"]
    assert promoted(job, now=False) == proposed and pull["state"] == "open"


@pytest.mark.parametrize(
    ("state", "told"),
    [("failure", "is degraded"), ("error", "was not applied"), ("inactive", "as inactive"), ("pending", "as pending")],
)
def test_what_is_not_live_any_more_is_not_promoted(
    state: str,
    told: str,
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    job.release("model A")
    server.report(main_commit(job), "staging", "success", hours=5)
    server.report(main_commit(job), "staging", state, hours=4)
    assert told in waits(job, capsys)
    assert server.pulls == []


def test_the_time_begins_anew_after_a_failure(
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    job.release("model A")
    for state, hours in (("success", 5), ("failure", 1), ("success", 0.75), ("success", 0.25)):
        server.report(main_commit(job), "staging", state, hours)
    assert "15 minutes short" in waits(job, capsys), "since the first success after the failure"


def test_a_failure_after_the_proposal_is_told_in_it(job: Job, server: GitHub) -> None:  # noqa: F811
    job.release("model A")
    server.report(main_commit(job), "staging", "success", hours=2)
    proposed = promoted(job, now=False)
    server.report(main_commit(job), "staging", "failure")
    assert promoted(job, now=False) == proposed
    [pull] = server.pulls
    assert pull["state"] == "open" and "**Staging:** toy" in pull["body"] and "is degraded" in pull["body"]


def test_a_newer_release_starts_anew_and_withdraws_the_proposal(
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    job.release("model A")
    server.report(main_commit(job), "staging", "success", hours=5)
    assert promoted(job, now=False)
    job.release("model B")
    assert "has not been reported" in waits(job, capsys)
    [pull] = server.pulls
    assert pull["state"] == "closed" and "has not been reported" in pull["body"]
    server.report(main_commit(job), "staging", "success", hours=2)
    assert promoted(job, now=False) == tip(job, NEXT)
    assert [pull["state"] for pull in server.pulls] == ["closed", "open"], "what was withdrawn was not declined"


def test_a_rollback_of_staging_is_reported_anew(
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was live before the newer release says nothing about now, and GitHub keeps one deployment a commit."""
    job.release("model A")
    first = main_commit(job)
    server.report(first, "staging", "success", hours=5)
    job.release("model B")
    monkeypatch.delenv("GIT_COMMITTER_DATE")
    job.rollback("staging")
    assert main_commit(job) == first
    assert "has not been reported as live" in waits(job, capsys)
    server.report(first, "staging", "success", hours=-0.01)
    assert "promotion.soak_hours" in waits(job, capsys)


def test_a_release_from_a_machine_whose_clock_is_fast(
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=4)
    monkeypatch.setenv("GIT_COMMITTER_DATE", fast.isoformat())
    job.release("model A")
    server.report(main_commit(job), "staging", "success")
    assert "60 minutes short of promotion.soak_hours" in waits(job, capsys)


def test_a_revert_by_hand_is_reported_on_its_own_commit(job: Job, server: GitHub) -> None:  # noqa: F811
    """Its message does not tell the commit of main; its record does."""
    job.release("model A")
    job.release("model B")
    job.git("fetch", "--quiet", "origin")
    job.git("switch", "--quiet", "--detach", "origin/env/staging")
    job.git("revert", "--no-edit", "HEAD")
    job.git("push", "--quiet", "origin", "HEAD:env/staging")
    job.git("switch", "--quiet", "main")
    server.report(str(tip(job, "env/staging")), "staging", "success", hours=2)
    assert promoted(job, now=False)
    assert job.production("staging").record.model.version in server.pulls[-1]["title"]


@pytest.mark.parametrize(
    ("environment", "login"), [("production", "argo-cd[bot]"), ("staging-eu", "argo-cd[bot]"), ("staging", ACTIONS)]
)
def test_other_reports_do_not_count(
    environment: str,
    login: str,
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Such as Actions' own, of a job with the environment `staging`, which says that the job has ended."""
    job.release("model A")
    server.report(main_commit(job), environment, "success", hours=2, login=login)
    server.report("f" * 40, "staging", "success", hours=2)
    assert "has not been reported as live" in waits(job, capsys)


def test_the_time_is_that_of_the_released_params(
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    job.write("params.yaml", (job.path / "params.yaml").read_text() + "promotion: {soak_hours: 2.5}\n")
    job.release("model A")
    server.report(main_commit(job), "staging", "success", hours=2)
    assert "30 minutes short of promotion.soak_hours (2.5)" in waits(job, capsys)


def test_a_closed_proposal_is_not_opened_again_by_itself(
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    job.release("model A")
    server.report(main_commit(job), "staging", "success", hours=2)
    promoted(job, now=False)
    server.pulls[0]["state"] = "closed"
    assert "pull/1 was closed" in waits(job, capsys) and len(server.pulls) == 1
    assert promoted(job) and [pull["state"] for pull in server.pulls] == ["closed", "open"]
    server.pulls[1]["state"] = "closed"
    job.release("model B")
    server.report(main_commit(job), "staging", "success", hours=2)
    assert promoted(job, now=False) and server.pulls[-1]["state"] == "open", "another release is another proposal"


def test_a_merged_one_that_was_not_deleted_is_no_refusal(job: Job, server: GitHub) -> None:  # noqa: F811
    to_production(job, server, "model A")
    job.release("model B")
    server.report(main_commit(job), "staging", "success", hours=2)
    assert promoted(job, now=False)


def test_each_hour_does_not_fail_anew(
    job: Job,
    server: GitHub,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What production has rolled back fails the release's run, where people look, and not each hour's."""
    to_production(job, server, "model A")
    to_production(job, server, "model B")
    job.rollback()
    monkeypatch.setattr("sys.argv", ["promote"])
    with contextlib.chdir(job.path):
        with refused("rolled back"):
            promote.main()
        monkeypatch.setenv("GITHUB_EVENT_NAME", "schedule")
        capsys.readouterr()
        promote.main()
    assert "rolled back" in capsys.readouterr().out


def test_a_token_that_may_not_read_deployments(job: Job, server: GitHub) -> None:  # noqa: F811
    job.release("model A")
    server.permissions[server.token] = {"pull-requests": "write", "contents": "write"}
    with refused("GITHUB_TOKEN needs the permission `deployments: read`"):
        promoted(job, now=False)
    server.permissions[server.token]["deployments"] = "read"
    assert promoted(job, now=False) is None
    client = github.GitHub(**dict(zip(("server", "api", "repository", "token"), _settings(server), strict=True)))
    with pytest.raises(github.GitHubError, match="deployments: write"):
        client.post("deployments", {"ref": main_commit(job), "environment": "staging"})


def _settings(server: GitHub) -> tuple[str, str, str, str]:  # noqa: F811
    return server.url, server.api, server.repository, server.token


@pytest.mark.parametrize(("text", "why"), [("-1", "greater than or equal to 0"), ("soon", "valid number")])
def test_a_setting_that_is_none(job: Job, text: str, why: str) -> None:
    path = Path(job.path / "params.yaml")
    path.write_text(f"{path.read_text()}promotion: {{soak_hours: {text}}}\n")
    with pytest.raises(ProjectError, match=f"promotion.soak_hours.*{why}"):
        Params.load(path)
