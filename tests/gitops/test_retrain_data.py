"""The new data of `make retrain`: labelled requests, each appended once, or the newest version of an import."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.integrations import dvc
from gitops.retraining import ingest
from releases import isolate
from retraining_bench import TABLE, Bench


@pytest.fixture
def bench(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    isolate(monkeypatch)
    return Bench(origin, tmp_path, monkeypatch)


def test_each_request_is_appended_once(bench: Bench) -> None:
    """Also one whose label arrives after newer requests were appended."""
    bench.ask("early", None, on=1)
    bench.ask("late", "no", on=20)
    assert bench.run() == 0
    bench.merge()
    assert bench.run(forced=True) == 0
    assert bench.branches() == {}
    bench.label("early", "yes")
    assert bench.run(forced=True) == 0
    assert bench.appended().splitlines() == ["1.5,a,2026-02-01T00:00:00,no", "1.5,a,2026-02-01T00:00:00,yes"]
    (branch,) = bench.branches()
    state = json.loads(bench.show(branch, "data/appended.json"))
    assert state["parts"] == [40, 41] and len(state["requests"]) == 2


def test_a_label_that_comes_too_late_is_left_out(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("old", None, on=1)
    bench.ask("new", "no", on=2)
    assert bench.run() == 0
    bench.merge()
    (bench.folder / "requests/log.jsonl").write_text(
        (bench.folder / "requests/log.jsonl").read_text().replace("2026-11-01", "2026-01-01")
    )
    bench.label("old", "yes")
    assert bench.run(forced=True) == 0
    assert bench.branches() == {}
    assert "1 left out: the label came too late" in capsys.readouterr().out


def test_what_does_not_fit_is_left_out_and_counted(bench: Bench) -> None:
    bench.ask("good", "yes")
    bench.ask("redacted", "yes", note="redacted")
    bench.ask("text", "yes", x="1")
    bench.ask("infinite", "yes", x=float("inf"))
    bench.ask("class", "perhaps")
    bench.ask("date", "yes", day="tomorrow")
    for line in ("no JSON", "[]", '{"request_id": "good", "instance": 0, "inputs": 1}', "[" * 100_000):
        bench.log(line)
    assert bench.run() == 0
    assert bench.table().decode() == TABLE and bench.appended() == "1.5,a,2026-02-01T00:00:00,yes\n"
    left_out = json.loads((bench.job.path / artifacts.RETRAIN).read_text())["data"]["left_out"]
    assert left_out == {
        "a value is redacted": 1,
        "column 'x' is not a number": 2,
        "the label is not a class of the table": 1,
        "column 'day' is not a datetime": 1,
        "not a line of a request log": 4,
    }


def left_out(bench: Bench) -> dict[str, int]:
    found: dict[str, int] = json.loads((bench.job.path / artifacts.RETRAIN).read_text())["data"]["left_out"]
    return found


def test_a_request_that_was_used_long_ago_is_not_called_late(bench: Bench) -> None:
    """Its hash is forgotten, since its label is not used any more; only one that was never used came too late."""
    log = bench.folder / "requests/log.jsonl"
    for name in ("used", "also used", "late"):
        bench.ask(name, None if name == "late" else "yes", on=1)
    log.write_text(log.read_text().replace("2026-11-01", "2026-01-01"))
    bench.ask("next", "no", on=2)
    assert bench.run() == 0
    bench.merge()
    state = json.loads((bench.job.path / "data/appended.json").read_text())
    assert state["used"] == {"2026-01-01": 2} and len(state["requests"]) == 1
    bench.label("late", "yes")
    bench.ask("newest", "no", on=3)
    assert bench.run(forced=True) == 0
    assert left_out(bench) == {"the label came too late": 1}
    bench.merge()
    # The log loses what is old, and a day later the counts are the same.
    log.write_text("".join(line for line in log.read_text().splitlines(True) if "2026-01-01" not in line))
    bench.ask("last", "no", on=4)
    assert bench.run(forced=True) == 0
    assert left_out(bench) == {"the log has no request of the label": 1}


def test_labels_that_match_no_request_are_counted(bench: Bench) -> None:
    bench.ask("r", "yes")
    bench.label("typed wrongly", "yes")
    bench.label("", "yes")
    bench.label("r2", "")
    with (bench.folder / "requests/log.jsonl").open("a") as file:
        file.write('{"time": "2026-11-01T12:00')  # is being written
    assert bench.run() == 0
    assert left_out(bench) == {
        "a label without a request or a value": 2,
        "the log has no request of the label": 1,
    }


def test_a_label_of_a_regression_must_be_finite(bench: Bench) -> None:
    table = "x,y\n" + "".join(f"{place},{place / 2}\n" for place in range(30))
    bench.commit(table.encode(), task="regression")
    for name, label in (("good", "2.5"), ("words", "many"), ("endless", "inf")):
        bench.ask(name, label, x=3)
    assert bench.run() == 0
    assert bench.table().decode() == table and bench.appended() == "3,2.5\n"
    assert left_out(bench) == {"the label is not a finite number": 2}


NAMED = "customer,when,x,y\n" + "".join(
    f"{100 + place},2026-01-{1 + place % 28:02d},{place}.5,{'yes' if place % 2 else 'no'}\n" for place in range(40)
)


def test_id_and_time_of_a_request_are_appended(bench: Bench) -> None:
    """The time of the request stands in for one that it does not name; what is redacted is as if not sent."""
    bench.commit(NAMED.encode(), id="customer", timestamp="when", repeated_ids="keep")
    bench.ask("both", "yes", on=1, customer="104", when="2026-10-31T08:00:00+01:00")
    bench.ask("neither", "no", on=2)
    bench.ask("redacted", "no", on=3, customer="redacted", when="redacted")
    bench.ask("unknown", "yes", on=4, customer=None, when=None)
    bench.ask("wrong time", "yes", on=5, customer="7", when="yesterday")
    bench.ask("wrong id", "yes", on=6, customer=["7"])
    assert bench.run() == 0
    assert bench.appended().splitlines() == [
        "104,2026-10-31T08:00:00+01:00,1.5,yes",
        ",2026-11-02T12:00:00+00:00,1.5,no",
        ",2026-11-03T12:00:00+00:00,1.5,no",
        ",2026-11-04T12:00:00+00:00,1.5,yes",
    ]
    assert left_out(bench) == {"column 'when' is not a datetime": 1, "column 'customer' is not a category": 1}


def test_an_id_that_the_table_cannot_hold_stops_no_retraining(bench: Bench, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "customer": pa.array(range(30), pa.int64()),
        "code": pa.array([1, 2, 3] * 10, pa.int64()),
        "x": pa.array([1.5, 2.5] * 15),
        "y": pa.array(["1", "2", "3"] * 10),
    }
    path = tmp_path / "raw.parquet"
    pq.write_table(pa.table(columns), path)
    bench.commit(path.read_bytes(), "raw.parquet", task="multiclass", id="customer", categorical=["code"])
    bench.ask("large", "1", on=1, customer="9007199254740993", code="2")
    bench.ask("text", "1", on=2, customer="C-7", code="2")
    bench.ask("code", "1", on=3, code="2b")
    assert bench.run() == 0
    path.write_bytes(bench.parts()[0])
    (last,) = pq.read_table(path).to_pylist()
    assert last == {"customer": 9007199254740993, "code": 2, "x": 1.5, "y": "1"}
    assert left_out(bench) == {
        "column 'customer' does not fit the table's type int64": 1,
        "column 'code' does not fit the table's type int64": 1,
    }


def test_a_value_cannot_break_the_table(bench: Bench) -> None:
    bench.ask("r", "yes", note='a",b\n9,b,2026-01-01,no')
    assert bench.run() == 0
    added = bench.appended()
    assert added == '1.5,"a"",b\n9,b,2026-01-01,no",2026-02-01T00:00:00,yes\n'


def test_a_regression_with_a_timestamp(bench: Bench) -> None:
    """The time of the request is the row's; dropped columns are missing; the file's line ends are kept."""
    table = "when,x,y,junk\r\n" + "".join(f"2026-01-{1 + day:02d},{day},{day / 2},z\r\n" for day in range(28))
    bench.commit(table.encode(), task="regression", timestamp="when", drop=["junk"])
    bench.ask("r", "2.25", x=3)
    bench.ask("words", "many", x=3)
    assert bench.run() == 0
    assert bench.table().decode() == table and bench.appended() == "2026-11-01T12:00:00+00:00,3,2.25,\r\n"


def test_parquet_keeps_its_types(bench: Bench, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 30
    columns = {
        "count": pa.array(range(rows), pa.int64()),
        "flag": pa.array([True, False] * 15),
        "note": pa.array(["a", "b", "c"] * 10).dictionary_encode(),
        "moment": pa.array([1_760_000_000_000] * rows, pa.timestamp("ms")),
        "y": pa.array(["1", "2", "3"] * 10),
    }
    path = tmp_path / "raw.parquet"
    pq.write_table(pa.table(columns), path)
    bench.commit(path.read_bytes(), "raw.parquet", task="multiclass")
    bench.log(
        json.dumps(
            {
                "time": "2026-11-01T12:00:00Z",
                "request_id": "r",
                "instance": 3,
                "inputs": {"count": 2.0, "flag": True, "note": None, "moment": "2026-02-01T02:00:00+02:00"},
            }
        )
    )
    pq.write_table(pa.table({"request_id": ["r"], "instance": [3], "label": [2.0]}), tmp_path / "labels/a.parquet")
    assert bench.run() == 0
    path.write_bytes(bench.parts()[0])
    grown = pq.read_table(path)
    assert grown.schema.field("count").type == pa.int64() and grown.schema.field("moment").type == pa.timestamp("ms")
    (last,) = grown.to_pylist()
    assert (last["count"], last["flag"], last["note"], last["y"]) == (2, True, None, "2")
    assert last["moment"].isoformat() == "2026-02-01T00:00:00"


#: As DVC writes it: its own md5 first, then its source's, then that of the data.
IMPORT = """\
md5: {own}
frozen: true
deps:
- md5: {source}
  size: 9
  path: s3://bucket/raw.csv
