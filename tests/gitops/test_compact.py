"""The request log by date and hour: pruning by path, compaction, and equal results whatever form the log has."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
import request_logs
from fsspec.implementations.memory import MemoryFileSystem
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.monitoring import (
    compact,
    ground_truth,
    log_files,
    log_table,
    log_window,
    quality,
    request_ids,
    typed_lines,
)
from gitops.serving.server import request_log as server_log
from gitops.serving.server.request_log import Entry
from monitoring import NOW, OTHER, World, settings
from request_logs import hour_folder

#: An hour that is over, and in the window.
OVER = NOW - timedelta(hours=2)


def place(world: World, lines: list[Any], name: str = "a.jsonl") -> Path:
    """Add lines to a file in the folder of OVER."""
    world.log(lines, f"{hour_folder(OVER)}/{name}")
    return Path("requests", hour_folder(OVER), name)


@pytest.fixture(autouse=True)
def folders(world: World) -> None:
    Path("requests", hour_folder(OVER)).mkdir(parents=True)


def files() -> list[str]:
    return sorted(str(path.relative_to("requests")) for path in Path("requests").rglob("*") if path.is_file())


def tables() -> list[Path]:
    return sorted(Path("requests").rglob("*.parquet"))


def hostile(world: World) -> list[str]:
    """Return lines of every kind that a reader must survive, and good ones among them."""
    good = world.lines(60, label=True)
    for each in good[:20]:
        each["client"] = "10.0.0.1"
    for position, value in enumerate(
        [None, "NA", "much", True, 7, 10**400, 2**60, -0.0, 1e300, [1], {"a": 1}, "redacted", " "]
    ):
        good[position]["inputs"]["income"] = value
    for position, value in enumerate([" gold ", "", "NA", 5, "x" * 10_001, "\ud800", "é" * 10, "a\u0000b", None], 20):
        good[position]["inputs"]["prediction"] = value
    for position, value in enumerate(
        ["2024-02-30", "2024-02-01", "2024-01-01T00:00+05:30", "now", 5, "20240101", "0001-01-01T00:00:00+14:00"], 30
    ):
        good[position]["inputs"]["joined"] = value
    good[40]["inputs"]["surprise"] = None
    good[41]["prediction"] = 0.5
    good[42]["prediction"]["probabilities"] = {"yes": "0.25", "no": 0.75}
    good[43]["prediction"]["label"] = "perhaps"
    good[44]["prediction"]["probabilities"].pop("no")
    good[45]["extra"] = 1
    good[46]["instance"] = 2**70
    good[47].pop("instance")
    good[48]["time"] = good[48]["time"].replace("+00:00", "")
    good[49]["request_id"] = "\ud800"
    good[50]["prediction"]["label"] = ["yes"]
    good[51]["inputs"] = {}
    again = [good[52] | {"inputs": good[52]["inputs"] | {"income": 1.25}}, good[53], good[54] | {"client": "other"}]
    reordered = good[55] | {"inputs": dict(reversed(good[55]["inputs"].items()))}
    others = [*world.lines(5, OTHER), *world.refused(4, "income"), *world.refused(2, "\ud800")]
    odd = world.line() | {"request_id": "odd", "status": 400, "errors": [{"column": 5}, 7, {"column": "income"}]}
    nothing = world.line() | {"request_id": "nothing", "status": 500, "errors": []}
    nested = json.dumps(good[56] | {"request_id": "deep"}).replace(
        '"income": ', '"income": ' + "[" * 3000 + "]" * 3000 + ', "x": '
    )
    twice = json.dumps(good[57] | {"request_id": "twice"}).replace('"income": ', '"income": 3.5, "income": ')
    comma = json.dumps(good[58] | {"request_id": "comma"})[:-1] + ",}"
    constant = json.dumps(
        good[59] | {"request_id": "constant"} | {"inputs": good[59]["inputs"] | {"income": float("nan")}}
    )
    raw = ["}", "[1]", '"\\ud800"', "", "[" * 100_000, '{"time": "yesterday", "request_id": "a", "model_version": "b"}']
    return [json.dumps(each) for each in (*good, *again, reordered, *others, odd, nothing)] + [
        *(nested, twice, comma, constant, *raw)
    ]


def outcome(world: World) -> dict[str, Any]:
    """Return all that a run finds, and the tables that it leaves."""
    world.state.unlink(missing_ok=True)
    result = world.run()[1]
    context = json.loads(artifacts.MONITOR_CONTEXT.read_text())
    for key in ("offsets", "tables", "read"):
        context.pop(key)
    for key in ("refused_for", "unreadable"):
        context[key] = sorted(map(repr, dict(context[key]).items()))
    frames: dict[str, Any] = {
        path.name: artifacts.read_parquet(path).to_json(double_precision=15)
        for path in (artifacts.MONITOR_CURRENT, artifacts.MONITOR_CURRENT_OUTPUTS, artifacts.MONITOR_LABELLED)
    }
    for name, after in (("all", None), ("later", OVER + timedelta(seconds=30))):
        found = ground_truth.read(after, ())
        rows = [(row.request_hash, row.client, row.time, json.dumps(row.inputs), row.label) for row in found.rows]
        frames[f"labelled: {name}"] = (rows, found.left_out)
    return {"result": result, "context": context} | frames


def test_results_are_equal_in_every_form(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON alone, a part compacted, a late file that became a second table, all compacted, and flat files."""
    lines = hostile(world)
    world.label()
    paths = [Path("requests", hour_folder(OVER), f"{name}.jsonl") for name in "abc"]
    for path, part in zip(paths, (lines[:40], lines[40:70], lines[70:]), strict=True):
        path.write_text("\n".join(part) + "\n")
    with paths[1].open("ab") as file:
        file.write(b'{"a": "\xff"}\n\xfe\xff\nnull\r{"half": ')
    plain = outcome(world)
    assert plain["result"]["rows"] > 30 and plain["context"]["reused"] >= 2
    assert plain["labelled: later"][1]["the label came too late"] > 20 < len(plain["labelled: later"][0])
    kept = paths[2].read_bytes()
    paths[2].unlink()
    assert compact.compact(NOW + timedelta(days=1)).tables == 1
    assert not paths[0].exists()
    paths[2].write_bytes(kept)
    assert outcome(world) == plain
    assert compact.compact(NOW + timedelta(days=1)).tables == 1
    assert [Path(name).suffix for name in files() if "hour=" in name] == [".parquet", ".parquet"]
    assert outcome(world) == plain
    assert compact.compact(NOW + timedelta(days=1)).tables == 0


