"""Rows of a table's file: found as the table's texts are, and taken out without a change of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gitops.core.artifacts import ProjectError
from gitops.integrations import dvc_contents
from gitops.privacy import rows, versions
from gitops.privacy.subject import Subject
from gitops.tabular import load
from table_cases import csv, settings

#: Ids that mean something to a shell, to SQL, to Make, to a regular expression, to CSV, to JSON or to Python.
HOSTILE = [
    "'; DROP TABLE x; --",
    '"quoted"',
    "-x",
    "--yes",
    "$(touch pwned)",
    "`touch pwned`",
    "a\nb",
    "a,b;c",
    "a\\b",
    ".*",
    "{0}%s",
    "ümlaut ß 😀",
    "\u202e#@",
    "0",
    "007",
]


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def without(path: Path, who: str, column: str = "id", **changes: Any) -> tuple[list[int], bytes]:
    """Return the positions of an id's rows, and the file without them."""
    subject, made = Subject(who, column), path.with_name(f"made{path.suffix}")
    positions = rows.of_subject(path, subject, csv(**changes))
    rows.write_without(path, made, positions, csv(**changes))
    assert not rows.of_subject(made, subject, csv(**changes))
    return positions, made.read_bytes()


@pytest.mark.parametrize("who", HOSTILE)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_id_may_be_any_text(tmp_path: Path, who: str, kind: str) -> None:
    path = tmp_path / f"table.{kind}"
    ids = ["a", who, f"{who}x", f" {who} ", "b"]
    if kind == "csv":
        path.write_bytes("".join(f"{quoted(each)},{at}\n" for at, each in enumerate(["id", *ids])).encode())
    else:
        pd.DataFrame({"id": ids, "x": range(5)}).to_parquet(path)
    positions, made = without(path, who)
    assert positions == [1, 3]
    if kind == "csv":
        assert made.decode() == "".join(f"{quoted(ids[at - 1] if at else 'id')},{at}\n" for at in (0, 1, 3, 5))
    else:
        assert pd.read_parquet(tmp_path / "made.parquet")["x"].tolist() == [0, 2, 4]
    assert not Path("pwned").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_other_rows_keep_their_bytes(tmp_path: Path, encoding: str, end: str) -> None:
    """Quotes that are needed or not, spaces before them, empty lines, a last row without a line end."""
    lines = ["x;id", '1,5; "ü-1"', '"a\nb";ü-2', "", '3;"ü-1"', '"say ""x""";ü-3', "5;ü-1"]
    path = tmp_path / "table.csv"
    path.write_bytes(end.join(lines).encode(encoding))
    plain = "utf-8" if encoding == "utf-8-sig" else encoding
    positions, made = without(path, "ü-1", delimiter=";", decimal=",", encoding=plain)
    assert positions == [0, 2, 4]
    kept = end.join([lines[0], lines[2], lines[3], lines[5], ""])
    assert made == kept.encode(encoding)


def test_the_last_row_is_taken_with_its_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,x\na,1\nb,2\n")
    assert without(path, "b") == ([1], b"id,x\na,1\n")
    assert without(path, "nobody") == ([], b"id,x\na,1\nb,2\n")


def test_bytes_that_cannot_be_written_again_are_an_error(tmp_path: Path) -> None:
    """ISO-2022-JP has states: the same text may be written in several ways."""
    path = tmp_path / "table.csv"
    text = "id,x\nあ,1\nb,2\n".encode("iso2022_jp").replace(b'\x1b$B$"\x1b(B', b'\x1b$B\x1b(B\x1b$B$"\x1b(B')
    path.write_bytes(text)
    with pytest.raises(ProjectError, match="byte for byte"):
        without(path, "b", encoding="iso2022_jp")


def test_a_file_without_the_column_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,x\na,1\n")
    pd.DataFrame({"name": ["a"]}).to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        with pytest.raises(ProjectError, match=r"'id' of data\.id"):
            rows.of_subject(tmp_path / name, Subject("a", "id"), csv())


