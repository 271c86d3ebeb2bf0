"""`make record-monitor`: the ref that tells the fleet's view what the monitor has found, and nothing of the rows."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from defaults import ROOT
from gitops.core.artifacts import ProjectError
from gitops.integrations import git
from gitops.monitoring import last_run
from releases import Job, isolate

EARLIER, NOON, LATER = "2026-01-02T08:00:00+00:00", "2026-01-02T12:00:00+00:00", "2026-01-02T18:00:00+00:00"

RESULT: dict[str, Any] = {
    "time": NOON,
    "status": "drift",
    "rows": 250,
    "model_version": "1a2b3c4d5e6f",
    "checks": [{"check": "unseen categories", "column": "town", "details": "Secretville (3)"}],
    "value": {"unit": "EUR", "model": {"value": 1200.5, "low": 900.0, "high": 1500.0}, "rows": 250, "days": 30},
    "notes": ["Secretville"],
}

SUMMARY = {
    "status": "drift",
    "time": NOON,
    "model_version": "1a2b3c4d5e6f",
    "rows": 250,
    "value": {"value": 1200.5, "low": 900.0, "high": 1500.0, "unit": "EUR"},
}


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


def record(job: Job, **changes: Any) -> None:
    job.write("reports/monitor.json", json.dumps(RESULT | changes))
    with contextlib.chdir(job.path):
        assert last_run.main() == 0


def recorded(job: Job, origin: Path) -> Any:
    return json.loads(job.git("show", f"{last_run.LAST}:{last_run.FILE}", at=origin))


def test_numbers_and_names_alone_are_recorded(job: Job, origin: Path) -> None:
    before = job.git("for-each-ref", "refs/heads", at=origin)
    record(job)
    assert recorded(job, origin) == SUMMARY
    assert job.git("ls-tree", "-r", "--name-only", last_run.LAST, at=origin) == last_run.FILE
    assert job.git("for-each-ref", "refs/heads", at=origin) == before


@pytest.mark.parametrize("value", [None, {"unit": "EUR", "model": None, "reason": "3 labelled rows"}])
def test_no_value_is_recorded_as_none(value: Any, job: Job, origin: Path) -> None:
    record(job, value=value)
    assert recorded(job, origin)["value"] is None


def test_the_next_run_stands_on_the_last_and_an_older_one_changes_nothing(job: Job, origin: Path) -> None:
    record(job)
    record(job, time=LATER, status="ok")
    record(job, time=EARLIER)
    record(job, time=LATER)  # the same run once more
    assert (recorded(job, origin)["time"], recorded(job, origin)["status"]) == (LATER, "ok")
    assert job.git("rev-list", "--count", last_run.LAST, at=origin) == "2"


@pytest.mark.parametrize(("other", "kept"), [(LATER, LATER), (EARLIER, NOON)])
def test_a_race_keeps_the_newer_run(
    other: str, kept: str, job: Job, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run records its result between this one's look at the ref and its push."""
    rival, write_commit, raced = Job(origin, tmp_path / "rival"), git.write_commit, []

    def late(*arguments: Any) -> str:
        commit = write_commit(*arguments)
        if not raced:
            raced.append(commit)
            record(rival, time=other)
        return commit

    monkeypatch.setattr(git, "write_commit", late)
    with contextlib.chdir(job.path):
        assert last_run.record(SUMMARY) is (kept == NOON)
    assert recorded(job, origin)["time"] == kept
    assert job.git("rev-list", "--count", last_run.LAST, at=origin) == str(1 + (kept == NOON))


def test_a_damaged_record_is_replaced(job: Job, origin: Path) -> None:
    job.git("push", "--quiet", "origin", f"HEAD:{last_run.LAST}")
    record(job)
    assert recorded(job, origin) == SUMMARY


def test_a_push_that_is_refused_says_so(job: Job, origin: Path) -> None:
    hook = origin / "hooks/pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with contextlib.chdir(job.path), pytest.raises(ProjectError, match=f"{last_run.LAST} of origin cannot be written"):
        last_run.record(SUMMARY)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"},
        {"status": ["ok"]},
        {"time": "yesterday"},
        {"time": None},
        {"rows": "250"},
        {"rows": float("nan")},
        {"model_version": "a b"},
        {"model_version": None},
        {"value": {"unit": "EUR", "model": {"value": "many", "low": 0, "high": 1}}},
        {"value": {"unit": "EUR", "model": {"value": float("inf"), "low": 0, "high": 1}}},
        {"value": {"model": {}}},
        {"value": "much"},
    ],
)
def test_what_no_monitor_writes_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProjectError, match=r"monitor\.json is no result of the monitor's"):
        last_run.summary(RESULT | change)


@pytest.mark.parametrize("damage", [lambda path: path.symlink_to("/etc/hostname"), lambda path: path.write_text("[")])
def test_a_damaged_result_is_refused(damage: Callable[[Path], Any], job: Job, origin: Path) -> None:
    path = job.path / "reports/monitor.json"
    path.parent.mkdir()
    damage(path)
    with contextlib.chdir(job.path), pytest.raises(ProjectError):
        last_run.main()
    assert job.git("for-each-ref", last_run.LAST, at=origin) == ""


def test_it_needs_no_package(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); import gitops.monitoring.last_run",
    ]
    done = subprocess.run([*command, str(ROOT / "src")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
