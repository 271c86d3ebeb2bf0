"""`make comment` by event: a pull request opened after its run, a release, and what a run has cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from commenting import REPORT, SHA, Bench, writes
from defaults import ROOT
from gitops.integrations import cml, git
from gitops.rendering.markdown import APART
from releases import Job, isolate


@pytest.fixture
def opened(bench: Bench) -> Bench:
    """Pull request 12 was opened after CI had run for its newest commit."""
    bench.name = "pull_request"
    bench.events["pull_request"] = {"action": "opened", "pull_request": bench.server.pulls[0]}
    return bench


def test_a_pull_request_that_is_opened_after_its_run_gets_the_report(opened: Bench) -> None:
    opened.server.ran(60, SHA)  # an older run of the same commit, and runs of other commits, branches and workflows
    opened.server.ran(90, "b" * 40)
    opened.server.ran(91, SHA, "twin")
    opened.server.ran(92, SHA, event="merge_group")
    fork = {"full_name": "stranger/name", "owner": {"login": "stranger"}}
    opened.server.ran(93, SHA, head_repository=fork)
    opened.server.ran(94, SHA, event="pull_request", conclusion="skipped")
    assert opened.run()[0] == 0
    (body,) = opened.posted()
    assert "[Run 77]" in body and "Accepted: toy" in body
    assert opened.run()[0] == 0  # closed and opened again
    assert len(opened.posted()) == 1


def test_nothing_has_run_yet(opened: Bench) -> None:
    opened.server.runs.clear()
    opened.silent("CI has not run for commit aaaaaaaaaaaa")


@pytest.mark.parametrize("status", ["queued", "in_progress", "waiting"])
def test_a_run_that_has_not_ended_reports_by_itself(opened: Bench, status: str) -> None:
    """Even where an earlier one of the same commit has ended."""
    opened.server.ran(90, SHA, event="workflow_dispatch", status=status, conclusion=None)
    opened.silent("run 90 of CI has not ended")


def test_a_fork_and_a_newer_commit_are_left_to_their_own_runs(opened: Bench) -> None:
    pull = opened.server.pulls[0]
    opened.events["pull_request"]["pull_request"] = {"head": {**pull["head"], "repo": {"full_name": "stranger/name"}}}
    opened.silent("a fork's pull request")
    opened.events["pull_request"]["pull_request"] = {"head": dict(pull["head"])}
    pull["head"] = {**pull["head"], "sha": "b" * 40}
    opened.silent("no open pull request has this commit")


def test_a_report_that_has_expired_is_not_missed(opened: Bench) -> None:
    opened.leave(REPORT, expired=True)
    opened.silent("has expired: run CI again")


def job(name: str, seconds: int, *steps: tuple[str, int], **changes: Any) -> dict[str, Any]:
    start = datetime(2026, 11, 1, 10, tzinfo=UTC)

    def times(took: int) -> dict[str, str]:
        ended = start + timedelta(seconds=took)
        return {"started_at": f"{start:%Y-%m-%dT%H:%M:%SZ}", "completed_at": f"{ended:%Y-%m-%dT%H:%M:%SZ}"}

    told = [{"name": step, "conclusion": "success", **times(took)} for step, took in steps]
    entry = {"name": name, "conclusion": "success", "steps": told, "html_url": "https://github.invalid/job"}
    return entry | times(seconds) | changes


def test_the_comment_says_where_the_minutes_went(bench: Bench) -> None:
    quick = [("Install uv", 3), ("Pipeline", 24), ("Report", 4), ("Gate", 2), ("Set up job", 0)]
    skipped: dict[str, Any] = {"conclusion": "skipped", "started_at": None, "completed_at": None}
    bench.server.jobs[77] = [
        job("test", 61, ("Lint", 20), ("Tests", 38)),
        job("pipeline", 60, *quick),
        job("pass", 2),
        job("verify", 0, conclusion="skipped"),
        job("waiting", 0, **skipped),
        job("@all <img> [x](//evil.example)", 3601, ("www.evil.example\n| x", 3600)),
    ]
    assert bench.run()[0] == 0
    (body,) = bench.posted()
    assert "<details><summary>65 minutes, each job rounded up, as GitHub bills its own runners</summary>" in body
    assert "| test | 2 | Tests 38 s, Lint 20 s |" in body
    assert "| pipeline | 1 | Pipeline 24 s, Report 4 s, Install uv 3 s |" in body
    assert "| pass | 1 |  |" in body
    assert "verify" not in body and "waiting" not in body
    for sign in ("@all", "<img", "www.evil", "](//"):
        assert sign not in body
    assert f"@{APART}all" in body
    assert body.index("minutes") < body.index("own code wrote") < body.index("Accepted: toy")


# A release.


def merged(bench: Bench, number: int, commit: str, **changes: Any) -> None:
    """Let GitHub say that a pull request was merged as a commit."""
    pull = {"number": number, "merged_at": "2026-11-01T10:00:00Z"}
    pull["base"] = {"ref": "main", "repo": {"full_name": bench.server.repository}}
    bench.server.merges.setdefault(commit, []).append(pull | changes)


class Released:
    """The job `release` of a repository, in which `make deploy` has just run."""

    def __init__(self, bench: Bench, job: Job) -> None:
        self.bench, self.job = bench, job
        self.tips: list[str] = []

    def release(self, model: str, environment: str = "production") -> str:
        """Merge and release; return the commit of main."""
        commit = self.job.merge(f"Change to {model}")
        record = {"commit": commit, "model": {"name": "toy", "version": model}}
        record["previous"] = self.tips[-1] if self.tips else None
        tree = git.write_tree({"release.json": json.dumps(record).encode()})
        tip = git.write_commit(tree, record["previous"], f"Release toy {model}")
        git.push(tip, f"env/{environment}")
        self.tips.append(tip)
        self.bench.server.merges.setdefault(commit, [])
        return commit

    def said(self, number: int) -> str:
        (comment,) = self.bench.server.comments[number]
        return str(comment["body"])


@pytest.fixture
def released(bench: Bench, job: Job, monkeypatch: pytest.MonkeyPatch) -> Released:
    isolate(monkeypatch)
    monkeypatch.chdir(job.path)
    bench.name = "push"
    return Released(bench, job)


@pytest.mark.parametrize("event", ["push", "workflow_dispatch"])
def test_a_merged_pull_request_is_told_its_release(released: Released, event: str) -> None:
    commit = released.release("one")
    bench, tip = released.bench, released.tips[-1]
    bench.name = event
    bench.events[event] = {}
    merged(bench, 5, commit)
    assert bench.run()[0] == 0
    said = released.said(5)
    assert said.startswith(f"Released as `toy one` to **production**: commit [{tip[:12]}](")
    assert f"/owner/name/commit/{tip}) of `env/production`" in said and "`make rollback` or the button Rollback" in said
    assert "live" not in said
    assert bench.run()[0] == 0, "run again"
    assert released.said(5) == said and writes(bench.server) == ["POST", "PATCH"]


def test_the_report_stays_beside_it(released: Released) -> None:
    bench, commit = released.bench, released.release("one")
    report = f"the report\n\n{cml.watermark(SHA)}"
    bench.server.say(5, report, "github-actions[bot]")
    merged(bench, 5, commit)
    assert bench.run()[0] == 0
    first, second = bench.server.comments[5]
    assert first["body"] == report and "Released as" in second["body"]


def test_a_release_of_several_merges_tells_each_of_them(released: Released) -> None:
    """GitHub drops the waiting run of the first; the second release edits only the lines of its own commit."""
    first = released.release("one")
    waiting = released.job.merge("documents")
    rebased = released.job.merge("and more")
    second = released.release("two")
    bench = released.bench
    merged(bench, 5, first)
    merged(bench, 6, waiting)
    for commit in (rebased, second):  # a pull request of two commits that was rebased
        merged(bench, 7, commit)
    bench.server.say(6, f"Released before\n\n{cml.watermark(SHA, cml.RELEASE)}", "github-actions[bot]")
    assert bench.run()[0] == 0
    assert sorted(bench.server.comments) == [6, 7]
    assert released.said(6).startswith("Released before"), "an earlier line is history"
    assert "Released as" in released.said(7)


def test_only_merges_into_main_of_this_repository_count(released: Released) -> None:
    bench, commit = released.bench, released.release("one")
    merged(bench, 5, commit, merged_at=None)
    merged(bench, 6, commit, base={"ref": "other", "repo": {"full_name": bench.server.repository}})
    merged(bench, 7, commit, base={"ref": "main", "repo": {"full_name": "stranger/name"}})
    bench.silent("no merged pull request holds commit")


def test_a_commit_that_released_nothing_says_nothing(released: Released) -> None:
    bench = released.bench
    bench.silent("env/production holds no release of commit")
    released.release("one")
    commit = released.job.merge("documents")
    merged(bench, 5, commit)
    bench.silent(f"no release of commit {commit[:12]}")
    bench.ref = "refs/heads/other"
    bench.refused("asks for no comment")


def test_staging_is_told_as_staging(released: Released) -> None:
    (released.job.path / "k8s/overlays/staging").mkdir()
    commit = released.release("one")
    merged(released.bench, 5, commit)
    released.bench.silent("env/staging holds no release")
    merged(released.bench, 6, released.release("two", "staging"))
    assert released.bench.run()[0] == 0
    said = released.said(6)
    assert "to **staging**" in said and '`make rollback ARGS="--environment staging"`' in said
    assert "once the promotion is merged" in said


def test_it_tells_a_release_on_bare_python(released: Released) -> None:
    commit = released.release("one")
    merged(released.bench, 5, commit)
    (released.bench.folder / "event.json").write_text("{}")
    variables = {"PYTHONPATH": str(ROOT / "src"), "GITHUB_EVENT_NAME": "push", "GITHUB_REF": "refs/heads/main"}
    command = [sys.executable, "-S", "-m", "gitops.reporting.comment"]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Released as" in released.said(5)


def test_a_token_that_may_not_is_told_what_it_needs(released: Released) -> None:
    bench, commit = released.bench, released.release("one")
    merged(bench, 5, commit)
    bench.server.permissions[bench.server.token] = {"pull-requests": "read"}
    bench.refused("needs the permission `pull-requests: write`")
    bench.server.permissions[bench.server.token] = {"actions": "read"}
    bench.refused("needs the permission `pull-requests: read`")
