"""What a replay leaves behind: numbers, and nothing of a row, whatever goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gitops.inference.model import Model
from gitops.monitoring import log_table, typed_lines
from gitops.replay import replay
from replaying import World, compacted, prepared, schema

#: Parts of values, ids and names that only rows have.
MARKERS = ("planted", "987654", "1957-03-02")

#: Where the log and the labels lie, which are not the run's to leave.
GIVEN = ("requests", "labels")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A log that is full of what must not leave it."""
    made = prepared(tmp_path, monkeypatch)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.setenv(name, str(tmp_path / name))
    made.release()
    made.candidate(bias=0.3)
    planted = {"plan": "planted-plan", "income": 987654.25, "joined": "1957-03-02T00:00:00+00:00"}
    made.log(made.rows(60, customer="planted-customer", **planted), request_id="planted-request", client="planted-team")
    made.log(made.rows(90))
    made.refuse(3, "planted-column", text="column is 'planted-value': a finite number is expected")
    Path("labels").mkdir()
    Path("labels/a.csv").write_text("request_id,label,comment\nplanted-request,planted-label,planted-comment\nr9,no,\n")
    return made


def left(world: World, capsys: pytest.CaptureFixture[str]) -> str:
    """Return all that the run has left: the console's text, and every file but the log's and the labels'."""
    found = capsys.readouterr()
    files = [path for path in Path().rglob("*") if path.is_file() and path.parts[0] not in GIVEN]
    assert Path("reports/replay.json") in files
    return found.out + found.err + "".join(path.read_bytes().decode("latin-1") for path in files)


def clean(text: str) -> bool:
    return not any(marker in text for marker in MARKERS)


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_nothing_of_a_row_leaves_the_run(world: World, capsys: pytest.CaptureFixture[str], form: str) -> None:
    if form == "parquet":
        compacted()
    assert world.run()["status"] == "ok"
    text = left(world, capsys)
    assert "rows would be decided otherwise" in text and clean(text)
    assert not clean(Path("labels/a.csv").read_text())  # the markers are what rows have


def test_a_candidate_that_refuses_the_rows(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Its refusals quote the values, and a column may be of a client's own naming."""
    its = schema()
    its["features"] = [
        feature | {"dtype": "number"} if feature["name"] in ("plan", "joined") else feature
        for feature in its["features"]
    ]
    world.candidate(its | {"slices": []}, bias=0.3)
    found = world.run()
    assert {each["column"] for each in found["refusals"]["accepted"]["columns"]} == {"plan", "joined"}
    assert clean(left(world, capsys))


def quoting(*_: object, **__: object) -> Any:
    raise ValueError("could not convert 'planted-plan' to a number")


@pytest.mark.parametrize(
    ("where", "name"),
    [(typed_lines, "write"), (log_table.Lines, "entries"), (Model, "predict"), (replay.figures, "of")],
    ids=["while the log is converted", "while it is read", "in a model", "anywhere else"],
)
def test_errors_quote_nothing(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    """A library's error names the value at fault: its class and place are all that is told."""
    if where is Model:
        predict, calls = Model.predict, iter(range(9))
        # Each model answers its golden request first.
        monkeypatch.setattr(Model, name, lambda *given: predict(*given) if next(calls) < 2 else quoting())
    else:
        monkeypatch.setattr(where, name, quoting)
    found = world.run()
    assert (
        found["status"] == "failed" and "ValueError" in found["reason"] and "test_replay_private.py" in found["reason"]
    )
    text = left(world, capsys)
    assert "::warning title=Replay::The replay failed" in text and clean(text)
    assert json.loads(Path("reports/replay.json").read_text())["model_sha256"]
    assert not Path("reports/errors").exists()


def test_damaged_table_of_the_log(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    compacted()
    [table] = Path("requests").rglob("*.parquet")
    content = table.read_bytes()
    table.write_bytes(content[: len(content) // 2])
    assert world.run()["status"] == "failed"
    assert clean(left(world, capsys))
