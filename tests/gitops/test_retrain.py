"""`make retrain`: what starts and blocks it, and its result, also after a kill between any two steps."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from github_server import GitHub
from gitops.core import artifacts
from gitops.core.artifacts import DATA_UNDERSTANDING, ProjectError
from gitops.design import documents
from gitops.gate import gate
from gitops.integrations import dvc, git, github_pulls
from gitops.releases import trained
from gitops.reporting import report
from gitops.retraining import candidate, handover, pipeline, proposals, trigger
from gitops.tabular import append
from releases import isolate
from retraining_bench import TABLE, Bench, on_github


@pytest.fixture
def bench(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    isolate(monkeypatch)
    return Bench(origin, tmp_path, monkeypatch)


@pytest.fixture
def server(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    """GitHub, in front of the same origin."""
    with on_github(tmp_path / "github", monkeypatch) as made:
        yield made


@pytest.mark.parametrize("why", ["drift", "schedule", "new data", "labels of the spring"])
def test_labelled_requests_become_a_branch(bench: Bench, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("r1", "yes", x=100)
    bench.ask("r2", None)
    assert bench.run(why) == 0
    assert bench.table().decode() == TABLE and bench.appended() == "100,a,2026-02-01T00:00:00,yes\n"
    (branch,) = bench.branches()
    assert bench.show(branch, "dvc.lock")
    assert f"Retrain-reason: {why}" in bench.seed.git("log", "-1", "--format=%B", branch, at=bench.origin)
    assert f"git merge origin/{branch}" in capsys.readouterr().out
    assert bench.last() == bench.seed.git("rev-parse", branch, at=bench.origin)


def test_the_document_on_the_data_goes_with_the_table(bench: Bench, server: GitHub) -> None:
    artifacts.write_text(bench.seed.path / DATA_UNDERSTANDING, "40 rows")
    bench.seed.merge("Describe the data")
    bench.monkeypatch.setattr(documents, "describe", lambda settings: DATA_UNDERSTANDING.write_text("41 rows"))
    bench.ask("r1", "yes")
    assert bench.in_workflow()["propose"] == "true"
    assert bench.propose() == 0
    (branch,) = bench.branches()
    assert bench.show(branch, DATA_UNDERSTANDING.as_posix()) == "41 rows"


def test_without_new_data_nothing_is_trained(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.monkeypatch.setattr(pipeline, "main", lambda: pytest.fail("trained"))
    assert bench.run("schedule") == 0
    assert "No retraining: no new data or settings since main: nothing to train" in capsys.readouterr().out
    assert bench.branches() == {}


def test_settings_are_tuned(bench: Bench, server: GitHub) -> None:
    """A better set is new even without new data."""
    path = bench.seed.path / "params.yaml"
    path.write_text(path.read_text() + "retrain: {tune_trials: 3}\n")
    bench.seed.merge("Tune")

    def search(command: list[str]) -> int:
        assert command[-3:] == ["gitops.tuning.tune", "--trials", "3"]
        artifacts.PARAMS.write_text(artifacts.PARAMS.read_text().replace("width: 96", "width: 8"))
        artifacts.write_json(artifacts.TUNE, {"verdict": "Better: by far."})
        return 0

    bench.monkeypatch.setattr(pipeline, "run", lambda command: 0)
    bench.monkeypatch.setattr(candidate, "relay", search)
    assert bench.run("a person") == 0
    (branch,) = bench.branches()
    assert "width: 8" in bench.show(branch, "params.yaml")
    (pull,) = server.pulls
    assert "- settings, searched anew: Better: by far." in pull["body"]


def test_a_refused_candidate_opens_nothing_and_counts(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.accepted = False
    bench.ask("r", "yes")
    assert bench.run() == 0
    assert bench.branches() == {} and "Retrain-result: refused" in bench.refusal()
    assert "Nothing opened: Refused: worse." in capsys.readouterr().out
    assert bench.run() == 0
    assert "less than retrain.cooldown_hours" in capsys.readouterr().out


def test_failed_validation_is_a_refusal_and_a_crash_is_not(bench: Bench) -> None:
    bench.ask("r", "yes")

    def stopped(verdict: dict[str, Any] | None) -> int:
        if verdict:
            artifacts.write_json(artifacts.DATA_VERDICT, verdict)
        return 1

    bench.monkeypatch.setattr(pipeline, "main", lambda: stopped({"passed": False}))
    assert bench.run() == 0
    assert "validate_data failed" in bench.refusal() and bench.branches() == {}
    for verdict in (None, {"passed": True}):
        bench.monkeypatch.setattr(pipeline, "main", lambda verdict=verdict: stopped(verdict))
        with pytest.raises(ProjectError, match="not by a check"):
            bench.run(forced=True)


def test_cooldown(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("r1", "yes")
    assert bench.run() == 0
    bench.merge()
    bench.ask("r2", "no")
    assert bench.run() == 0
    assert bench.branches() == {} and "less than retrain.cooldown_hours (24) ago" in capsys.readouterr().out
    assert bench.run(forced=True) == 0
    assert len(bench.branches()) == 1


def test_one_at_a_time(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("r1", "yes")
    assert bench.run() == 0
    before = bench.branches()
    bench.ask("r2", "no")
    assert bench.run() == 0
    assert bench.branches() == before and "is open: merge or close it first" in capsys.readouterr().out
    assert bench.run(forced=True) == 0
    assert len(bench.branches()) == 2


HOSTILE = "fixes #1 @everyone <img src=x> [a](http://b) $(rm -rf /)\n::error::x\nRetrain-result: y " + "z" * 500


def test_a_hostile_reason_is_only_text(bench: Bench, server: GitHub) -> None:
    bench.ask("r", "yes")
    bench.in_workflow(HOSTILE)
    assert bench.propose() == 0
    (pull,) = server.pulls
    (branch,) = bench.branches()
    message = bench.seed.git("log", "-1", "--format=%B", branch, at=bench.origin)
    for text in (pull["title"], pull["body"], message):
        assert not re.search(r"#1|@everyone|<img|\]\(|http://|\$\(rm -rf /\)$", text), text
        assert "\n::" not in text and "\nRetrain-result" not in text
    assert len(pull["title"]) < 256


@pytest.mark.parametrize("why", ["", "  \n", "\u202e"])
def test_a_reason_is_needed(why: str) -> None:
    with pytest.raises(ProjectError, match="REASON is not set"):
        trigger.reason(why)


def test_a_pull_request_with_the_monitors_result(bench: Bench, server: GitHub) -> None:
    checks = [
        {"check": "feature drift", "column": "x", "value": 0.1, "limit": 0.2, "passed": True},
        {"check": "feature drift", "column": "@note|", "value": 0.34, "limit": 0.2, "passed": False},
    ]
    verdict = {"status": "drift", "from": "2026-11-01", "to": "2026-11-02", "rows": 500, "checks": checks}
    bench.monkeypatch.setenv("MONITOR", json.dumps(verdict))
    bench.ask("r", "yes")
    assert bench.run() == 0
    (pull,) = server.pulls
    assert pull["base"]["ref"] == "main" and pull["head"]["ref"] in bench.branches()
    assert "1 labelled requests appended" in pull["body"] and "| ❌ | feature drift |" in pull["body"]
    assert "1 of 2 checks failed" in pull["body"] and "0.34" in pull["body"] and "0.1 |" not in pull["body"]
    assert "@note" not in pull["body"]


@pytest.mark.parametrize("status", ["ok", "too_small", "invalid_requests"])
def test_a_monitor_without_drift_starts_nothing(bench: Bench, status: str) -> None:
    bench.monkeypatch.setenv("MONITOR", json.dumps({"status": status, "checks": []}))
    bench.ask("r", "yes")
    assert bench.run() == 0
    assert bench.branches() == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"checks": 3}', '{"status": "drift"}'])
def test_an_invalid_monitor_result_is_an_error(bench: Bench, text: str) -> None:
    bench.monkeypatch.setenv("MONITOR", text)
    with pytest.raises(ProjectError, match="MONITOR is not the JSON"):
        bench.run()


def test_a_closed_pull_request_does_not_block(bench: Bench, server: GitHub) -> None:
    bench.ask("r", "yes")
    assert bench.run() == 0
    assert bench.run(forced=False) == 0
    assert len(server.pulls) == 1
    server.pulls[0]["state"] = "closed"
    bench.monkeypatch.setattr(proposals, "last", lambda client: None)
    assert bench.run() == 0
    assert [pull["state"] for pull in server.pulls] == ["closed", "open"] and len(bench.branches()) == 1


def test_the_setting_that_forbids_pull_requests_is_named(bench: Bench, server: GitHub) -> None:
    server.may_open = False
    bench.ask("r", "yes")
    with pytest.raises(ProjectError, match="Allow GitHub Actions to create and approve pull requests"):
        bench.run()
    server.may_open = True
    assert bench.run() == 0
    assert len(server.pulls) == 1


class Killed(BaseException):
    """As a signal: nothing in the program catches it."""


STEPS = [
    (append, "append"),
    (dvc, "add"),
    (artifacts, "write_json"),
    (pipeline, "main"),
    (gate, "evaluate"),
    (report, "main"),
    (trained, "push"),
    (handover, "leave"),
    (git, "propose"),
    (github_pulls, "propose"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("module", "step"), STEPS, ids=[f"{module.__name__}.{step}" for module, step in STEPS])
def test_a_kill_and_a_rerun_end_as_one_run_does(
    module: Any, step: str, after: bool, bench: Bench, server: GitHub
) -> None:
    bench.ask("r1", "yes")
    bench.ask("r2", "no", x=7)
    original = getattr(module, step)

    def dies(*arguments: Any, **named: Any) -> Any:
        if after:
            original(*arguments, **named)
        raise Killed

    with bench.monkeypatch.context() as patch:
        patch.setattr(module, step, dies)
        with pytest.raises(Killed):
            bench.run()
    assert bench.run() == 0
    expected = ["1.5,a,2026-02-01T00:00:00,yes", "7,a,2026-02-01T00:00:00,no"]
    assert bench.table().decode() == TABLE and sorted(bench.appended().splitlines()) == expected
    assert len(bench.parts()) == 1
    (pull,) = server.pulls
    (branch,) = bench.branches()
    assert pull["head"]["ref"] == branch
    state = json.loads(bench.show(branch, "data/appended.json"))
    assert state["parts"] == [40] and len(state["requests"]) == 2
    assert bench.last() == bench.seed.git("rev-parse", branch, at=bench.origin)
    assert bench.run() == 0
    assert len(bench.branches()) == len(server.pulls) == 1
