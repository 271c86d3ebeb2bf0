"""Rows of a table become the same tensors as requests with the same values, and are refused for the same reasons."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import small_table
import torch
from breast_cancer import features
from defaults import complete
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.serving import package
from gitops.tabular import arrow
from gitops.tabular.columns import Columns, from_rows, seconds
from gitops.tabular.request_rows import MAX_TEXT, RowError, check_row
from test_columns import SCHEMA

MARKERS = frozenset(["", "?", "-999"])
FUZZED: dict[str, Any] = SCHEMA | {"missing_markers": sorted(MARKERS), "features": SCHEMA["features"][:4]}

#: Texts that a cell may hold: of each dtype, near misses, markers, and what a parser may trip over.
TEXTS = [
    *(
        "1.5",
        " 2 ",
        "+3",
        "-.5",
        "1.",
        "1e5",
        "1E-400",
        "1e400",
        "+-1",
        "0x1A",
        "1_000",
        "١",
        "inf",
        "-Infinity",
        "nan",
    ),
    *("123456789012345678901234567890", "-0", ".", "-", "1,5", "1 2", "1e", "", " ", "?", " ? ", "-999", " -999\t"),
    *("true", "TRUE", " False ", "yes", "1", "0", "None", "red", " blue", "Ünïcode", "\u200b1", "\xa07\u3000", "x\ny"),
    *("2026-01-31", "2026-01-31T12:00:00Z", "2026-01-31 12:00:00+02:00", "0001-01-01", "2026-02-30", "20260131", "now"),
    *("9999-12-31T23:59:59.999999-12:00", "y" * MAX_TEXT, "z" * (MAX_TEXT + 1), f" {'w' * 9_999}  "),
]


def as_requests(
    rows: list[dict[str, Any]], schema: dict[str, Any]
) -> tuple[Columns, list[bool], list[str | None], list[str]]:
    """Return what requests of these rows become: columns of those that fit; why each of the others is refused."""
    good, fits, at_fault, reasons = [], [], [], []
    for row in rows:
        try:
            good.append(check_row(0, row, schema))
            fits.append(True)
        except RowError as error:
            fits.append(False)
            at_fault.append(error.column)
            reasons.append(str(error).removeprefix("instance 0: "))
    return from_rows(good, schema), fits, at_fault, reasons


def assert_equal(actual: Columns, expected: Columns, schema: dict[str, Any]) -> None:
    """Assert that typed columns, and the tensors that they become, are the same to the last bit."""
    assert actual.keys() == expected.keys()
    for name, column in expected.items():
        if isinstance(column, list):
            assert actual[name] == column, name
        else:
            torch.testing.assert_close(actual[name], column, rtol=0, atol=0, equal_nan=True)
    for left, right in zip(features.encode(actual, schema), features.encode(expected, schema), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


def assert_same(batch: pa.RecordBatch, schema: dict[str, Any]) -> list[bool]:
    """Assert that `check` does what `check_row` does, and return which rows fit."""
    dtypes = {feature["name"]: feature["dtype"] for feature in schema["features"]}
    rows = [
        {name: arrow.request_value(value, dtypes[name], schema["missing_markers"]) for name, value in row.items()}
        for row in batch.to_pylist()
    ]
    columns, fits, at_fault, reasons = as_requests(rows, schema)
    checked = arrow.check(batch, schema)
    assert_equal(checked.columns, columns, schema)
    assert checked.fits.tolist() == fits
    assert (checked.at_fault, checked.reasons) == (at_fault, reasons)
    return fits


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_text_are_the_same_as_requests(seed: int) -> None:
    dice = random.Random(seed)
    good = {"size": ["1.5", " 7"], "colour": ["red", "?"], "member": ["true"], "since": ["2026-01-31", ""]}
    names = list(good)
    # Most values fit, as in a real table, so that rows get as far as their last column.
    rows = [[dice.choice(TEXTS if dice.random() < 0.2 else good[name]) for name in names] for _ in range(300)]
    batch = pa.RecordBatch.from_pydict(
        {name: pa.array([row[index] for row in rows]) for index, name in enumerate(names)}
    )
    fits = assert_same(batch, FUZZED)
    assert 60 < sum(fits) < 290


@pytest.mark.parametrize("dtype", ["number", "boolean", "datetime", "category"])
def test_every_text_alone(dtype: str) -> None:
    """A column of one value takes the vectorised path, if its dtype has one; a missing value always fits."""
    schema = FUZZED | {"features": [{"name": "x", "dtype": dtype}]}
    for text in TEXTS:
        assert_same(pa.RecordBatch.from_pydict({"x": pa.array([text, None])}), schema)


def test_a_text_is_read_as_in_prepare() -> None:
    cells = [("1.5", 1.5), (" -2e3 ", -2000.0), ("-999", None), ("1e400", "1e400"), ("nan", "nan"), ("x", "x")]
    assert [arrow.request_value(text, "number", MARKERS) for text, _ in cells] == [value for _, value in cells]
    assert arrow.request_value(" TRUE", "boolean", MARKERS) is True
    assert arrow.request_value("1", "boolean", MARKERS) == "1"
    assert arrow.request_value("1.50", "category", MARKERS) == "1.50"


def typed(**columns: pa.Array) -> pa.RecordBatch:
    """Return rows of a parquet file."""
    count = len(next(iter(columns.values())))
    plain = {name: pa.nulls(count) for name in ("size", "colour", "member", "since")}
    return pa.RecordBatch.from_pydict(plain | columns)


@pytest.mark.parametrize(
    "columns",
    [
        {"size": pa.array([1.5, None, float("nan"), float("inf"), -0.0])},
        {"size": pa.array([1, None, 2**53 + 1], pa.int64())},
        {"size": pa.array([1.5, -float("inf")], pa.float32())},
        {"size": pa.array([255, 0], pa.uint8())},
        {"colour": pa.array([7, None, -999], pa.int64())},
        {"colour": pa.array([7.0, None, float("nan"), 1.25])},
        {"colour": pa.array([True, False, None])},
        {"colour": pa.array(["red", None, " blue ", "x" * 10_001], pa.large_string())},
        {"colour": pa.array(["red", "?", None, "red"]).dictionary_encode()},
        {"member": pa.array([True, None, False])},
        {"since": pa.array(["2026-01-31", "tomorrow", None])},
    ],
)
def test_typed_rows_are_the_same_as_requests(columns: dict[str, pa.Array]) -> None:
    batch = typed(**columns)
    arrow.check_columns(batch.schema, FUZZED, "x.parquet", has_types=True)
    assert_same(batch, FUZZED)


def test_dates_and_decimals_are_the_same_in_each_type() -> None:
    moments = [datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC), datetime(1815, 12, 10, tzinfo=UTC), None]
    texts = [None if moment is None else moment.isoformat() for moment in moments]
    rows = [{"size": 1.25, "colour": "red", "member": True, "since": text} for text in texts]
    expected, *_ = as_requests(rows, FUZZED)
    others = {"size": pa.array([Decimal("1.25")] * 3), "colour": pa.array(["red"] * 3), "member": pa.array([True] * 3)}
    for timestamp in (pa.timestamp("ns", "UTC"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us")):
        stamps = pa.array(moments, pa.timestamp("us", "UTC")).cast(timestamp)
        checked = arrow.check(typed(**others, since=stamps), FUZZED)
        assert checked.fits.all()
        assert_equal(checked.columns, expected, FUZZED)
    days = arrow.check(typed(since=pa.array([date(2026, 1, 31), None])), FUZZED)
    assert days.columns["since"][0] == seconds("2026-01-31")  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_frame_of_a_split_is_the_same_as_requests(seed: int, suffix: str, tmp_path: Path) -> None:
    """The rows that train a model and the requests that it answers become the same tensors."""
    dice = random.Random(seed)

    def moment() -> datetime:
        long_ago = datetime(1800, 1, 1, tzinfo=UTC)
        return long_ago + timedelta(seconds=dice.randrange(10**10), microseconds=dice.choice([0, 0, 999_999, 123_456]))

    makers = {
        "size": lambda: dice.choice([dice.uniform(-1e9, 1e9), dice.random(), 0.1, 7, -0.0, 1e-300]),
        "code": lambda: dice.choice([7, 42, -1]),
        "colour": lambda: dice.choice(["red", "Ünïcode", "dark, red", "true", "1.0", "2026-01-31"]),
        "member": lambda: dice.random() < 0.5,
        "since": moment,
        "y": lambda: dice.choice(["no", "yes"]),
    }
    gaps = {name: dice.choice([0, 0.1, 0.6]) for name in makers} | {"y": 0}
    rows = [{name: None if dice.random() < gaps[name] else make() for name, make in makers.items()} for _ in range(120)]
    frame = pd.DataFrame(rows)
    frame["member"] = frame["member"].astype("boolean")
    path = tmp_path / f"raw{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame["since"] = [None if pd.isna(value) else value.isoformat() for value in frame["since"]]
        frame.to_csv(path, index=False)
    data = {"path": str(path), "target": "y", "task": "binary", "categorical": ["code"]}
    splits, schema = small_table.prepared(Data(**complete({"data": data})["data"]))
    assert len(schema["features"]) == 5
    for split in splits.values():
        columns, fits, _, reasons = as_requests(package.instances(split, schema), schema)
        assert all(fits), reasons
        assert_equal(arrow.from_frame(split, schema), columns, schema)


def test_a_frame_of_other_types_or_values_is_an_error() -> None:
    frame = pd.DataFrame({"size": [1.5, 2], "colour": ["red", None], "member": [True, False]})
    frame["since"] = pd.to_datetime(["2026-01-31", None], utc=True)
    assert arrow.from_frame(frame, FUZZED)["colour"] == ["red", None]
    for changed, named in (
        ({"size": ["1.5", "2"]}, "the frame: column 'size' has type .*string: a finite number is expected"),
        ({"size": [1.5, np.inf]}, "does not fit the schema: a value of column 'size' is not a finite number"),
        ({"since": ["soon", None]}, "does not fit the schema: a value of column 'since' is not an ISO 8601 date"),
    ):
        with pytest.raises(ProjectError, match=named):
            arrow.from_frame(frame.assign(**changed), FUZZED)
    with pytest.raises(ProjectError, match="the frame lacks columns that the model needs: 'member'"):
        arrow.from_frame(frame.drop(columns="member"), FUZZED)


def test_missing_columns_and_wrong_types_are_named() -> None:
    table = typed(size=pa.array([1.0]))
    with pytest.raises(ProjectError, match=r"^t lacks columns that the model needs: 'colour', 'since'$"):
        arrow.check_columns(table.schema.remove(3).remove(1), FUZZED, "t", has_types=True)
    for columns in (
        {"size": pa.array(["1.5"])},
        {"size": pa.array([True])},
        {"member": pa.array([1])},
        {"since": pa.array([1_700_000_000])},
        {"colour": pa.array([[1, 2]])},
    ):
        [name] = columns
        with pytest.raises(ProjectError, match=f"^t: column '{name}' has type .* is expected$"):
            arrow.check_columns(typed(**columns).schema, FUZZED, "t", has_types=True)
        arrow.check_columns(typed(**columns).schema, FUZZED, "t", has_types=False)


def test_no_rows() -> None:
    checked = arrow.check(typed(size=pa.array([], pa.float64())), FUZZED)
    numbers, categories = features.encode(checked.columns, FUZZED)
    assert (numbers.shape, categories.shape, checked.reasons) == ((0, 3), (0, 1), [])
    assert np.array_equal(checked.fits, np.array([], bool))
