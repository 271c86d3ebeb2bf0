"""Parquet files and tables of databases: their types become the four dtypes, or an error names the column."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import small_table
from gitops.core.artifacts import ProjectError
from gitops.tabular import table
from table_cases import CLASSES, ROWS, dtypes, read, settings


def parquet(path: Path, **columns: Any) -> Path:
    """Write columns, and the target."""
    pq.write_table(pa.table({**columns, "y": CLASSES}), path)
    return path


def column(tmp_path: Path, values: Any, **changes: Any) -> pd.Series[Any]:
    """Return the column `x` of a parquet file as it is read."""
    return read(parquet(tmp_path / "t.parquet", x=values), **changes)["x"]


def repeated(*values: Any) -> list[Any]:
    return [*values] * (ROWS // len(values))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pa.array(repeated(date(2024, 1, 1), None), pa.date32()), "datetime"),
        (pa.array(repeated(date(2024, 1, 1), None), pa.date64()), "datetime"),
        (pa.array(repeated(datetime(2024, 1, 1), None), pa.timestamp("ns")), "datetime"),
        (pa.array(repeated(datetime(2024, 1, 1, tzinfo=UTC), None), pa.timestamp("ms", "Asia/Tokyo")), "datetime"),
        (pa.array(repeated(Decimal("3.50"), None), pa.decimal128(10, 2)), "number"),
        (pa.array(repeated(7, None), pa.int64()), "number"),
        (pa.array(repeated(7, 8), pa.uint8()), "number"),
        (pa.array(np.float16(repeated(7, 8))), "number"),
        (pa.array(repeated(7, 8)).dictionary_encode(), "number"),
        (pa.array(repeated(True, None)), "boolean"),
        (pa.array(repeated("1", "2", None)), "category"),
        (pa.array(repeated("a", "b"), pa.large_string()), "category"),
        (pa.array(repeated("a", "b"), pa.string_view()), "category"),
        (pa.array(repeated("a", "b", None)).dictionary_encode(), "category"),
    ],
    ids=str,
)
def test_each_type_has_a_dtype(values: pa.Array, dtype: str, tmp_path: Path) -> None:
    found = column(tmp_path, values)
    assert table.dtype(found) == dtype
    assert found.isna().sum() == values.null_count
    first = {"datetime": pd.Timestamp("2024-01-01", tz="UTC"), "number": 3.5 if pa.types.is_decimal(values.type) else 7}
    assert found.iloc[0] == ({"boolean": True, "category": values[0].as_py()} | first)[dtype]


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_times_beyond_nanoseconds(unit: str, tmp_path: Path) -> None:
    moments = [datetime(1066, 10, 14, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    found = column(tmp_path, pa.array(repeated(*moments), pa.timestamp(unit, "UTC")))
    assert [moment.isoformat() for moment in found[:2]] == [moment.isoformat() for moment in moments]


def test_a_time_outside_of_the_calendar_names_its_row(tmp_path: Path) -> None:
    far = pa.array([0] * 58 + [2**50, 0], pa.int64()).cast(pa.timestamp("s"))
    with pytest.raises(
        ProjectError, match=r"column 'x' .* outside of the years 1 to 9999 in 1 rows, the first is row 58"
    ):
        column(tmp_path, far)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[1, 2]] * ROWS),
        pa.array([{"a": 1}] * ROWS),
        pa.array([b"x"] * ROWS),
        pa.array([time(12)] * ROWS),
        pa.array([timedelta(1)] * ROWS),
    ],
    ids=lambda values: str(values.type),
)
def test_a_type_that_has_no_dtype_names_its_column(values: pa.Array, tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as error:
        column(tmp_path, values)
    assert "column 'x' of " in str(error.value) and str(values.type).split("<")[0] in str(error.value)
    assert "add it to data.drop" in str(error.value)
    assert [*read(parquet(tmp_path / "t.parquet", x=values, z=range(ROWS)), drop=["x"])] == ["z", "y"]


def test_ids_with_gaps_keep_every_digit(tmp_path: Path) -> None:
    ids = [None, *range(2**53 + 1, 2**53 + ROWS)]
    path = parquet(tmp_path / "t.parquet", customer=pa.array(ids, pa.int64()), a=range(ROWS))
    assert read(path, id="customer")["customer"].tolist() == [None, *map(str, ids[1:])]
    assert read(path, categorical=["customer"])["customer"].tolist() == [None, *map(str, ids[1:])]
    with pytest.raises(ProjectError, match=r"column 'customer' .* beyond 2\*\*53, .* in 59 rows, the first is row 1 "):
        read(path)
    lost = parquet(tmp_path / "t.parquet", customer=pa.array(ids).cast(pa.float64(), safe=False), a=range(ROWS))
    with pytest.raises(ProjectError, match=r"column 'customer' .* has lost digits"):
        read(lost, id="customer")


def test_an_index_is_a_column_if_it_has_a_name(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": range(ROWS), "y": CLASSES})
    for index, names in (
        (pd.Index(range(100, 100 + 2 * ROWS, 2), name="customer"), ["a", "customer", "y"]),
        (pd.Index([f"c{row}" for row in range(ROWS)], name="customer"), ["a", "customer", "y"]),
        (pd.Index([f"c{row}" for row in range(ROWS)]), ["a", "y"]),
        (pd.RangeIndex(ROWS), ["a", "y"]),
    ):
        indexed = frame.set_index(index)
        indexed.to_parquet(tmp_path / "t.parquet")
        for found in (read(tmp_path / "t.parquet"), table.of_frame(indexed, settings(tmp_path / "t.parquet"))):
            assert sorted(found) == names
            if "customer" in found and index[0] == 100:
                assert found["customer"].tolist() == [*index]


def test_types_of_sql(tmp_path: Path) -> None:
    """What a database's driver returns: Decimal, date, booleans and whole numbers with gaps, as objects."""
    frame = pd.DataFrame(
        {
            "price": repeated(Decimal("3.50"), None),
            "day": repeated(date(2024, 1, 1), None),
            "moment": repeated(datetime(3000, 1, 1, 12), None),
            "flag": pd.Series(repeated(True, None), dtype=object),
            "count": pd.Series(repeated(3, None), dtype=object),
            "nullable": pd.array(repeated(3, None), dtype="Int64"),
            "text": repeated("a", None),
            "kind": pd.Categorical(repeated("b", "c")),
            "y": CLASSES,
        }
    )
    found = table.of_frame(frame, settings(tmp_path / "t.parquet"))
    assert dtypes(found) == {
        "price": "number",
        "day": "datetime",
        "moment": "datetime",
        "flag": "boolean",
        "count": "number",
        "nullable": "number",
        "text": "category",
        "kind": "category",
        "y": "category",
    }
    assert found["price"][0] == 3.5 and found["moment"][0].isoformat() == "3000-01-01T12:00:00+00:00"
    assert all(found[name].isna().sum() == ROWS / 2 for name in found if name not in ("kind", "y"))
    with pytest.raises(ProjectError) as error:
        table.of_frame(frame.assign(text=repeated("a", 1)), settings(tmp_path / "t.parquet"))
    assert "column 'text' holds values of the types int, str" in str(error.value)
    mixed = frame.assign(text=repeated("a", 1))
    assert "text" not in table.of_frame(mixed, settings(tmp_path / "t.parquet", drop=["text"]))


