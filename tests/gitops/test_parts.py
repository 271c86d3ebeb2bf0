"""The table's files: which belong to it, and what is written into a new one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gitops.core import artifacts
from gitops.core.artifacts import APPENDED, ProjectError
from gitops.core.sections import Data
from gitops.retraining import facts
from gitops.tabular import append, parts, table
from part_tables import ROWS, csv_table
from part_tables import here as here
from table_cases import settings


def write_state(path: Path, **more: Any) -> None:
    artifacts.write_json(APPENDED, {"table": artifacts.tracked_md5(path), "parts": [], "files": [], **more})


def part(name: str, text: str = "x,note,count,y\n1.5,a,1,yes\n") -> Path:
    parts.FOLDER.mkdir(exist_ok=True)
    (parts.FOLDER / name).write_text(text)
    return parts.FOLDER / name


def test_a_table_without_parts_is_its_file() -> None:
    data = settings(csv_table())
    assert (parts.files(data), parts.starts(data), parts.version(data)) == (["data/raw.csv"], [], None)
    part("README.md")
    write_state(Path(data.path))
    assert (parts.files(data), parts.version(data)) == (["data/raw.csv"], None)


def test_parts_come_in_the_order_in_which_they_were_appended() -> None:
    data = settings(csv_table())
    for name in ("b.csv", "a.csv", "not listed.csv"):
        part(name)
    write_state(Path(data.path), parts=[ROWS, ROWS + 1], files=["b.csv", "a.csv"])
    assert parts.files(data) == ["data/raw.csv", "data/appended/b.csv", "data/appended/a.csv"]
    assert parts.starts(data) == [ROWS, ROWS + 1] and len(table.read(data)) == ROWS + 2


def test_the_parts_of_a_table_that_was_replaced_do_not_count() -> None:
    data = settings(csv_table())
    part("a.csv")
    write_state(Path(data.path), parts=[ROWS], files=["a.csv"])
    assert parts.unused(data) == []
    csv_table(rows=50)
    assert (parts.files(data), parts.starts(data)) == (["data/raw.csv"], []) and parts.unused(data) == ["a.csv"]


def test_rows_that_an_earlier_version_appended_lie_in_the_file() -> None:
    data = settings(csv_table())
    artifacts.write_json(APPENDED, {"table": artifacts.tracked_md5(Path(data.path)), "parts": [40]})
    assert (parts.files(data), parts.starts(data)) == (["data/raw.csv"], [40])


def test_a_part_that_is_missing_is_an_error() -> None:
    """Not a smaller table: as where a merge has taken the two files of different commits."""
    data = settings(csv_table())
    write_state(Path(data.path), parts=[ROWS], files=["a.csv"])
    with pytest.raises(ProjectError, match=r"data/appended/a\.csv, .*, is missing: `dvc pull data/appended\.dvc` gets"):
        parts.files(data)


def test_a_folder_has_its_appended_files_last(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("data/raw.parquet")
    folder.mkdir(parents=True)
    for name in ("z.parquet", "appended-0001-0.parquet", "b.parquet", "_metadata.parquet", "note.txt"):
        (folder / name).write_bytes(b"")
    Path("data/raw.parquet.dvc").write_text("outs:\n- md5: 0123.dir\n  path: raw.parquet\n")
    data = settings(folder)
    write_state(folder, parts=[5], files=["appended-0001-0.parquet"])
    names = ["b.parquet", "z.parquet", "appended-0001-0.parquet"]
    assert parts.files(data) == [f"data/raw.parquet/{name}" for name in names]
    assert (parts.folder(data), parts.version(data), parts.md5(data)) == (folder, None, "0123.dir")


@pytest.mark.parametrize("path", ["s3://bucket/table.parquet", "data/2026-*.parquet"])
def test_nothing_is_appended_to_a_pattern_or_to_object_storage(path: str) -> None:
    data = settings(csv_table()).model_copy(update={"path": path})
    assert (parts.files(data), parts.starts(data)) == ([path], [])


def tables() -> dict[str, Any]:
    days = pd.date_range("2024-01-01", periods=ROWS, freq="h")
    return {
        "id": pa.array([f"p{row // 2}" for row in range(ROWS)]),
        "when": pa.array([f"{day:%Y-%m-%dT%H:%M:%S}" for day in days]),
        "whole": pa.array([row % 9 for row in range(ROWS)], pa.int32()),
        "gaps": pa.array([None if row % 5 else row for row in range(ROWS)], pa.int64()),
        "code": pa.array([row % 4 for row in range(ROWS)], pa.int8()),
        "flag": pa.array([None, True, False] * (ROWS // 3)),
        "day": pa.array(days.date),
        "colour": pa.array(["red", "blue", None] * (ROWS // 3)).dictionary_encode(),
        "junk": pa.array([[1]] * ROWS),
        " y ": pa.array(["yes", "no", "NA"] * (ROWS // 3)).dictionary_encode(),
    }


NAMED = {"id": "id", "timestamp": "when", "categorical": ["code"], "drop": ["junk"], "missing_target": ["NA"]}


def typed(path: Path = Path("data/raw.parquet"), **columns: Any) -> Data:
    pq.write_table(pa.table(tables() | columns), path, row_group_size=7)
    return settings(path, **NAMED, max_lost=0.5)


def test_facts_of_parquet_are_those_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without reading its rows."""
    data = typed()
    frame = table.read(data)
    monkeypatch.setattr(table, "read", lambda _: pytest.fail("the table was read"))
    found = facts.of(data)
    assert found.dtypes == {name: table.dtype(frame[name]) for name in frame}
    assert (found.rows, found.classes) == (ROWS, ["no", "yes"])
    regression = data.model_copy(update={"task": "regression", "target": "whole"})
    assert facts.of(regression).dtypes["whole"] == "number" and facts.of(regression).classes == []


