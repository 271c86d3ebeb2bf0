"""Typed columns: what the project's features.py encodes, whether they come from a request, a table or a log.

A feature has one of four dtypes in `schema.json`: its values in a request, and its column:

======== ============================== ============================================
dtype    JSON value                     column
======== ============================== ============================================
number   finite number                  float64 tensor
boolean  true or false                  float64 tensor, 1 or 0
datetime ISO 8601 text, UTC if no zone  float64 tensor, seconds since 1970
category text                           list of texts
======== ============================== ============================================

`null` is a missing value of any of them: NaN in a tensor, None in a list. This module is packed into the model archive,
so it imports nothing but the standard library and torch. arrow.py makes the same columns of tables.
"""

from __future__ import annotations

import math
import traceback
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, compress
from pathlib import Path
from typing import Any

import torch

#: Longer texts are refused: a category is a name, and an attacker's megabytes should cost nothing.
MAX_TEXT = 10_000

#: Whole numbers of an id are below this: Python does not print those of thousands of digits.
MAX_ID = 10**100

#: How values are shown in an error: enough to recognise them, not enough to flood a log.
SHOWN = 60

#: How many calls are named of those that led to an exception.
FRAMES = 4

#: Exceptions whose text names types and names, and no values.
NAME_TYPES = (TypeError, AttributeError, NameError, ImportError)

EXPECTED = {
    "number": "a finite number",
    "boolean": "true or false",
    "datetime": "an ISO 8601 date or time such as 2026-01-31T12:00:00Z",
    "category": f"a text of at most {MAX_TEXT} characters",
    "id": f"a text of at most {MAX_TEXT} characters or a whole number",
}

#: Types of which values may lie in a checked column as they are.
PLAIN = {"number": frozenset([int, float, type(None)]), "boolean": frozenset([bool, type(None)])}
TEXTS = frozenset([str, type(None)])

Row = dict[str, Any]
Column = torch.Tensor | list[str | None]
Columns = dict[str, Column]
Schema = dict[str, Any]


@dataclass(frozen=True)
class Derived:
    """A feature that is computed from others: `compute` takes the columns `inputs` and returns a column.

    The value of a row depends on that row alone. A tensor becomes a number, a list of texts a category.
    """

    inputs: tuple[str, ...]
    compute: Callable[..., Column]


class RowError(ValueError):
    """A row that does not fit the schema: `index` of the instance, `column` at fault (None for the row as a whole)."""

    def __init__(self, index: int, column: str | None, message: str) -> None:
        self.index = index
        self.column = column
        super().__init__(f"instance {index}: {message}")


def given(schema: Schema) -> list[dict[str, Any]]:
    """Return the features that a request gives: all but the derived ones."""
    return [feature for feature in schema["features"] if not feature.get("derived")]


def threshold(schema: Schema) -> dict[str, float]:
    """Return what an answer says of its decisions: from which probability on a row is positive. Empty: not binary."""
    return {name: value for name, value in schema["target"].items() if name == "threshold"}


def optional(schema: Schema) -> dict[str, str]:
    """Return the columns that a request may give besides features, each as "id" or "datetime": whom it is about, when.

    The request log has them, and a retraining's rows; the model does not see them.
    """
    named = {schema.get("id"): "id", schema.get("timestamp"): "datetime"}
    return {name: dtype for name, dtype in named.items() if name is not None}


def check_row(index: int, row: Any, schema: Schema) -> Row:
    """Return `row` with texts stripped and missing-value markers turned to None, as `prepare` does with the table.

    Columns of `optional` are in it where `row` has them, an id as a text.
    Raises RowError, with `index` in its message, for the first column that is missing, unknown or of the wrong dtype.
    """
    if not isinstance(row, dict):
        raise RowError(index, None, f"{_show(row)} is not an object with a value for each column")
    dtypes = {feature["name"]: feature["dtype"] for feature in given(schema)}
    others = optional(schema)
    for column in row:
        if column not in dtypes and column not in others:
            derived = any(feature["name"] == column for feature in schema["features"])
            why = "is derived from other columns" if derived else "is not in the schema"
            raise RowError(index, str(column)[:SHOWN], f"column {_show(column)} {why}: remove it")
    checked = {}
    for column, dtype in (dtypes | others).items():
        if column not in row:
            if column in others:
                continue
            raise RowError(index, column, f"column {column!r} is missing: send null if the value is unknown")
        try:
            checked[column] = _cell(row[column], dtype, schema["missing_markers"])
        except ValueError:
            raise RowError(index, column, refusal(column, row[column], dtype)) from None
    return checked


def check_rows(rows: Sequence[Any], schema: Schema) -> tuple[list[Row], Columns] | None:
    """Return what `check_row` returns for each row, and `from_rows` for all of them; None where one does not fit.

    It takes all values of a dtype at once: far faster than value by value, for wide rows and for many. None is also
    returned where some rows have an optional column that others lack. Rows in which nothing changes are those given.
    """
    if {*map(type, rows)} != {dict}:
        return None
    dtypes = {feature["name"]: feature["dtype"] for feature in given(schema)}
    dtypes |= {name: dtype for name, dtype in optional(schema).items() if name in rows[0]}
    names, markers = [*dtypes], frozenset(schema["missing_markers"])
    if not all([*row] == names for row in rows):
        if not all(row.keys() == dtypes.keys() for row in rows):
            return None
        rows = [{name: row[name] for name in names} for row in rows]
    checked: list[Row] = [*rows]
    columns: Columns = {}
    try:
        for dtype in dict.fromkeys(dtypes.values()):
            mask = [dtypes[name] == dtype for name in names]
            chosen = [*compress(names, mask)]
            given_cells = [*chain.from_iterable(compress(row.values(), mask) for row in rows)]
            cells = _cells(given_cells, len(chosen), dtype, markers)
            if cells is not given_cells:
                parts = (cells[start : start + len(chosen)] for start in range(0, len(cells), len(chosen)))
                checked = [row | dict(zip(chosen, part, strict=True)) for row, part in zip(checked, parts, strict=True)]
            columns |= _typed(cells, chosen, dtype)
    except (ValueError, OverflowError):  # the latter for an integer beyond float64
        return None
    return checked, {feature["name"]: columns[feature["name"]] for feature in given(schema)}


