"""Logged rows as a model takes them, and for which columns a server with that model would refuse them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gitops.tabular.columns import Columns, from_rows, given
from gitops.tabular.request_rows import RowError, check_row, check_rows, optional

Row = dict[str, Any]
Schema = dict[str, Any]

#: Why a server refuses a row for a column: the row lacks it, no feature has its name, the value is of another dtype.
MISSING, UNKNOWN, UNFIT = "missing", "unknown", "unfit"


@dataclass
class Fitted:
    """Typed columns of all rows, in which what is missing or does not fit is missing; and each row's refusals."""

    columns: Columns
    refused: list[dict[str, str]]  # of each row, the columns that it is refused for, and why


def fit(rows: list[Row], schema: Schema) -> Fitted:
    """Return logged rows as the columns of a schema."""
    names, others = [feature["name"] for feature in given(schema)], optional(schema)
    known = {*names, *others}
    refused = [
        {name: MISSING for name in names if name not in row} | {name: UNKNOWN for name in row if name not in known}
        for row in rows
    ]
    made = [{name: row.get(name) for name in names} for row in rows]
    if found := check_rows(made, schema):
        return Fitted(found[1], refused)
    checked = [_checked(row, why, schema) for row, why in zip(made, refused, strict=True)]
    return Fitted(from_rows(checked, schema), refused)


def _checked(row: Row, why: dict[str, str], schema: Schema) -> Row:
    """Return a row whose values that do not fit are missing, and note their columns in `why`."""
    while True:
        try:
            return check_row(0, row, schema)
        except RowError as error:  # its text quotes the value
            column = str(error.column)
        why[column], row[column] = UNFIT, None


def changed(old: Schema, new: Schema) -> list[str]:
    """Return the columns that a request gives to one of two models alone, or in another dtype."""
    before, after = ({feature["name"]: feature["dtype"] for feature in given(schema)} for schema in (old, new))
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def counted(refused: Iterable[dict[str, str]]) -> dict[str, Any]:
    """Return how many rows are refused, and by column and reason how many for it."""
    rows, columns = 0, Counter[tuple[str, str]]()
    for why in refused:
        rows += bool(why)
        columns.update(why.items())
    listed = [{"column": name, "why": why, "rows": count} for (name, why), count in sorted(columns.items())]
    return {"rows": rows, "columns": listed}


def selected(columns: Columns, rows: list[int]) -> Columns:
    """Return some rows of typed columns."""
    return {
        name: [column[row] for row in rows] if isinstance(column, list) else column[rows]
        for name, column in columns.items()
    }
