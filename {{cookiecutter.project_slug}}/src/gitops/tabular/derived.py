"""Derived features in a table: `prepare` adds them to the splits, so that the schema, checks and slices see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import arrow, table
from gitops.tabular.columns import Column, Columns, Derived, derive


def add(frame: pd.DataFrame, derived: Mapping[str, Derived], data: Data) -> pd.DataFrame:
    """Return a typed table with a column for each derived feature.

    Raises ProjectError naming the feature: its name is taken, it has an input that is no feature, it fails, or a row's
    value depends on other rows, which a single request would not have.
    """
    if not derived:
        return frame
    features = frame.columns.difference([data.target, data.id, data.timestamp, "row"], sort=False)
    for name, feature in derived.items():
        if name in frame.columns:
            raise ProjectError(f"DERIVED names {name!r}, which {data.path} has as a column: give it another name")
        if unknown := [of for of in feature.inputs if of not in features]:
            raise ProjectError(f"DERIVED[{name!r}] is computed from {unknown[0]!r}, which is no feature of {data.path}")
    inputs = [name for name in features if any(name in feature.inputs for feature in derived.values())]
    schema = {"features": [{"name": name, "dtype": table.dtype(frame[name])} for name in inputs]}
    columns = arrow.from_frame(frame, schema)
    half = arrow.from_frame(frame.iloc[len(frame) // 2 :], schema)
    made = {name: _computed(name, columns, derived, len(frame)) for name in derived}
    for name, column in made.items():
        if not _equal(column[len(frame) // 2 :], _computed(name, half, derived, len(frame) - len(frame) // 2)):
            raise ProjectError(f"DERIVED[{name!r}] gives a row another value beside other rows: compute each by itself")
    return frame.assign(**{name: _series(column, frame.index) for name, column in made.items()})


def _computed(name: str, columns: Columns, derived: Mapping[str, Derived], rows: int) -> Column:
    try:
        column = derive(columns, derived, [name])[name]
    except Exception as error:  # the function is the project's own
        raise ProjectError(f"DERIVED[{name!r}] failed: {type(error).__name__}: {error}") from error
    if len(column) != rows or (isinstance(column, torch.Tensor) and column.ndim != 1):
        raise ProjectError(f"DERIVED[{name!r}] does not return one value a row")
    return column


def _equal(first: Column, second: Column) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return torch.equal(first.nan_to_num(), second.nan_to_num()) and torch.equal(first.isnan(), second.isnan())
    return first == second


def _series(column: Column, index: pd.Index[Any]) -> pd.Series[Any]:
    if isinstance(column, torch.Tensor):
        return pd.Series(column.numpy(), index=index)
    return pd.Series(column, index=index, dtype=object)