def test_facts_that_are_kept_are_used_while_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = settings(csv_table())
    found = facts.of(data)
    assert found == facts.Facts(
        ROWS, {"x": "number", "note": "category", "count": "number", "y": "category"}, ["no", "yes"]
    )
    write_state(Path(data.path), facts=facts.kept(found.grown(3), data))
    read = table.read
    monkeypatch.setattr(table, "read", lambda _: pytest.fail("the table was read"))
    assert facts.of(data) == found.grown(3)
    monkeypatch.setattr(table, "read", read)
    changed = data.model_copy(update={"categorical": ["count"]})
    assert facts.of(changed).dtypes["count"] == "category" and facts.of(changed).rows == ROWS
    csv_table(rows=50)
    assert facts.of(data).rows == 50


def test_an_error_names_the_part_and_the_line_in_it() -> None:
    data = settings(csv_table())
    part("a.csv", "x,note,count,y\n1.5,a,1,yes\n1.5,a,9007199254740993,yes\n")
    write_state(Path(data.path), parts=[ROWS], files=["a.csv"])
    with pytest.raises(ProjectError, match=r"column 'count' of .* the first is line 3 of data/appended/a\.csv"):
        table.read(data)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"x": 2**53 + 1}, r"column 'x' of .* holds whole numbers beyond 2\*\*53"),
        ({"count": "many"}, r"change the dtype of columns of data/raw\.csv: count"),
        ({"x": True, "count": False}, r"change the dtype of columns of data/raw\.csv: x, count"),
    ],
)
def test_rows_that_would_change_a_dtype_are_refused(row: dict[str, Any], said: str) -> None:
    data = settings(csv_table())
    with pytest.raises(ProjectError, match=said):
        append.append(data, [{"note": "a", "y": "yes", **row}], facts.of(data).dtypes, 1)
    assert not parts.FOLDER.exists()


def test_texts_that_are_numbers_do_not_change_a_category() -> None:
    """And what is missing in all rows of a part changes nothing."""
    data = settings(csv_table())
    found = facts.of(data)
    rows = [{"note": str(number), "y": "yes"} for number in (1, 2, "3,5")]
    added = append.append(data, rows, found.dtypes, 1)
    write_state(Path(data.path), parts=[ROWS], files=[added.name])
    frame = table.read(data)
    assert frame["note"].tolist()[ROWS:] == ["1", "2", "3,5"] and frame["x"].isna().sum() == 3


def test_parts_of_parquet_keep_the_types_and_widen_whole_numbers() -> None:
    data = typed()
    found = facts.of(data)
    row = {"id": "p1", "when": datetime(2026, 1, 1, tzinfo=UTC), "day": datetime(2026, 1, 2), "code": "3", "y": "no"}
    for number, more in ((1, {"whole": 4.0, "gaps": 2}), (2, {"whole": 2.5, "flag": True, "colour": "green"})):
        added = append.append(data, [row | more], found.dtypes, number)
        names = [*parts.everything().get("files", []), added.name]
        write_state(Path(data.path), files=names)
    first, second = (pq.read_schema(parts.FOLDER / name) for name in names)
    assert (first.field("whole").type, second.field("whole").type) == (pa.int32(), pa.float64())
    assert first.equals(pq.read_schema(data.path)) and second.names == first.names
    frame = table.read(data)
    assert frame["whole"].tolist()[ROWS:] == [4.0, 2.5] and frame["colour"].tolist()[ROWS:] == [None, "green"]
    assert {name: table.dtype(frame[name]) for name in frame} == found.dtypes


@pytest.mark.parametrize("value", [1e300, 300, -1])
def test_a_number_that_the_type_cannot_hold_does_not_fit(value: Any) -> None:
    assert not append.fits(value, pa.uint8()) and append.fits(2.5, pa.uint8()) and append.fits(None, pa.uint8())