def _cells(cells: list[Any], width: int, dtype: str, markers: frozenset[str]) -> list[Any]:
    """Return cells of `width` columns, row after row, as `check_row` returns them: the same list if nothing changes.

    Raises ValueError where one does not fit.
    """
    types = {*map(type, cells)}
    if types <= PLAIN.get(dtype, frozenset()):
        return cells
    if types <= TEXTS:
        known = {text: _cell(text, dtype, markers) for text in {*cells}}
        unchanged = all(text == value for text, value in known.items())
        return cells if unchanged else [*map(known.__getitem__, cells)]
    if width == 1:
        return [_cell(value, dtype, markers) for value in cells]
    found = cells[:]
    for column in range(width):
        found[column::width] = _cells(cells[column::width], 1, dtype, markers)
    return found


def _cell(value: Any, dtype: str, markers: Iterable[str]) -> Any:
    """Return a value with a text stripped, an id as a text, and None for a marker. Raises ValueError if it is wrong."""
    if dtype == "id" and isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_ID:
        value = str(value)
    if isinstance(value, str):
        value = value.strip()
        value = None if value in markers else value
    if value is not None and not fits(value, dtype):
        raise ValueError(f"not {EXPECTED[dtype]}")
    return value


def fits(value: Any, dtype: str) -> bool:
    """Tell whether a stripped value that is not missing is one of `dtype`."""
    try:
        if dtype == "boolean":
            return isinstance(value, bool)
        if dtype == "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value))
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            return False
        return dtype in ("category", "id") or math.isfinite(seconds(value))
    except (ValueError, OverflowError):
        return False


def refusal(column: str, value: Any, dtype: str) -> str:
    """Return why a value does not fit."""
    return f"column {column!r} is {_show(value)}: {EXPECTED[dtype]} is expected"


def from_rows(rows: Sequence[Row], schema: Schema) -> Columns:
    """Return the columns of rows that `check_row` has returned."""
    dtypes = {feature["name"]: feature["dtype"] for feature in given(schema)}
    columns: Columns = {}
    for dtype in {*dtypes.values()}:
        chosen = [name for name in dtypes if dtypes[name] == dtype]
        columns |= _typed([row[name] for row in rows for name in chosen], chosen, dtype)
    return {name: columns[name] for name in dtypes}


def _typed(cells: list[Any], names: list[str], dtype: str) -> Columns:
    """Return columns of one dtype, given their cells row after row. Raises ValueError for a number that is infinite."""
    width = len(names)
    if dtype in ("category", "id"):
        return {name: cells[index::width] for index, name in enumerate(names)}
    if dtype == "datetime":
        moments = {text: None if text is None else seconds(text) for text in {*cells}}
        cells = [moments[text] for text in cells]
    missing = cells.count(None)
    floats = array("d", [math.nan if value is None else value for value in cells] if missing else cells)
    tensor = torch.frombuffer(floats, dtype=torch.float64) if floats else torch.empty(0, dtype=torch.float64)
    if int(tensor.isfinite().sum()) != len(cells) - missing:
        raise ValueError("a number is not finite")
    return dict(zip(names, tensor.view(-1, width).T.contiguous(), strict=True))


def column(values: list[Any], dtype: str) -> Column:
    """Return the column of values that fit `dtype` or are None."""
    return values if dtype == "category" else torch.tensor([number(value) for value in values], dtype=torch.float64)


def number(value: Any) -> float:
    """Return what a tensor holds for a value that fits, or for None."""
    if value is None:
        return math.nan
    return seconds(value) if isinstance(value, str) else float(value)


def seconds(text: str) -> float:
    """Return seconds since 1970 of an ISO 8601 text, taken as UTC where it names no zone. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def derive(columns: Columns, derived: Mapping[str, Derived], names: Iterable[str]) -> Columns:
    """Return `columns` with the derived features `names`; an infinite number, as of a division by zero, is missing.

    Raises KeyError where `derived` lacks one of them or `columns` an input, and whatever its function raises.
    """
    found = dict(columns)
    for name in names:
        column = derived[name].compute(*(columns[of] for of in derived[name].inputs))
        if isinstance(column, torch.Tensor):
            column = column.to(torch.float64)
            column = torch.where(column.isfinite(), column, math.nan)
        found[name] = column
    return found


def raised(error: BaseException) -> str:
    """Return, on one line for a log, an exception's class, its text unless that may quote a value, and its place."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    places = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    text = f": {' '.join(str(error).split())}" if isinstance(error, NAME_TYPES) else ""
    return f"{type(error).__name__}{text} ({places})"


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a nested value"
    try:
        shown = repr(value if not isinstance(value, str) else value[: SHOWN + 1])
    except ValueError:  # an integer with more digits than Python prints
        shown = "a very long number"
    return shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