outs:
- md5: {data}
  size: 9
  path: raw.csv
"""


def imported(bench: Bench, after: dict[str, str]) -> None:
    """Let the table be an import whose digests become those of `after` when it is brought up to date."""
    pointer = bench.seed.path / "data/raw.csv.dvc"
    before = {"own": "a" * 32, "source": "b" * 32, "data": re.findall("md5: (.{32})", pointer.read_text())[0]}
    pointer.write_text(IMPORT.format(**before))
    bench.seed.merge("Import")
    bench.ask("r", "yes")  # is not appended: the table is kept elsewhere

    def update(path: Path) -> None:
        path.with_name("raw.csv.dvc").write_text(IMPORT.format(**before | after))

    bench.monkeypatch.setattr(dvc, "update", update)


def test_an_import_is_brought_up_to_date(bench: Bench) -> None:
    imported(bench, {"own": "c" * 32, "source": "d" * 32, "data": "e" * 32})
    assert bench.run("new data") == 0
    (branch,) = bench.branches()
    assert f"outs:\n- md5: {'e' * 32}" in bench.show(branch, "data/raw.csv.dvc")
    facts = json.loads((bench.job.path / artifacts.RETRAIN).read_text())["data"]
    assert (facts["kind"], facts["after"]) == ("import", "e" * 32)


def test_an_import_that_comes_anew_with_the_same_contents_is_nothing_new(bench: Bench) -> None:
    """Another tag of a server, or another commit of a repository."""
    imported(bench, {"own": "c" * 32, "source": "d" * 32})
    assert bench.run("new data") == 0
    assert bench.branches() == {}


def test_requests_are_not_appended_to_a_database(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.ask("r", "yes")
    bench.monkeypatch.chdir(bench.seed.path)
    settings = params.load()
    data = settings.data.model_copy(update={"query": "SELECT * FROM patients"})
    update = ingest.update_tables(settings.model_copy(update={"data": data}))
    assert (update["rows"], update["after"]) == (0, update["before"])
    assert "data/raw.csv is a database: labelled requests are not appended" in capsys.readouterr().out


REUSED = "the request id was sent again, with other values or by another client"


@pytest.mark.parametrize(
    "again",
    [
        {"x": 100},
        {"client": "team-b"},
        {"client": "team-b", "x": 100},
    ],
)
@pytest.mark.parametrize("first", [False, True], ids=["later", "earlier"])
def test_a_request_id_that_was_sent_again_has_no_label(bench: Bench, again: dict[str, Any], first: bool) -> None:
    """Ids come from clients: the owner's label would count for the inputs of whoever sends the id too."""
    bench.ask("honest", None, **{"client": "team-a"} | (again if first else {}))
    bench.ask("other", "no", client="team-a")
    bench.ask("honest", "yes", on=2, **{"client": "team-a"} | ({} if first else again))
    assert bench.run() == 0
    assert bench.table().decode() == TABLE and bench.appended() == "1.5,a,2026-02-01T00:00:00,no\n"
    left_out = json.loads((bench.job.path / artifacts.RETRAIN).read_text())["data"]["left_out"]
    assert left_out == {REUSED: 1}


