"""Typed columns of tables: a batch of an Arrow table is checked by the rules of a request, a column at a time.

columns.py has those rules. A table differs from a request in how it writes a value: a CSV file has only text, a parquet
file has types.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Csv
from gitops.tabular import cells, request_rows
from gitops.tabular import columns as typed
from gitops.tabular.columns import Column, Columns, Schema

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[Any]

#: Units of a timestamp in a second.
UNITS = {"s": 1, "ms": 10**3, "us": 10**6}


@dataclass(frozen=True)
class Checked:
    """`columns` of the rows that fit; for the rows that do not, in order, the column at fault and the reason."""

    columns: Columns
    fits: Array  # bool, [rows]
    at_fault: list[str]
    reasons: list[str]


def check_columns(table: pa.Schema, schema: Schema, where: str, *, has_types: bool) -> None:
    """Raise ProjectError naming the columns that the table `where` lacks, or whose type cannot hold their feature.

    Without `has_types`, as for CSV, columns hold text, which `check` reads row by row.
    """
    dtypes = {feature["name"]: feature["dtype"] for feature in typed.given(schema)}
    if missing := [name for name in dtypes if name not in table.names]:
        raise ProjectError(f"{where} lacks columns that the model needs: {', '.join(map(repr, missing))}")
    for name, dtype in dtypes.items():
        found = table.field(name).type
        if has_types and not _holds(found, dtype):
            raise ProjectError(f"{where}: column {name!r} has type {found}: {request_rows.EXPECTED[dtype]} is expected")


def check(batch: pa.RecordBatch, schema: Schema) -> Checked:
    """Check the rows of a table that has passed `check_columns`."""
    markers, csv = frozenset(schema["missing_markers"]), cells.csv_of(schema)
    features = typed.given(schema)
    misfit = np.full(batch.num_rows, -1)  # index of the first feature that does not fit
    arrays: dict[str, Array] = {}
    for index, feature in enumerate(features):
        arrays[feature["name"]], fits = _read(batch.column(feature["name"]), feature["dtype"], markers, csv)
        misfit[(misfit < 0) & ~fits] = index
    at_fault, reasons = [], []
    for row in np.flatnonzero(misfit >= 0):
        feature = features[misfit[row]]
        value = request_value(batch.column(feature["name"])[row].as_py(), feature["dtype"], markers, csv)
        at_fault.append(feature["name"])
        reasons.append(request_rows.refusal(feature["name"], value, feature["dtype"]))
    fits = misfit < 0
    kept = slice(None) if fits.all() else np.flatnonzero(fits)
    return Checked({name: _column(array[kept]) for name, array in arrays.items()}, fits, at_fault, reasons)


def from_frame(frame: pd.DataFrame, schema: Schema) -> Columns:
    """Return the typed columns of a frame as `prepare` writes it, missing values as NA.

    Raises ProjectError for a column that is missing or has another type, and for the first value that does not fit.
    """
    names = {feature["name"] for feature in typed.given(schema)}
    own = frame[[name for name in frame.columns if name in names]]
    return from_table(pa.Table.from_pandas(own, preserve_index=False), schema)


def from_table(table: pa.Table, schema: Schema) -> Columns:
    """Return the same of a table that `prepare` has typed, or of rows out of the splits."""
    names = [name for name in dict.fromkeys(each["name"] for each in typed.given(schema)) if name in table.column_names]
    columns = [table[name].combine_chunks() for name in names]
    batch = pa.RecordBatch.from_arrays(columns, names=names)
    check_columns(batch.schema, schema, "the frame", has_types=True)
    checked = check(batch, schema | {"missing_markers": []})
    if checked.reasons:
        name = checked.at_fault[0]
        expected = request_rows.EXPECTED[next(each["dtype"] for each in schema["features"] if each["name"] == name)]
        raise ProjectError(f"the frame does not fit the schema: a value of column {name!r} is not {expected}")
    return checked.columns


def request_value(value: Any, dtype: str, markers: Iterable[str], csv: Csv = cells.DEFAULT) -> Any:
    """Return a cell of a table as a request would hold it, None where it is missing.

    As in `prepare`, a text becomes a number or a boolean for a feature of that dtype, and a number becomes text for a
    category. A value that does not fit stays as it is. `csv`: how numbers are written.
    """
    if isinstance(value, float) and math.isnan(value):
        return None
    if dtype == "category" and value is not None:
        value = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text in markers:
        return None
    if dtype == "number" and (number := cells.number(text, csv)) is not None:
        return number
    if dtype == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text


def _holds(found: pa.DataType, dtype: str) -> bool:
    has = cells.dtype(found)
    if pa.types.is_null(found) or (dtype == "category" and has is not None):
        return True
    return has == dtype or (has == "category" and dtype == "datetime")


def _column(array: Array) -> Column:
    column: Column = array.tolist() if array.dtype == object else torch.tensor(array)
    return column


def _read(values: pa.Array, dtype: str, markers: frozenset[str], csv: Csv) -> tuple[Array, Array]:
    """Return a typed column as float64 or objects, and whether each value fits; one that does not is arbitrary."""
    if isinstance(values, pa.DictionaryArray):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type) or pa.types.is_string_view(values.type):
        values = values.cast(pa.string())
    text = pa.types.is_string(values.type) or pa.types.is_large_string(values.type)
    if dtype == "category" or (text and dtype != "number"):
        return _by_value(values, dtype, markers, csv)
    if text:
        numbers = _parsed(values, markers, csv)
        if numbers is None:
            return _by_value(values, dtype, markers, csv)
    elif dtype == "datetime":
        numbers = _seconds(values)
    else:
        numbers = _floats(values)
    return numbers, ~np.isinf(numbers)


def _parsed(values: pa.Array, markers: frozenset[str], csv: Csv) -> Array | None:
    """Return the numbers of a column of text; None unless each is a finite number or a marker, as almost always."""
    known = cells.known(values, markers)
    found = _floats(cells.numbers(known, csv))
    return found if np.isfinite(found).sum() == len(found) - known.null_count else None


def _by_value(values: pa.Array, dtype: str, markers: frozenset[str], csv: Csv) -> tuple[Array, Array]:
    """Apply the rules of columns.py in Python, once for each distinct value."""
    distinct = values.dictionary_encode()
    known: list[Any] = [None]  # index 0 stands for null
    fits = [True]
    for value in distinct.dictionary.to_pylist():
        cell = request_value(value, dtype, markers, csv)
        fits.append(cell is None or request_rows.fits(cell, dtype))
        known.append(cell if fits[-1] else None)
    index = pc.add(distinct.indices.cast(pa.int64()), 1).fill_null(0).to_numpy()
    array = np.array(known, dtype=object) if dtype == "category" else np.array([typed.number(value) for value in known])
    return array[index], np.array(fits)[index]


def _seconds(values: pa.Array) -> Array:
    """Return timestamps or dates as seconds since 1970, NaN for null."""
    if not pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("s"))
    if values.type.unit == "ns":  # as in a request, which has microseconds; a float64 holds those exactly
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    return _floats(values.cast(pa.int64())) / UNITS[values.type.unit]


def floats(values: pa.ChunkedArray) -> Array:
    """Return a column of numbers, booleans or dates as the encoder's numbers: float64 [rows], NaN for missing."""
    return _seconds(values) if cells.dtype(values.type) == "datetime" else _floats(values)


def _floats(values: pa.Array) -> Array:
    """Return numbers as float64, NaN for null."""
    found: Array = values.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
    return found