def test_small_parts_give_what_one_gives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of a file, several tables of it, and parts of the rows."""
    lines = [line for line in hostile(world) if len(line) < 5000]
    world.label()
    path = Path("requests", hour_folder(OVER), "a.jsonl")
    path.write_text("\n".join(lines) + "\n")
    whole = outcome(world)
    monkeypatch.setattr(log_files, "BYTES", 4000)
    monkeypatch.setattr(compact, "BYTES", 4000)
    monkeypatch.setattr(log_window, "ROWS", 7)
    monkeypatch.setattr(log_window, "TOGETHER", 3)
    assert outcome(world) == whole
    assert compact.compact(NOW + timedelta(days=1)).tables > 3
    assert outcome(world) == whole


def columns_of(lines: list[bytes], folder: Path) -> pd.DataFrame:
    """Return the table of lines."""
    path = folder / "table.parquet"
    content = b"".join(lines)
    with log_table.connected() as (connection, _):
        typed_lines.write(connection, [typed_lines.Piece("a", 0, content)], path, {"a": len(content)})
    return pd.read_parquet(path)


def test_what_servers_write_has_typed_columns(tmp_path: Path) -> None:
    """No line of theirs is left for the slow way: several models, classes or numbers, redacted, refused."""
    row = {"age": 40, "weight": 71.5, "smokes": True, "when": "2026-01-31", 'größe "a.b': None}
    plain = {name: value for name, value in row.items() if '"' not in name}
    problems = [{"instance": 0, "column": "age", "error": "e"}, {"instance": 0, "column": None, "error": "e"}]
    answer = {"label": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}
    entries = [
        Entry("a", [plain, plain | {"age": 41.5}], [answer, answer], client="team-a"),
        Entry("b", [plain | {"smokes": None}, plain], [1.5, 2]),
        Entry("c", status=400, problems=problems),
        Entry("d", status=500, problems=[]),
        Entry("e", [row], [answer]),
    ]
    made = [line for entry in entries for line in server_log.lines(entry, "v", ["when"])]
    table = columns_of(made, tmp_path)
    assert table["line"].isna().tolist() == [True] * 6 + [False]  # a name that no path can hold keeps its bytes
    assert table["kinds"].tolist()[:4] == ["idbs", "ddbs", "id0s", "idbs"]
    assert table["in:age"].tolist()[:4] == [40, 41.5, 40, 40] and table["in:when"][0] == "redacted"
    assert table["value"].tolist()[2:4] == [1.5, 2] and table["p:yes"][0] == 0.75
    assert [sorted(each) for each in table["refused_for"][4:6]] == [["", "=age"], []]
    assert table["start"].tolist() == [sum(map(len, made[:number])) for number in range(len(made))]


def test_columns_that_differ_in_case_alone_keep_their_bytes(tmp_path: Path) -> None:
    """DuckDB takes them for one."""
    entries = [
        Entry("a", [{"age": 1, "Age": 2}], [1.5]),
        Entry("b", [{"size": 1}], [1.5]),
        Entry("c", [{"Size": 1}], [1]),
    ]
    made = [line for entry in entries for line in server_log.lines(entry, "v", [])]
    table = columns_of(made, tmp_path)
    assert table["line"].isna().sum() == 1 and len(table) == 3
    assert b"".join(table["line"].dropna()) == b"".join(line for line in made if line in set(table["line"].dropna()))


def test_on_an_address(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = hostile(world)
    world.label()
    memory = fsspec.filesystem("memory")
    name = f"/compact/log/{hour_folder(OVER)}/a.jsonl"
    memory.pipe_file(name, ("\n".join(lines) + "\n").encode())
    monkeypatch.setenv("REQUEST_LOG", "memory://compact/log")

    def found() -> dict[str, Any]:
        if memory.exists("/compact/log/monitor-state.json"):
            memory.rm("/compact/log/monitor-state.json")
        return outcome(world)

    plain = found()
    assert plain["result"]["rows"] > 30
    compact.compact(NOW + timedelta(days=1))
    assert not memory.exists(name)
    assert found() == plain
    assert world.run()[1]["rows"] == 0


def test_an_hour_is_left_alone_until_it_is_over(world: World) -> None:
    path = place(world, world.lines(60))
    hour = OVER.replace(minute=0, second=0, microsecond=0)
    assert compact.compact(hour + timedelta(minutes=69)).tables == 0 and path.exists()
    assert compact.compact(hour + timedelta(minutes=70)).lines == 60 and not path.exists()


def test_files_of_earlier_versions_stay(world: World) -> None:
    world.log(world.lines(60))
    assert compact.compact(NOW + timedelta(days=1)).tables == 0
    assert world.run()[1]["rows"] == 60


def test_what_was_evaluated_is_not_evaluated_again(world: World) -> None:
    """Not after compaction, not in part; a line that arrives late is evaluated once, with and without labels."""
    path = place(world, world.lines(60, label=True))
    assert world.run()[1]["rows"] == 60
    with path.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in world.lines(55, label=True)))
    compact.compact(NOW + timedelta(days=1))
    assert not path.exists()
    assert world.run()[1]["rows"] == 55
    assert world.offsets() == {}
    assert world.run()[1]["rows"] == 0
    place(world, world.lines(52), "late.jsonl")
    world.label()
    result = world.run()[1]
    assert (result["rows"], result["performance"]["rows"]) == (52, 115)
    compact.compact(NOW + timedelta(days=1))
    assert len(tables()) == 2
    result = world.run()[1]
    assert (result["rows"], result["performance"]["rows"]) == (0, 115)


def test_the_state_is_as_long_as_the_window_has_files(world: World) -> None:
    """Not as the log had objects: compaction takes their names out of it, and so does time."""
    for number in range(300):
        place(world, world.lines(1), f"{number}.jsonl")
    world.run()
    before = world.state.stat().st_size
    compact.compact(NOW + timedelta(days=1))
    place(world, world.lines(60), "late.jsonl")
    world.run()
    assert len(json.loads(world.state.read_text())["tables"]) == 1
    assert world.state.stat().st_size < before / 20


def test_state_of_an_earlier_version_is_read(world: World) -> None:
    path = place(world, world.lines(60))
    size = path.stat().st_size
    world.state.write_text(json.dumps({"offsets": {str(path.relative_to("requests")): size}, "at": NOW.isoformat()}))
    compact.compact(NOW + timedelta(days=1))
    assert world.run()[1]["rows"] == 0


STEPS = ["before the table", "after the table", "half deleted"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("evaluated", [False, True])
def test_killed_at_any_step(world: World, step: str, evaluated: bool) -> None:
    """The monitor finds the same as before, and the next compaction completes the work."""
    for name in "abcd":
        place(world, world.lines(20), f"{name}.jsonl")
    if evaluated:
        world.run()
    expected = 0 if evaluated else 80

    def act() -> None:
        from fsspec.implementations.local import LocalFileSystem

        def killed(*_: Any, **__: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        if step == "before the table":
            Path.replace = killed  # type: ignore[method-assign,assignment]
        elif step == "after the table":
            LocalFileSystem.rm = killed  # type: ignore[method-assign]
        else:
            delete, left = os.remove, [2]

            def remove(path: Any, *rest: Any, **more: Any) -> None:
                if left[0] == 0:
                    killed()
                left[0] -= 1
                delete(path, *rest, **more)

            os.remove = remove  # type: ignore[assignment]
        compact.compact(NOW + timedelta(days=1))

    process = multiprocessing.get_context("fork").Process(target=act)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    left = {"before the table": 4, "after the table": 4, "half deleted": 2}[step]
    assert len([name for name in files() if name.endswith(".jsonl")]) == left
    state = world.state.read_text() if evaluated else None
    assert world.run()[1]["rows"] == expected
    if state is None:
        world.state.unlink()
    else:
        world.state.write_text(state)
    assert compact.compact(NOW + timedelta(days=1)).tables == (1 if step == "before the table" else 0)
    assert not [name for name in files() if name.endswith(".jsonl")]
    assert world.run()[1]["rows"] == expected


def test_a_file_that_grows_meanwhile_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place(world, world.lines(60))
    written = compact._write

    def writes(*arguments: Any) -> int:
        lines = written(*arguments)
        place(world, world.lines(7))
        return lines

    monkeypatch.setattr(compact, "_write", writes)
    compact.compact(NOW + timedelta(days=1))
    assert path.exists()
    assert world.run()[1]["rows"] == 67
    monkeypatch.undo()


def test_a_foreign_table_is_named(world: World) -> None:
    place(world, world.lines(60))
    pd.DataFrame({"a": [1]}).to_parquet(Path("requests", hour_folder(OVER), "mine.parquet"))
    with pytest.raises(ProjectError, match=r"mine\.parquet is not a table of the request log: move it elsewhere"):
        world.run()


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
    assert len(kept) == 23 and result["rows"] == 60 * len(kept)
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
