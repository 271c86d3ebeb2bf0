"""The schema: dtype and statistics of each feature in the training rows, the contract of validation and serving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.sections import Data
from gitops.tabular import cells
from gitops.tabular.columns import Derived
from gitops.tabular.numbers import median


class Split(Protocol):
    """Columns with the types of dtypes.py."""

    @property
    def names(self) -> list[str]:
        """The columns."""

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column, null where a value is missing."""


VERSION = 2


def describe(train: Split, rows: dict[str, int], data: Data, derived: Mapping[str, Derived]) -> dict[str, Any]:
    """Return the schema of the training split, ready for JSON (its format: docs/system-design.md).

    `rows` counts the table's rows, those dropped and those of each split; `derived` has the features that requests
    leave out. Raises ProjectError naming the column that cannot be learned from: a target with one value, no feature
    left, a feature without a value, too many categories.
    """
    features = []
    for name in feature_names(train.names, data):  # one by one: a large table's columns fit into memory only so
        feature = _feature(name, train.column(name), data, remedy(name, derived))
        features.append(feature | ({"derived": [*derived[name].inputs]} if name in derived else {}))
    if not features:
        raise ProjectError(f"{data.path} has no column left to learn from: shorten data.drop")
    return {
        "version": VERSION,
        "task": data.task,
        "target": {"name": data.target, "classes": _classes(train.column(data.target), data)},
        "features": features,
        "slices": [_slice(train, name, data) for name in data.slices],
        "id": data.id,
        "timestamp": data.timestamp,
        "repeated_ids": data.repeated_ids if data.id is not None and data.timestamp is not None else None,
        "missing_markers": data.missing,
        "csv": data.csv.model_dump(),
        "rows": rows,
    }


def feature_names(columns: Iterable[str], data: Data) -> list[str]:
    """Return those columns of a typed table that the model sees, derived features among them."""
    others = {data.target, data.id, data.timestamp, ROW, GROUP, *({*data.slices} & {*data.drop})}
    return [name for name in columns if name not in others]


def _slice(train: Split, name: str, data: Data) -> str:
    """Return the name of a column of data.slices, of which each value is to have metrics."""
    if name not in train.names:
        raise ProjectError(f"data.slices names {name!r}, which {data.path} lacks; it has {', '.join(train.names)}")
    if name in (data.target, data.id, data.timestamp, ROW, GROUP):
        raise ProjectError(f"data.slices names {name!r}, which is the target, the id or the time: remove it there")
    dtype = _feature(name, train.column(name), data, "remove it from data.slices")["dtype"]
    if dtype not in ("category", "boolean"):
        raise ProjectError(
            f"data.slices names {name!r}, a {dtype}: a categorical or boolean column is needed; remove it there, or "
            "add it to data.categorical if its numbers are codes"
        )
    return name


def _classes(target: pa.ChunkedArray, data: Data) -> list[str]:
    """Return the classes in the order of the model's outputs; for the binary task the positive one is last."""
    if data.task == "regression":
        ends = pc.min_max(target).as_py()
        counts = dict.fromkeys(ends.values(), 0)
    else:
        counts = _counts(target)
    if len(counts) < 2:
        raise ProjectError(
            f"data.target {data.target!r} has one value only ({next(iter(counts))!r}) in the training rows: nothing "
            "can be learned"
        )
    if data.task == "regression":
        return []
    names = [*counts]
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


def _counts(texts: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each text is there, in the order of the texts."""
    found = pc.value_counts(texts.drop_null())
    counts = zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)
    return {str(text): count for text, count in sorted(counts)}


def too_many(name: str, found: str, data: Data, remedy: str) -> ProjectError:
    """Return the error of a column with more different texts than `data.max_categories`; `found` says how many."""
    return ProjectError(
        f"column {name!r} has {found}, more than data.max_categories ({data.max_categories}): {remedy} if it is an id "
        "or free text, or raise the limit"
    )


def remedy(name: str, derived: Mapping[str, Derived]) -> str:
    """Return how to be rid of a feature."""
    return "remove it from DERIVED" if name in derived else "add it to data.drop"


def _feature(name: str, column: pa.ChunkedArray, data: Data, remedy: str) -> dict[str, Any]:
    known = column.drop_null()
    if not len(known):
        raise ProjectError(f"column {name!r} has no value in the training rows: {remedy}")
    dtype = cells.dtype(column.type)
    feature: dict[str, Any] = {"name": name, "dtype": dtype, "missing": round(column.null_count / len(column), 6)}
    if dtype == "boolean":
        return feature | {"mean": pc.sum(known).as_py() / len(known)}
    if dtype == "datetime":
        first, last = pa.array(pc.min_max(known).as_py().values(), known.type).to_pandas()
        return feature | {"min": first.isoformat(), "max": last.isoformat()}
    if dtype == "number":
        numbers = known.to_numpy()
        ranked = np.sort(numbers)
        statistics = {
            "min": ranked[0],
            "max": ranked[-1],
            "mean": numbers.mean(),
            "std": numbers.std(),
            "median": median(ranked),
        }
        return feature | {key: float(value) for key, value in statistics.items()}
    if (distinct := len(pc.unique(known))) > data.max_categories:
        raise too_many(name, f"{distinct} distinct texts in {len(column)} training rows", data, remedy)
    fractions = {text: round(count / len(known), 6) for text, count in _counts(known).items()}
    return feature | {"categories": fractions}
