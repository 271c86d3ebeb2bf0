"""From a row of a table to the model's two input tensors, the same in training and in serving.

This module is packed into the model archive beside the handler, therefore it imports nothing but the standard library
and torch. A row is a JSON object with a value for each feature of `schema.json`:

======== ============================== ==================================================
kind     JSON value                     tensor
======== ============================== ==================================================
number   finite number                  `numbers`, as it is
boolean  true or false                  `numbers`, 1 or 0
datetime ISO 8601 text, UTC if no zone  `numbers`, seconds since 1970
category text                           `categories`, a 64-bit hash of the text
======== ============================== ==================================================

`null` is a missing value for any of them: NaN in `numbers`, MISSING in `categories`. What follows (imputation, scaling,
the look-up of a category) lies inside the model's graph, see model.py.
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from typing import Any

import torch

#: Code of a missing category. `category_code` never returns it.
MISSING = 0

#: Longer texts are refused: a category is a name, and an attacker's megabytes should cost nothing.
MAX_TEXT = 10_000

#: How values are shown in an error: enough to recognise them, not enough to flood a log.
SHOWN = 60

EXPECTED = {
    "number": "a finite number",
    "boolean": "true or false",
    "datetime": "an ISO 8601 date or time such as 2026-01-31T12:00:00Z",
    "category": f"a text of at most {MAX_TEXT} characters",
}


class RowError(ValueError):
    """A row that does not fit the schema: `index` of the instance, `column` at fault (None for the row as a whole)."""

    def __init__(self, index: int, column: str | None, message: str) -> None:
        self.index = index
        self.column = column
        super().__init__(f"instance {index}: {message}")


def number_features(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the features that go into `numbers`, in the tensor's order."""
    return [feature for feature in schema["features"] if feature["kind"] != "category"]


def category_features(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the features that go into `categories`, in the tensor's order."""
    return [feature for feature in schema["features"] if feature["kind"] == "category"]


def category_code(text: str) -> int:
    """Return a signed 64-bit hash of `text` (BLAKE2b), never MISSING."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


def seconds(text: str) -> float:
    """Return seconds since 1970 of an ISO 8601 text, taken as UTC where it names no zone. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def check_row(index: int, row: Any, schema: dict[str, Any]) -> dict[str, Any]:
    """Return `row` with texts stripped and missing-value markers turned to None, as `prepare` does with the table.

    Raises RowError, with `index` in its message, for the first column that is missing, unknown or of the wrong kind.
    """
    if not isinstance(row, dict):
        raise RowError(index, None, f"{_show(row)} is not an object with a value for each column")
    kinds = {feature["name"]: feature["kind"] for feature in schema["features"]}
    for column in row:
        if column not in kinds:
            raise RowError(index, str(column)[:SHOWN], f"column {_show(column)} is not in the schema: remove it")
    checked = {}
    for column, kind in kinds.items():
        if column not in row:
            raise RowError(index, column, f"column {column!r} is missing: send null if the value is unknown")
        value = row[column]
        if isinstance(value, str):
            value = value.strip()
            value = None if value in schema["missing_markers"] else value
        if value is not None and not fits(value, kind):
            raise RowError(index, column, refusal(column, row[column], kind))
        checked[column] = value
    return checked


def fits(value: Any, kind: str) -> bool:
    """Tell whether a stripped value that is not missing is one of `kind`."""
    try:
        if kind == "boolean":
            return isinstance(value, bool)
        if kind == "number":
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(float(value))
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            return False
        return kind == "category" or math.isfinite(seconds(value))
    except (ValueError, OverflowError):
        return False


def refusal(column: str, value: Any, kind: str) -> str:
    """Return what is said of a value that does not fit."""
    return f"column {column!r} is {_show(value)}: {EXPECTED[kind]} is expected"


def number(value: Any) -> float:
    """Return what `numbers` holds for a value that fits, or for None."""
    if value is None:
        return math.nan
    return seconds(value) if isinstance(value, str) else float(value)


def category(value: str | None) -> int:
    """Return what `categories` holds for a text that fits, or for None."""
    return MISSING if value is None else category_code(value)


def encode_rows(rows: list[dict[str, Any]], schema: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `numbers` (float64, rows x number features) and `categories` (int64, rows x category features).

    The rows must come from `check_row`.
    """
    numbers = [[number(row[feature["name"]]) for feature in number_features(schema)] for row in rows]
    categories = [[category(row[feature["name"]]) for feature in category_features(schema)] for row in rows]
    return (
        torch.tensor(numbers, dtype=torch.float64).reshape(len(rows), -1),
        torch.tensor(categories, dtype=torch.int64).reshape(len(rows), -1),
    )


def encode_frame(frame: Any, schema: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same two tensors from a pandas frame with the types that `prepare` writes, a column at a time."""
    numbers = torch.full((len(frame), len(number_features(schema))), math.nan, dtype=torch.float64)
    for position, feature in enumerate(number_features(schema)):
        column = frame[feature["name"]]
        if feature["kind"] == "datetime":
            column = (column - datetime(1970, 1, 1, tzinfo=UTC)).dt.total_seconds()
        numbers[:, position] = torch.from_numpy(column.to_numpy("float64", na_value=math.nan).copy())
    categories = torch.full((len(frame), len(category_features(schema))), MISSING, dtype=torch.int64)
    for position, feature in enumerate(category_features(schema)):
        column = frame[feature["name"]]
        codes = {text: category_code(text) for text in column.dropna().unique()}
        categories[:, position] = torch.tensor([codes.get(text, MISSING) for text in column], dtype=torch.int64)
    return numbers, categories


def encode_target(frame: Any, schema: dict[str, Any]) -> torch.Tensor:
    """Return the target of a split's pandas frame: class index (int64, [rows]) or value (float64, [rows])."""
    target, classes = frame[schema["target"]["name"]], schema["target"]["classes"]
    if classes:
        target = target.map({name: place for place, name in enumerate(classes)})
    return torch.from_numpy(target.to_numpy("int64" if classes else "float64").copy())


def answer(outputs: torch.Tensor, schema: dict[str, Any]) -> list[Any]:
    """Return the JSON prediction of each row: a number, or the likeliest class with the probability of each."""
    classes = schema["target"]["classes"]
    if not classes:
        return [float(value) for value in outputs]
    return [
        {
            "label": classes[max(range(len(classes)), key=row.__getitem__)],
            "probabilities": dict(zip(classes, row, strict=True)),
        }
        for row in outputs.tolist()
    ]


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a nested value"
    try:
        shown = repr(value if not isinstance(value, str) else value[: SHOWN + 1])
    except ValueError:  # an integer with more digits than Python prints
        shown = "a very long number"
    return shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."
