"""Hold a part of a table to the rules of a request, a column at a time, and turn it into the model's tensors.

What fits and what does not is decided as `features.check_row` does it row by row, only faster. A table differs from a
request in how it writes a value: a CSV file has only text, a parquet file has types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from . import features
from .artifacts import ProjectError

Array = npt.NDArray[Any]

#: How a CSV file writes a number.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

#: Units of a timestamp in a second.
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class Checked:
    """The rows that fit, as the model's tensors (features.py); of those that do not, in order, which column and why."""

    numbers: torch.Tensor
    categories: torch.Tensor
    fits: Array  # bool, [rows]
    columns: list[str]
    reasons: list[str]


def check_columns(table: pa.Schema, schema: dict[str, Any], where: str, *, typed: bool) -> None:
    """Raise ProjectError naming the features that the table `where` lacks, or whose type none of their values has.

    A CSV file is not `typed`: what its texts are is seen row by row.
    """
    names = {feature["name"]: feature["kind"] for feature in schema["features"]}
    if missing := [name for name in names if name not in table.names]:
        raise ProjectError(f"{where} lacks columns that the model needs: {', '.join(map(repr, missing))}")
    for name, kind in names.items():
        found = table.field(name).type
        if typed and not _holds(found, kind):
            raise ProjectError(f"{where}: column {name!r} has type {found}: {features.EXPECTED[kind]} is expected")


def check(batch: pa.RecordBatch, schema: dict[str, Any]) -> Checked:
    """Check rows of a table that `check_columns` has let through."""
    markers = frozenset(schema["missing_markers"])
    misfit = np.full(batch.num_rows, -1)  # place of the first feature that does not fit
    encoded: dict[str, Array] = {}
    for place, feature in enumerate(schema["features"]):
        values, fits = _encode(batch.column(feature["name"]), feature["kind"], markers)
        encoded[feature["name"]] = values
        misfit[(misfit < 0) & ~fits] = place
    columns, reasons = [], []
    for row in np.flatnonzero(misfit >= 0):
        feature = schema["features"][misfit[row]]
        value = request_value(batch.column(feature["name"])[row].as_py(), feature["kind"], markers)
        columns.append(feature["name"])
        reasons.append(features.refusal(feature["name"], value, feature["kind"]))
    fits = misfit < 0
    return Checked(
        _stack(encoded, features.number_features(schema), fits, torch.float64),
        _stack(encoded, features.category_features(schema), fits, torch.int64),
        fits,
        columns,
        reasons,
    )


def request_value(value: Any, kind: str, markers: Iterable[str]) -> Any:
    """Return a cell of a table as a request has it, None where it is missing.

    Text that is a number or a boolean becomes one for a feature of that kind, and a code becomes text, as in `prepare`.
    What does not fit stays as it is.
    """
    if isinstance(value, float) and math.isnan(value):
        return None
    if kind == "category" and value is not None:
        value = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text in markers:
        return None
    if kind == "number" and NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if kind == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text


def _holds(found: pa.DataType, kind: str) -> bool:
    types = pa.types
    if types.is_null(found):
        return True
    if kind == "number":
        return bool(types.is_integer(found) or types.is_floating(found) or types.is_decimal(found))
    if kind == "boolean":
        return bool(types.is_boolean(found))
    if isinstance(found, pa.DictionaryType):
        found = found.value_type
    if types.is_string(found) or types.is_large_string(found):
        return True
    if kind == "datetime":
        return bool(types.is_timestamp(found) or types.is_date(found))
    return bool(types.is_integer(found) or types.is_float64(found) or types.is_boolean(found))


def _encode(column: pa.Array, kind: str, markers: frozenset[str]) -> tuple[Array, Array]:
    """Return what the model's tensor holds for each row, and whether the row's value fits."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if kind == "category" or (text and kind != "number"):
        return _by_value(column, kind, markers)
    if text:
        values = _parsed(column, markers)
        return _by_value(column, kind, markers) if values is None else (values, np.full(len(values), True))
    if kind == "datetime":
        stamps = column if pa.types.is_timestamp(column.type) else column.cast(pa.timestamp("s"))
        values = _floats(stamps.cast(pa.int64())) / UNITS[stamps.type.unit]
    else:
        values = _floats(column)
    return values, ~np.isinf(values)


def _parsed(column: pa.Array, markers: frozenset[str]) -> Array | None:
    """Return the numbers of a column of text; None unless each is a finite one or a marker, as almost always."""
    unknown = pa.array(sorted(markers), column.type)
    for text in (column, pc.utf8_trim_whitespace(column)):
        try:
            known = pc.if_else(pc.is_in(text, unknown), pa.scalar(None, column.type), text)
            numbers = known.cast(pa.float64())
        except pa.ArrowInvalid:
            continue
        values = _floats(numbers)
        if np.isfinite(values).sum() == len(values) - numbers.null_count:
            return values
    return None


def _by_value(column: pa.Array, kind: str, markers: frozenset[str]) -> tuple[Array, Array]:
    """Do it in Python, once for each different value."""
    encode: Any = features.category if kind == "category" else features.number
    different = column.dictionary_encode()
    values, fits = [encode(None)], [True]  # the first stands for null
    for value in different.dictionary.to_pylist():
        known = request_value(value, kind, markers)
        fits.append(known is None or features.fits(known, kind))
        values.append(encode(known if fits[-1] else None))
    place = pc.add(different.indices.cast(pa.int64()), 1).fill_null(0).to_numpy()
    return np.array(values, dtype="int64" if kind == "category" else "float64")[place], np.array(fits)[place]


def _floats(column: pa.Array) -> Array:
    """Return numbers as float64, NaN for null."""
    values: Array = column.cast(pa.float64(), safe=False).fill_null(math.nan).to_numpy(zero_copy_only=False)
    return values


def _stack(encoded: dict[str, Array], wanted: list[dict[str, Any]], fits: Array, dtype: torch.dtype) -> torch.Tensor:
    """Return [rows that fit, features]."""
    tensor = torch.empty((int(fits.sum()), len(wanted)), dtype=dtype)
    for place, feature in enumerate(wanted):
        tensor[:, place] = torch.from_numpy(encoded[feature["name"]][fits])
    return tensor
