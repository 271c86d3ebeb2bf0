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
so it imports nothing but the standard library and torch. request_rows.py checks the values of a request; arrow.py makes
the same columns of tables.
"""

from __future__ import annotations

import math
import traceback
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

#: How many calls are named of those that led to an exception.
FRAMES = 4

#: Exceptions whose text names types and names, and no values.
NAME_TYPES = (TypeError, AttributeError, NameError, ImportError)

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


def given(schema: Schema) -> list[dict[str, Any]]:
    """Return the features that a request gives: all but the derived ones."""
    return [feature for feature in schema["features"] if not feature.get("derived")]


def threshold(schema: Schema) -> dict[str, float]:
    """Return what an answer says of its decisions: from which probability on a row is positive. Empty: not binary."""
    return {name: value for name, value in schema["target"].items() if name == "threshold"}


def from_rows(rows: Sequence[Row], schema: Schema) -> Columns:
    """Return the columns of rows that request_rows.check_row has returned."""
    dtypes = {feature["name"]: feature["dtype"] for feature in given(schema)}
    columns: Columns = {}
    for dtype in {*dtypes.values()}:
        chosen = [name for name in dtypes if dtypes[name] == dtype]
        columns |= typed([row[name] for row in rows for name in chosen], chosen, dtype)
    return {name: columns[name] for name in dtypes}


def typed(cells: list[Any], names: list[str], dtype: str) -> Columns:
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