TYPES = {
    "int": pa.array([7, 8, None, 7], pa.int64()),
    "float": pa.array([7.0, 8.0, None, 7.0], pa.float64()),
    "decimal": pa.array([7, 8, None, 7], pa.decimal128(9, 0)),
    "text": pa.array(["7", "8", None, " 7"]),
    "large": pa.array(["7", "8", None, "7"], pa.large_string()),
    "dictionary": pa.array(["7", "8", None, "7"]).dictionary_encode(),
    "large number": pa.array([2**62 + 7, 8, None, 7], pa.int64()),
}


@pytest.mark.parametrize("kind", TYPES)
def test_ids_of_parquet_are_texts(tmp_path: Path, kind: str) -> None:
    """As the table is read: numbers by their digits. Other columns keep type, value and missing values."""
    path, moments = tmp_path / "table.parquet", pa.array([1, 2, 3, 4], pa.timestamp("ns", "Europe/Berlin"))
    others = {"when": moments, "list": pa.array([[1], None, [2], [3]]), "nan": pa.array([1.5, np.nan, None, 0.0])}
    table = pa.table({" id": TYPES[kind]} | others).replace_schema_metadata({"a": "b"})
    pq.write_table(table, path, row_group_size=2, compression="gzip")
    positions, _ = without(path, "7")
    assert positions == ([3] if kind == "large number" else [0, 3])
    made = pq.ParquetFile(tmp_path / "made.parquet")
    wanted = pq.read_table(path).take([at for at in range(4) if at not in positions])
    assert made.schema_arrow.equals(wanted.schema, check_metadata=True)
    assert str(made.read().to_pylist()) == str(wanted.to_pylist())  # a NaN equals none
    assert made.metadata.row_group(0).column(0).compression == "GZIP"


def test_an_index_of_pandas_keeps_its_numbers(tmp_path: Path) -> None:
    """A range is stored as its first number and its step, and is a column of the table if it has a name."""
    path = tmp_path / "table.parquet"
    frame = pd.DataFrame({"x": [1.5, 2.5, 3.5, 4.5]}, index=pd.RangeIndex(10, 18, 2, name="id"))
    frame.to_parquet(path, row_group_size=2)
    positions, _ = without(path, "14")
    assert positions == [2]
    assert pd.read_parquet(tmp_path / "made.parquet").index.tolist() == [10, 12, 16]
    found = load.file(tmp_path / "made.parquet", "data.path", settings(path))
    assert found.columns["id"].to_pylist() == [10, 12, 16]
    plain = pd.DataFrame({"id": ["a", "b", "c"]})
    plain.to_parquet(path)
    without(path, "b")
    assert pd.read_parquet(tmp_path / "made.parquet").index.tolist() == [0, 1]


def test_a_file_of_one_person_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"id": ["a", "a"], "x": [1, 2]}).to_parquet(path)
    assert rows.write_without(path, tmp_path / "made.parquet", [0, 1], csv()) == 0
    assert rows.of_subject(tmp_path / "made.parquet", Subject("a", "id"), csv()) == []
    (tmp_path / "a.csv").write_text("id,x\na,1\n")
    assert rows.write_without(tmp_path / "a.csv", tmp_path / "made.csv", [0], csv()) == 0


def test_a_remote_that_cannot_be_read_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has is not known. An object that it lacks says nothing of the others."""
    asked: list[str] = []

    def read(path: str, error: Exception | None = None) -> bytes:
        asked.append(path)
        raise RuntimeError("no credentials") from error

    reader = versions.Reader(tmp_path)
    monkeypatch.setattr(dvc_contents, "read", lambda path: read(path, FileNotFoundError()))
    assert [reader.look("a.csv", digit * 32, Subject("a", "id"), csv()) for digit in "12"] == [None, None]
    monkeypatch.setattr(dvc_contents, "read", read)
    assert [reader.look("a.csv", digit * 32, Subject("a", "id"), csv()) for digit in "345"] == [None] * 3
    assert len(asked) == 3 and reader.failed and reader.found.unknown == {digit * 32 for digit in "12345"}
