"""A table's rows are held to what a request's are, and become the same tensors, whatever they hold."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from breast_cancer import features
from gitops.core.artifacts import ProjectError
from gitops.inference import batch_check
from test_features import SCHEMA

MARKERS = frozenset(["", "?", "-999"])
FUZZED: dict[str, Any] = SCHEMA | {"missing_markers": sorted(MARKERS)}

#: Texts that a cell may hold: of each kind, near misses, markers, and what a parser may trip over.
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
    *("9999-12-31T23:59:59.999999-12:00", "y" * features.MAX_TEXT, "z" * (features.MAX_TEXT + 1), f" {'w' * 9_999}  "),
]


def row_by_row(rows: list[dict[str, Any]], schema: dict[str, Any]) -> tuple[Any, Any, list[bool], list[Any], list[str]]:
    """Return what a request of these rows would be: tensors of those that fit, and what is said of the others."""
    good, fits, columns, reasons = [], [], [], []
    for row in rows:
        try:
            good.append(features.check_row(0, row, schema))
            fits.append(True)
        except features.RowError as error:
            fits.append(False)
            columns.append(error.column)
            reasons.append(str(error).removeprefix("instance 0: "))
    return *features.encode_rows(good, schema), fits, columns, reasons


def assert_same(batch: pa.RecordBatch, schema: dict[str, Any]) -> list[bool]:
    """Hold `check` to `check_row`, and return which rows fit."""
    kinds = {feature["name"]: feature["kind"] for feature in schema["features"]}
    rows = [
        {name: batch_check.request_value(value, kinds[name], schema["missing_markers"]) for name, value in row.items()}
        for row in batch.to_pylist()
    ]
    numbers, categories, fits, columns, reasons = row_by_row(rows, schema)
    checked = batch_check.check(batch, schema)
    torch.testing.assert_close(checked.numbers, numbers, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(checked.categories, categories, rtol=0, atol=0)
    assert checked.fits.tolist() == fits
    assert (checked.columns, checked.reasons) == (columns, reasons)
    return fits


@pytest.mark.parametrize("seed", range(20))
def test_rows_of_text_are_what_a_request_makes_of_them(seed: int) -> None:
    dice = random.Random(seed)
    good = {"size": ["1.5", " 7"], "colour": ["red", "?"], "member": ["true"], "since": ["2026-01-31", ""]}
    names = list(good)
    # Most values fit, as in a real table, so that rows get as far as their last column.
    rows = [[dice.choice(TEXTS if dice.random() < 0.2 else good[name]) for name in names] for _ in range(300)]
    batch = pa.RecordBatch.from_pydict(
        {name: pa.array([row[place] for row in rows]) for place, name in enumerate(names)}
    )
    fits = assert_same(batch, FUZZED)
    assert 60 < sum(fits) < 290


@pytest.mark.parametrize("kind", ["number", "boolean", "datetime", "category"])
def test_every_text_alone(kind: str) -> None:
    """A column that holds nothing else takes the fast way, if it has one; a missing value always fits."""
    schema = FUZZED | {"features": [{"name": "x", "kind": kind}]}
    for text in TEXTS:
        assert_same(pa.RecordBatch.from_pydict({"x": pa.array([text, None])}), schema)


def test_what_the_texts_mean() -> None:
    cells = [("1.5", 1.5), (" -2e3 ", -2000.0), ("-999", None), ("1e400", "1e400"), ("nan", "nan"), ("x", "x")]
    assert [batch_check.request_value(text, "number", MARKERS) for text, _ in cells] == [value for _, value in cells]
    assert batch_check.request_value(" TRUE", "boolean", MARKERS) is True
    assert batch_check.request_value("1", "boolean", MARKERS) == "1"
    assert batch_check.request_value("1.50", "category", MARKERS) == "1.50"


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
def test_typed_rows_are_what_a_request_makes_of_them(columns: dict[str, pa.Array]) -> None:
    batch = typed(**columns)
    batch_check.check_columns(batch.schema, FUZZED, "x.parquet", typed=True)
    assert_same(batch, FUZZED)


def test_typed_dates_and_decimals_are_what_training_makes_of_them() -> None:
    moments = [datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC), datetime(1815, 12, 10, tzinfo=UTC), None]
    frame = pd.DataFrame({"size": [1.25] * 3, "colour": ["red"] * 3, "member": pd.array([True] * 3, dtype="boolean")})
    frame["since"] = pd.to_datetime(pd.Series(moments), utc=True).astype("datetime64[ns, UTC]")
    expected, _ = features.encode_frame(frame, FUZZED)
    plain = {"size": pa.array([Decimal("1.25")] * 3), "colour": pa.array(["red"] * 3), "member": pa.array([True] * 3)}
    for kind in (pa.timestamp("ns", "UTC"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us")):
        stamps = pa.array(moments, pa.timestamp("us", "UTC")).cast(kind)
        checked = batch_check.check(typed(**plain, since=stamps), FUZZED)
        assert checked.fits.all()
        torch.testing.assert_close(checked.numbers, expected, rtol=0, atol=0, equal_nan=True)
    days = batch_check.check(typed(since=pa.array([date(2026, 1, 31), None])), FUZZED)
    assert days.numbers[0, 2].item() == features.seconds("2026-01-31")


def test_missing_columns_and_wrong_types_are_named() -> None:
    table = typed(size=pa.array([1.0]))
    with pytest.raises(ProjectError, match=r"^t lacks columns that the model needs: 'colour', 'since'$"):
        batch_check.check_columns(table.schema.remove(3).remove(1), FUZZED, "t", typed=True)
    for columns in (
        {"size": pa.array(["1.5"])},
        {"size": pa.array([True])},
        {"member": pa.array([1])},
        {"since": pa.array([1_700_000_000])},
        {"colour": pa.array([[1, 2]])},
    ):
        [name] = columns
        with pytest.raises(ProjectError, match=f"^t: column '{name}' has type .* is expected$"):
            batch_check.check_columns(typed(**columns).schema, FUZZED, "t", typed=True)
        batch_check.check_columns(typed(**columns).schema, FUZZED, "t", typed=False)


def test_no_rows() -> None:
    checked = batch_check.check(typed(size=pa.array([], pa.float64())), FUZZED)
    assert (checked.numbers.shape, checked.categories.shape, checked.reasons) == ((0, 3), (0, 1), [])
    assert np.array_equal(checked.fits, np.array([], bool))
