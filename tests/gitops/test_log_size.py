"""A large request log: pruning by path, samples, and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest
import request_logs
from compacting import OVER, files, outcome, place
from compacting import folders as folders
from fsspec.implementations.memory import MemoryFileSystem
from gitops.core import artifacts
from gitops.monitoring import (
    compact,
    ground_truth,
    quality,
    request_ids,
)
from monitoring import NOW, World, settings
from request_logs import hour_folder


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], set[str]]:
    """The folders that are listed in memory's file system, and the files that are opened."""
    listed: list[str] = []
    opened: set[str] = set()

    def count(name: str, seen: Callable[[str], None]) -> None:
        plain = getattr(MemoryFileSystem, name)

        def counting(self: Any, path: str, *rest: Any, **more: Any) -> Any:
            seen(path)
            return plain(self, path, *rest, **more)

        monkeypatch.setattr(MemoryFileSystem, name, counting)

    for name, seen in (("ls", listed.append), ("_open", opened.add), ("cat_file", opened.add)):
        count(name, seen)
    return listed, opened


@pytest.mark.parametrize("compacted", [False, True])
def test_of_a_thousand_hours_only_the_windows_are_listed_and_opened(
    world: World, monkeypatch: pytest.MonkeyPatch, counted: tuple[list[str], set[str]], compacted: bool
) -> None:
    """The log before the window costs nothing, and the report says what was left out."""
    memory = fsspec.filesystem("memory")
    root = f"/hours/{compacted}"
    place(world, world.lines(60))
    if compacted:
        compact.compact(NOW + timedelta(days=1))
    (name,) = (name for name in files() if name.endswith((".jsonl", ".parquet")))
    body, last = Path("requests", name).read_bytes(), name.rpartition("/")[2]
    hours = [OVER - timedelta(hours=number) for number in range(1000)]
    for hour in hours:
        memory.pipe_file(f"{root}/{hour_folder(hour)}/{last}", body)
    monkeypatch.setenv("REQUEST_LOG", f"memory:/{root}")
    settings(days=1)
    listed, opened = counted
    listed.clear()
    opened.clear()
    first = (datetime.now(UTC) - timedelta(days=1)).replace(minute=0, second=0, microsecond=0)
    result = world.run()[1]
    kept = [hour for hour in hours if hour >= first]
    assert len(kept) >= 20 and result["rows"] == 60 * len(kept)
    assert {path for path in opened if "hour=" in path} == {f"{root}/{hour_folder(hour)}/{last}" for hour in kept}
    days = {hour.date() for hour in hours if hour.date() < first.date()}
    assert len(listed) < 40 and not [path for path in listed if f"date={min(days)}" in path]
    counts = json.loads(artifacts.MONITOR_CONTEXT.read_text())["read"]
    assert counts["tables" if compacted else "files"] == len(kept)
    assert counts["folders_skipped"] == len(days) + sum(hour.date() == first.date() for hour in hours if hour < first)


def test_a_retraining_reads_back_to_its_horizon(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Of what is older no hour of the log and no file of labels is read; an id that came again after it is seen."""
    ages = {"ancient": 40, "late": 15, "new": 1}
    lines = {name: world.lines(3, label=True) for name in ages}
    sent_again = [line | {"inputs": line["inputs"] | {"income": 0.25}} for line in lines["late"][:1]]
    lines["new"] += [line | {"request_id": lines["late"][0]["request_id"]} for line in sent_again]
    lines["new"] += [line | {"request_id": lines["ancient"][0]["request_id"]} for line in sent_again]
    for name, days in ages.items():
        moment = NOW - timedelta(days=days)
        for each in lines[name]:
            each["time"] = moment.isoformat()
        Path("requests", hour_folder(moment)).mkdir(parents=True, exist_ok=True)
        world.log(lines[name], f"{hour_folder(moment)}/a.jsonl")
    world.label()
    Path("labels/old.csv").write_text("request_id,label\nnone-of-these,yes\n")
    old = (NOW - timedelta(days=30)).timestamp()
    os.utime("labels/old.csv", (old, old))
    found = ground_truth.read(NOW - timedelta(days=10), (), horizon=NOW - timedelta(days=20))
    assert len(found.rows) == 4  # three new ones, and the id that is too old to be noticed
    assert found.left_out["the label came too late"] == 3 and found.left_out[request_ids.REUSED] == 1
    assert found.left_out["the log has no request of the label"] == 2
    assert "1 days or hours" in capsys.readouterr().out


def test_a_large_window_is_sampled_and_counted_in_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows are drawn after compaction; the counts are those of all rows."""
    lines = world.lines(400)
    for each in lines[:100]:
        each["inputs"]["prediction"] = "gold"
    for each in lines[100:180]:
        each["inputs"]["income"] = 9.0
    for each in lines[180:200]:
        each["inputs"]["income"] = None
    place(world, lines)
    monkeypatch.setattr(quality, "SAMPLE", 50)
    first = outcome(world)
    compact.compact(NOW + timedelta(days=1))
    assert outcome(world) == first
    assert 25 <= len(artifacts.read_parquet(artifacts.MONITOR_CURRENT)) <= 50
    assert len(artifacts.read_parquet(artifacts.MONITOR_REFERENCE)) == 50
    assert len(artifacts.read_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS)) == 150  # for the performance
    counted = first["context"]["quality"]
    assert counted["rows"] == first["result"]["rows"] == 400
    income, plan = counted["features"]["income"], counted["features"]["prediction"]
    assert (income["missing"], income["outside"], income["low"], income["high"]) == (20, 80, 9.0, 9.0)
    assert (plan["outside"], plan["unseen"]) == (100, ["gold"])


LIMITED = """
from datetime import UTC, datetime, timedelta
import pandas as pd
import peak_memory, request_logs
from gitops.monitoring import log_table, request_log, log_window
log_table.MEMORY = "200MiB"
since = datetime.now(UTC) - timedelta(days=2)
labels = pd.DataFrame({"request_id": [], "instance": [], "label": []}).astype({"instance": int})
with request_log.read(since) as log:
    window = log_window.Window(log.lines, request_logs.schema(), request_logs.VERSION, since, [], labels)
    window.read()
    print(window.counts.rows, peak_memory.peak())
"""


def test_memory_stays_below_a_log_that_is_larger(world: World, tmp_path: Path) -> None:
    rows = request_logs.write(tmp_path / "log", 1, 4_000_000)
    environment = os.environ | {"REQUEST_LOG": str(tmp_path / "log"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([*sys.path, str(Path(request_logs.__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    found, peak = map(int, done.stdout.split())
    values = rows * 30 * 8
    assert 0.9 * rows < found <= rows
    assert peak < values, f"{peak / 2**20:.0f} MiB for {values / 2**20:.0f} MiB of values"
