"""Columns of Arrow's types, or of text, as columns of one type for each of the four dtypes of columns.py.

They are float64, bool, timestamp[us, UTC] and string, null where a value is missing; `series` has them for pandas.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import cells, wrong_format
from gitops.tabular.cells import FIRST_SECOND, LAST_SECOND, Texts
from gitops.tabular.raw_column import Column

#: From here on a float64 does not hold every whole number.
EXACT = 2**53

#: Units of a timestamp in a second.
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

#: A number that is written with leading zeros is a code: 00024 is not 24.
CODE = r"0\d+"

NOT_A_TIME = np.iinfo("int64").min

#: The type of dates and times.
MOMENT = pa.timestamp("us", "UTC")


def plain(column: Column) -> Column:
    """Return a column without Arrow's encodings. Raises ProjectError for a type that is none of the four dtypes."""
    values = column.values
    if cells.dtype(values.type) is None:
        raise ProjectError(
            f"column {column.name!r} of {column.path} has the type {values.type}, which is no number, text, boolean or "
            "date: add it to data.drop, or make columns of it"
        )
    if isinstance(values.type, pa.DictionaryType):
        values = values.cast(values.type.value_type)
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    return Column(column.name, values, column.path, column.csv, column.files)


def texts(values: pa.ChunkedArray, markers: list[str]) -> pa.ChunkedArray:
    """Return values of any dtype as stripped text, null where one is missing or a marker.

    Whole numbers keep every digit; those of a column of floats, as it is where some are missing, are written without
    their fraction: 7.0 is the code 7.
    """
    if pa.types.is_integer(values.type):
        values = values.cast(pa.string())
    elif not pa.types.is_string(values.type):
        distinct = values.unique().drop_null()
        written = pa.array([_written(value) for value in distinct.to_pylist()], pa.string())
        values = pa.chunked_array([pc.take(written, pc.index_in(values.combine_chunks(), distinct))], pa.string())
    return cells.known(values, markers)


def check_codes(column: Column) -> None:
    """Raise ProjectError where codes lie in floats that cannot hold all of their digits."""
    if pa.types.is_floating(column.values.type):
        lost = pc.greater_equal(pc.abs(column.values), EXACT)
        if pc.any(lost).as_py():
            raise ProjectError(
                f"column {column.name!r} of {column.path} holds floating-point numbers beyond 2**53 in "
                f"{column.first(lost)}: a code has lost digits there; write the column as whole numbers or texts"
            )


def _written(value: Any) -> str | None:
    if isinstance(value, float):
        return None if value != value else str(value).removesuffix(".0")
    return str(value)


def category(known: pa.ChunkedArray) -> pd.Series[Any]:
    """Return texts as a pandas column, None where one is missing."""
    return pd.Series(known.to_numpy(zero_copy_only=False), dtype=object)


def series(values: pa.ChunkedArray) -> pd.Series[Any]:
    """Return a column as pandas': float64, boolean, datetime64[us, UTC], or texts with None where one is missing."""
    if pa.types.is_boolean(values.type):
        missing = values.is_null().to_numpy()
        return pd.Series(pd.arrays.BooleanArray(values.fill_null(False).to_numpy(), missing))
    if pa.types.is_timestamp(values.type):
        moments = values.cast(pa.int64()).fill_null(NOT_A_TIME).to_numpy().view("datetime64[us]")
        return pd.Series(moments).dt.tz_localize("UTC")
    return category(values) if pa.types.is_string(values.type) else pd.Series(values.to_numpy())


def of_type(column: Column, data: Data) -> pa.ChunkedArray:
    """Return a `plain` column that is no text. Raises ProjectError where a value cannot be held."""
    kind = cells.dtype(column.values.type)
    if kind == "boolean":
        return column.values
    if kind == "datetime":
        return _microseconds(column).cast(MOMENT)
    floats = column.values.cast(pa.float64(), safe=False)
    if not pa.types.is_floating(column.values.type) and column.name != data.target:
        _check_exact(column, floats)
    return _number(column, floats)