def test_an_id_of_a_refused_request_has_no_label_for_another_client(bench: Bench) -> None:
    """The label may be for the request that was refused. The same client may have mended it."""
    for name in ("stolen", "mended"):
        bench.log(json.dumps({"time": "2026-11-01T12:00:00Z", "request_id": name, "client": "team-a", "errors": []}))
    bench.ask("stolen", "yes", client="team-b", x=100)
    bench.ask("mended", "yes", client="team-a")
    assert bench.run() == 0
    assert bench.table().decode() == TABLE and bench.appended() == "1.5,a,2026-02-01T00:00:00,yes\n"


def test_an_id_is_sent_again_after_its_label_was_used(bench: Bench) -> None:
    """Neither is the old row changed nor a new one appended, also when the old request is not remembered any more."""
    bench.ask("old", "yes", on=1, client="team-a")
    bench.ask("new", "no", on=2, client="team-a")
    assert bench.run() == 0
    bench.merge()
    path = bench.seed.path / "data/appended.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"until": "2027-03-01T00:00:00+00:00", "requests": {}}))
    bench.seed.merge("Much later")
    bench.ask("old", None, on=1, client="team-b", x=100)
    log = bench.folder / "requests/log.jsonl"
    *before, last = log.read_text().splitlines()
    log.write_text("\n".join([*before, last.replace("2026-11-01", "2027-03-02")]) + "\n")
    assert bench.run(forced=True) == 0
    assert bench.branches() == {}


