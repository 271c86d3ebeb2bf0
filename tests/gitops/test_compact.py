"""The request log by date and hour: compaction, and equal results whatever form the log has."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from compacting import OVER, files, hostile, outcome, place, tables
from compacting import folders as folders
from gitops.core.artifacts import ProjectError
from gitops.monitoring import (
    compact,
    log_files,
    log_table,
    log_window,
    typed_lines,
)
from gitops.serving.server import request_log as server_log
from gitops.serving.server.request_log import Entry
from monitoring import NOW, World
from request_logs import hour_folder


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
