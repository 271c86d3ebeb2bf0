"""Splits lie in row groups of about the same bytes, in the table's order, and are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gitops.core import artifacts
from gitops.tabular import row_groups


def groups(path: Path) -> list[int]:
    footer = pq.read_metadata(str(path))
    return [footer.row_group(at).num_rows for at in range(footer.num_row_groups)]


def test_a_row_group_has_about_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = pa.table({"x": np.zeros(1000), "y": np.zeros(1000, np.int64)})
    assert row_groups.rows_of_group(numbers) == 2**24 // 16
    assert row_groups.rows_of_group(pa.table({"flag": pa.array([True] * 64)})) == 2**20
    assert row_groups.rows_of_group(numbers[:0]) == 1
    monkeypatch.setattr(row_groups, "BYTES", 10)
    assert row_groups.rows_of_group(numbers) == 1


@pytest.mark.parametrize("parts", [[1000], [1, 10, 989], [250] * 4, [999, 1], [0, 7, 0, 993]])
def test_parts_of_any_size_make_the_same_file(
    parts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_groups, "BYTES", 16 * 90)
    table = pa.table({"x": np.arange(1000.0), "y": np.arange(1000)})
    start = 0
    with row_groups.Writer(tmp_path / "t.parquet") as writer:
        for rows in parts:
            writer.add(table.slice(start, rows))
            start += rows
    assert writer.rows == 1000 and groups(tmp_path / "t.parquet") == [90] * 11 + [10]
    assert pq.read_table(str(tmp_path / "t.parquet")).equals(table)


def test_a_frame_comes_back_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also booleans with gaps, dates, and texts of which there is none: they are texts for whoever reads row groups."""
    monkeypatch.setattr(row_groups, "BYTES", 100)
    frame = pd.DataFrame(
        {
            "x": [1.5, np.nan, 3.0],
            "flag": pd.array([True, None, False], dtype="boolean"),
            "day": pd.Series(np.array(["2024-01-01", "NaT", "1066-10-14"], "datetime64[us]")).dt.tz_localize("UTC"),
            "text": ["a", None, "b"],
            "none": pd.Series([None] * 3, dtype=object),
            "__row__": [3, 5, 8],
        }
    )
    row_groups.write(tmp_path / "t.parquet", frame)
    pd.testing.assert_frame_equal(artifacts.read_parquet(tmp_path / "t.parquet"), frame)
    assert pq.read_schema(str(tmp_path / "t.parquet")).field("none").type == pa.string()
    assert sum(groups(tmp_path / "t.parquet")) == 3 and len(groups(tmp_path / "t.parquet")) > 1


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    row_groups.write(tmp_path / "t.parquet", frame)
    before = (tmp_path / "t.parquet").read_bytes()

    def fail(self: row_groups.Writer, rows: pa.Table) -> None:
        raise OSError("gone")

    monkeypatch.setattr(row_groups.Writer, "_write", fail)
    with pytest.raises(OSError, match="gone"):
        row_groups.write(tmp_path / "t.parquet", frame * 2)
    assert (tmp_path / "t.parquet").read_bytes() == before and os.listdir(tmp_path) == ["t.parquet"]