def of_text(column: Column, data: Data) -> pa.ChunkedArray:
    """Return a `plain` column of text with the dtype that all of its known values have.

    Raises ProjectError where a value cannot be held, where numbers are written in another notation than data.csv says,
    and where nearly all are numbers.
    """
    known = cells.known(column.values, data.missing)
    count = len(known) - known.null_count
    if not count:
        return _number(column, known.cast(pa.float64()))  # like any other number; refused by schema.py
    if pc.utf8_lower(known.drop_null()[0]).as_py() in ("true", "false"):
        lower = pc.utf8_lower(known)
        if pc.all(pc.is_in(lower.drop_null(), pa.array(["true", "false"]))).as_py():
            return pc.equal(lower, "true")
    csv = column.csv or cells.DEFAULT
    numbers = cells.numbers(known, csv)
    if len(numbers) - numbers.null_count == count:
        if column.name != data.target:
            if pc.any(cells.matching(known, CODE)).as_py():
                return known
            _check_exact(column, numbers, known)
        return _number(column, numbers)
    if pc.all(pc.match_substring_regex(known, cells.ISO_DATE)).as_py():
        return _dates(column, known)
    wrong_format.check(column, known, numbers, csv)
    return known


def _dates(column: Column, known: pa.ChunkedArray) -> pa.ChunkedArray:
    moments = cells.datetimes(known)
    if moments.null_count > known.null_count:
        impossible = pc.and_(pc.is_valid(known), pc.is_null(moments))
        raise ProjectError(
            f"column {column.name!r} of {column.path} holds dates, and what is no date of the calendar in "
            f"{column.first(impossible)}: correct it, or add {column.name!r} to data.categorical"
        )
    return moments


def _check_exact(column: Column, numbers: pa.ChunkedArray, known: Texts | None = None) -> None:
    """Raise ProjectError where a whole number is too large for float64 to hold its last digit. `known`: their texts."""
    inexact = pc.greater_equal(pc.abs(numbers), EXACT)
    if not pc.any(inexact).as_py():
        return
    if known is not None:
        thousands = "" if column.csv is None else re.escape(column.csv.thousands or "")
        inexact = pc.and_(inexact, cells.matching(known, rf"[+-]?[\d{thousands}]+"))
    if pc.any(inexact).as_py():
        raise ProjectError(
            f"column {column.name!r} of {column.path} holds whole numbers beyond 2**53, which a model's number cannot "
            f"tell apart, in {column.first(inexact)}: add it to data.categorical if they are codes, or to data.drop"
        )


def _number(column: Column, floats: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers with null for NaN. Raises ProjectError for an infinite one."""
    if all(not chunk.null_count and np.isfinite(chunk.to_numpy()).all() for chunk in floats.chunks):
        return floats
    infinite = pc.is_inf(floats)
    if pc.any(infinite).as_py():
        raise ProjectError(
            f"column {column.name!r} of {column.path} is infinite in {column.first(infinite)}: correct it or leave it "
            "empty"
        )
    return pc.if_else(pc.is_nan(floats), pa.scalar(None, pa.float64()), floats)


def moments(texts: pd.Series[Any]) -> pd.Series[Any]:
    """Return ISO 8601 texts of a frame as times, missing where one is missing."""
    values = pa.array([None if pd.isna(text) else text for text in texts], pa.string())
    return series(cells.datetimes(pa.chunked_array([values]))).set_axis(texts.index)


def _microseconds(column: Column) -> pa.ChunkedArray:
    """Return dates or times as microseconds since 1970. Raises ProjectError outside the years 1 to 9999."""
    values = column.values
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("s" if pa.types.is_date32(values.type) else "ms"))
    per_second, since = UNITS[values.type.unit], values.cast(pa.int64())
    if per_second == UNITS["ns"]:  # as in a request, which has microseconds; all of them are within these years
        return values.cast(pa.timestamp("us", values.type.tz), safe=False).cast(pa.int64())
    outside = pc.or_(pc.less(since, FIRST_SECOND * per_second), pc.greater(since, (LAST_SECOND + 1) * per_second - 1))
    if pc.any(outside).as_py():
        raise ProjectError(
            f"column {column.name!r} of {column.path} is outside of the years 1 to 9999 in {column.first(outside)}: "
            "leave it empty where it means unknown"
        )
    return pc.multiply(since, UNITS["us"] // per_second)