def test_a_request_that_was_sent_again_unchanged_is_one(bench: Bench) -> None:
    """As by a client, or a gateway, that had no answer."""
    for _ in range(2):
        bench.ask("r", None, client="team-a")
    bench.label("r", "yes")
    assert bench.run() == 0
    assert bench.table().decode() == TABLE and bench.appended() == "1.5,a,2026-02-01T00:00:00,yes\n"


def test_of_two_labels_the_later_counts(bench: Bench) -> None:
    """Labels are their owner's, who corrects them so."""
    bench.ask("r", "no")
    bench.label("r", "yes")
    assert bench.run() == 0
    assert bench.table().decode() == TABLE and bench.appended() == "1.5,a,2026-02-01T00:00:00,yes\n"


def test_a_label_comes_from_labels_alone(bench: Bench) -> None:
    """Not from a request that sends the target, nor from what lies beside the log."""
    bench.ask("r", "yes", y="no")
    bench.ask("unlabelled", None, y="no")
    (bench.folder / "requests/labels.csv").write_text("request_id,label\nr,no\nunlabelled,no\n")
    (bench.folder / "requests/deeper").mkdir()
    (bench.folder / "requests/deeper/labels.csv").write_text("request_id,label\nunlabelled,no\n")
    (bench.folder / "labels/log.jsonl").write_text((bench.folder / "requests/log.jsonl").read_text())
    assert bench.run() == 0
    assert bench.table().decode() == TABLE and bench.appended() == "1.5,a,2026-02-01T00:00:00,yes\n"


def test_labels_in_the_log_are_refused(bench: Bench) -> None:
    bench.ask("r", "yes")
    bench.monkeypatch.setenv("LABELS", str(bench.folder / "requests/labels"))
    (bench.folder / "labels").rename(bench.folder / "requests/labels")
    with pytest.raises(ProjectError, match=r"LABELS is .*/requests/labels' and REQUEST_LOG .*/requests': neither"):
        bench.run()
    assert bench.branches() == {}