def test_classes_that_are_numbers_or_booleans(tmp_path: Path) -> None:
    for values, classes in (
        (pa.array(repeated(1, 2)), ["1", "2"]),
        (pa.array(repeated(1.0, 2.0, None)), ["1", "2", None]),
        (pa.array(repeated(True, False)), ["True", "False"]),
        (pa.array(repeated(7, 8, -999)), None),
    ):
        pq.write_table(pa.table({"a": range(ROWS), "y": values}), tmp_path / "t.parquet")
        if classes is None:
            with pytest.raises(
                ProjectError, match=r"is a text of data\.missing \('-999'\) in 20 rows, the first is row 2 "
            ):
                read(tmp_path / "t.parquet", missing=["", "-999"])
        else:
            assert read(tmp_path / "t.parquet", max_lost=0.5)["y"].tolist()[:3] == (classes * 2)[:3]


def test_the_whole_way_with_every_type(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "t.parquet",
        day=pa.array([date(2024, 1, 1) + timedelta(row) for row in range(ROWS)]),
        rating=pa.array([Decimal(row) / 2 for row in range(ROWS)], pa.decimal128(10, 2)),
        flag=pa.array(repeated(True, False, None)),
    )
    splits, schema = small_table.prepared(settings(path))
    assert [feature["dtype"] for feature in schema["features"]] == ["datetime", "number", "boolean"]
    assert sum(map(len, splits.values())) == ROWS
