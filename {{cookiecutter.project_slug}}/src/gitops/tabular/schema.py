"""The schema: dtype and statistics of each feature in the training rows, the contract of validation and serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.sections import Data
from gitops.tabular.columns import Derived

VERSION = 2


def describe(train: pd.DataFrame, rows: dict[str, int], data: Data, derived: Mapping[str, Derived]) -> dict[str, Any]:
    """Return the schema of the training split, ready for JSON (its format: docs/system-design.md).

    `rows` counts the table's rows, those dropped and those of each split; `derived` has the features that requests
    leave out. Raises ProjectError naming the column that cannot be learned from: a target with one value, no feature
    left, a feature without a value, too many categories.
    """
    features = []
    for column in feature_names(train, data):
        if column in derived:
            feature = _feature(train[column], data, "remove it from DERIVED")
            features.append(feature | {"derived": list(derived[column].inputs)})
        else:
            features.append(_feature(train[column], data, "add it to data.drop"))
    if not features:
        raise ProjectError(f"{data.path} has no column left to learn from: shorten data.drop")
    return {
        "version": VERSION,
        "task": data.task,
        "target": {"name": data.target, "classes": _classes(train[data.target], data)},
        "features": features,
        "slices": [_slice(train, name, data) for name in data.slices],
        "id": data.id,
        "timestamp": data.timestamp,
        "repeated_ids": data.repeated_ids if data.id is not None and data.timestamp is not None else None,
        "missing_markers": data.missing,
        "csv": data.csv.model_dump(),
        "rows": rows,
    }


def feature_names(frame: pd.DataFrame, data: Data) -> list[str]:
    """Return the columns of a typed table that the model sees, derived features among them."""
    others = {data.target, data.id, data.timestamp, ROW, GROUP, *({*data.slices} & {*data.drop})}
    return [name for name in frame.columns if name not in others]


def _slice(train: pd.DataFrame, name: str, data: Data) -> str:
    """Return the name of a column of data.slices, of which each value is to have metrics."""
    if name not in train.columns:
        raise ProjectError(f"data.slices names {name!r}, which {data.path} lacks; it has {', '.join(train.columns)}")
    if name in (data.target, data.id, data.timestamp, ROW, GROUP):
        raise ProjectError(f"data.slices names {name!r}, which is the target, the id or the time: remove it there")
    dtype = _feature(train[name], data, "remove it from data.slices")["dtype"]
    if dtype not in ("category", "boolean"):
        raise ProjectError(
            f"data.slices names {name!r}, a {dtype}: a categorical or boolean column is needed; remove it there, or "
            "add it to data.categorical if its numbers are codes"
        )
    return name


def _classes(target: pd.Series[Any], data: Data) -> list[str]:
    """Return the classes in the order of the model's outputs; for the binary task the positive one is last."""
    counts = target.value_counts()
    if len(counts) < 2:
        raise ProjectError(
            f"data.target {data.target!r} has one value only ({counts.index[0]!r}) in the training rows: nothing can "
            "be learned"
        )
    if data.task == "regression":
        return []
    names = sorted(counts.index)
    if data.task == "multiclass":
        return names
    if len(names) > 2:
        raise ProjectError(
            f"data.task is 'binary' but data.target {data.target!r} has {len(names)} classes: use 'multiclass'"
        )
    positive = data.positive if data.positive is not None else min(reversed(names), key=lambda name: counts[name])
    if positive not in names:
        raise ProjectError(
            f"data.positive is {positive!r}, which data.target {data.target!r} never is: it is one of {names}"
        )
    return [name for name in names if name != positive] + [positive]


def _feature(column: pd.Series[Any], data: Data, remedy: str) -> dict[str, Any]:
    known = column.dropna()
    if known.empty:
        raise ProjectError(f"column {column.name!r} has no value in the training rows: {remedy}")
    feature: dict[str, Any] = {"name": column.name, "dtype": "", "missing": round(float(column.isna().mean()), 6)}
    if pd.api.types.is_bool_dtype(column):
        return feature | {"dtype": "boolean", "mean": float(known.mean())}
    if pd.api.types.is_datetime64_any_dtype(column):
        return feature | {"dtype": "datetime", "min": known.min().isoformat(), "max": known.max().isoformat()}
    if pd.api.types.is_numeric_dtype(column):
        statistics = {
            "min": known.min(),
            "max": known.max(),
            "mean": known.mean(),
            "std": known.std(ddof=0),
            "median": known.median(),
        }
        return feature | {"dtype": "number"} | {name: float(value) for name, value in statistics.items()}
    fractions = known.value_counts(normalize=True).sort_index()
    if len(fractions) > data.max_categories:
        raise ProjectError(
            f"column {column.name!r} has {len(fractions)} distinct texts in {len(column)} training rows, more than "
            f"data.max_categories ({data.max_categories}): {remedy} if it is an id or free text, or raise the limit"
        )
    return feature | {"dtype": "category", "categories": {str(k): round(float(v), 6) for k, v in fractions.items()}}
