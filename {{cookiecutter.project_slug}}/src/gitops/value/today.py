"""What is done today, without a model (params.yaml, `value.today`): one answer for all, or a rule on a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gitops.core.artifacts import ProjectError
from gitops.core.value import Today, Value
from gitops.value.worth import Array

if TYPE_CHECKING:
    import pandas as pd

Schema = dict[str, Any]


def columns(value: Value | None) -> list[str]:
    """Return the columns that `answers` needs: one or none."""
    return [value.today.column] if value and value.today.column is not None else []


def name(today: Today) -> str:
    """Return what is done today, for people to read."""
    if today.column is None:
        return f"{_shown(today.answer)} for all"
    if today.at_least is None:
        return f"the value of {today.column}"
    return f"{_shown(today.answer)} where {today.column} is at least {today.at_least:g}, else {_shown(today.otherwise)}"


def _shown(answer: str | float | None) -> str:
    return f"{answer:g}" if isinstance(answer, float) else str(answer)


def check(value: Value | None, schema: Schema) -> None:
    """Raise ProjectError where the splits lack the column, or it is none that the rule can be applied to."""
    dtypes = {feature["name"]: feature["dtype"] for feature in schema["features"]}
    # A column of data.slices that the model does not see has a category or booleans.
    known = dict.fromkeys(schema["slices"]) | dtypes
    for column in columns(value):
        if column not in known:
            raise ProjectError(
                f"value.today.column is {column!r}, which the splits lack; they have {', '.join(known)}. A column of "
                "data.drop that is in data.slices too is there, and the model does not see it"
            )
        numeric = value is not None and (value.today.at_least is not None or value.error is not None)
        if numeric and dtypes.get(column, "boolean") not in ("number", "boolean"):
            raise ProjectError(
                f"value.today.column is {column!r}, a {dtypes[column]}: a number is needed to compare with at_least, "
                "or where it is the answer"
            )


def answers(value: Value, frame: pd.DataFrame, schema: Schema) -> Array:
    """Return today's answers for the rows of `frame`: class indices (int, [rows]) or values (float, [rows]).

    Of the frame the column of the rule is used, as the splits have it. Raises ProjectError as `check` does, and where
    the answers are the column itself, and some are missing or no class.
    """
    check(value, schema)
    today, classes = value.today, schema["target"]["classes"]
    indices = {text: index for index, text in enumerate(classes)}

    def encoded(answer: Any) -> Any:
        return indices[answer] if classes else answer

    if today.column is None:
        return np.full(len(frame), encoded(today.answer))
    column = frame[today.column]
    if today.at_least is not None:
        high = _numbers(column, today.column) >= today.at_least
        return np.asarray(np.where(high, encoded(today.answer), encoded(today.otherwise)))
    found = column.map(indices).to_numpy("float64", na_value=np.nan) if classes else _numbers(column, today.column)
    if unknown := int(np.isnan(found).sum()):
        raise ProjectError(
            f"value.today.column is {today.column!r}, whose value is the answer, and in {unknown} of {len(found)} rows "
            f"it is missing{' or no class of the target' if classes else ''}: fill it in, or give a rule"
        )
    return np.asarray(found, np.int64 if classes else np.float64)


def _numbers(column: pd.Series, name: str) -> Array:
    try:
        return column.to_numpy("float64", na_value=np.nan)
    except (TypeError, ValueError):
        raise ProjectError(f"value.today.column is {name!r}, which holds texts: a number is needed") from None
