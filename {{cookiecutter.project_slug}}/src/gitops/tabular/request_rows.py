"""Rows of requests: which ones fit the schema, and what is wrong with the others.

This module is packed into the model archive, so it imports nothing but the standard library and torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from typing import Any

from gitops.tabular.columns import Columns, Row, Schema, given, seconds, typed

#: Longer texts are refused: a category is a name, and an attacker's megabytes should cost nothing.
MAX_TEXT = 10_000

#: Whole numbers of an id are below this: Python does not print those of thousands of digits.
MAX_ID = 10**100

#: How values are shown in an error: enough to recognise them, not enough to flood a log.
SHOWN = 60

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


class RowError(ValueError):
    """A row that does not fit the schema: `index` of the instance, `column` at fault (None for the row as a whole)."""

    def __init__(self, index: int, column: str | None, message: str) -> None:
        self.index = index
        self.column = column
        super().__init__(f"instance {index}: {message}")


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
            columns |= typed(cells, chosen, dtype)
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


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a nested value"
    try:
        shown = repr(value if not isinstance(value, str) else value[: SHOWN + 1])
    except ValueError:  # an integer with more digits than Python prints
        shown = "a very long number"
    return shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
