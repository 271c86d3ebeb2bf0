"""Parquet files in parts: the same rows and types as at once, and a file that is whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gitops.core import artifacts
from gitops.rendering import plots
from gitops.tabular import in_parts


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = np.arange(1000)
    return pd.DataFrame(
        {
            "number": rows / 7,
            "whole": pd.array(np.where(rows % 3, rows, None), dtype="Int64"),
            "text": np.where(rows % 5, "a text", None),
            "flag": pd.array(np.where(rows % 4, rows % 2 == 0, None), dtype="boolean"),
            "when": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rows, unit="h"),
        }
    )


@pytest.mark.parametrize("rows", [1, 64, 5000])
def test_parts_are_the_file(frame: pd.DataFrame, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.parquet"
    frame.to_parquet(path, index=False, row_group_size=300)
    monkeypatch.setattr(in_parts, "PART", 8 * 5 * rows)
    parts = [*in_parts.read(path)]
    assert max(len(part) for part in parts) <= rows and (len(parts) > 1 or rows == 5000)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), artifacts.read_parquet(path))
    with in_parts.writing(tmp_path / "again.parquet") as write:
        for part in parts if rows > 1 else [frame]:  # one row, with a missing text, does not tell the column's type
            write(part)
    pd.testing.assert_frame_equal(artifacts.read_parquet(tmp_path / "again.parquet"), artifacts.read_parquet(path))


def test_a_part_is_of_bytes_and_fills_the_model() -> None:
    assert in_parts.rows_of(30) == 8 * 8192 and in_parts.rows_of(1500) == (16 << 20) // 12_000
    assert in_parts.rows_of(10**9) == 1


def test_a_file_without_rows_has_one_part_without_rows(frame: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    frame.head(0).to_parquet(path, index=False)
    (part,) = in_parts.read(path)
    assert [*part] == [*frame] and part.empty


def test_what_fails_leaves_no_file(frame: pd.DataFrame, tmp_path: Path) -> None:
    def fail() -> None:
        with in_parts.writing(tmp_path / "table.parquet") as write:
            write(frame)
            write(frame.drop(columns="number"))

    with pytest.raises((KeyError, ValueError), match="number"):
        fail()
    assert not [*tmp_path.iterdir()]


def test_the_confusion_of_very_many_rows_keeps_its_proportions_and_its_rare_cells() -> None:
    actual, predicted = (
        np.repeat([0, 0, 1, 1], [600_000, 3, 100_000, 300_000]),
        np.repeat([0, 1, 0, 1], [600_000, 3, 100_000, 300_000]),
    )
    schema = {"target": {"classes": ["no", "yes"]}}
    outputs = np.stack([1 - predicted * 0.9, predicted * 0.9], axis=1)
    table = plots.tables(actual, outputs, predicted, schema)["confusion"]
    counts = table.value_counts()
    assert counts["no", "yes"] == 1 and counts["no", "no"] == pytest.approx(60_000, rel=1e-3)
    assert counts["yes", "no"] == pytest.approx(10_000, rel=1e-3) and len(table) < plots.CONFUSED * 1.001
    few = plots.tables(actual[-10:], outputs[-10:], predicted[-10:], schema)["confusion"]
    assert len(few) == 10
