"""Where two models differ most: which rows, in which slices, and what sets them apart, without naming a value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops.tabular.columns import Column, Columns

Array = NDArray[Any]
Schema = dict[str, Any]

#: The fraction of the rows whose changes are the largest, and how many of the columns that tell them apart are named.
LARGEST, TELLING = 0.05, 5


def largest(size: Array, least: int) -> Array:
    """Return which rows change most, bool [rows]: the fraction LARGEST of them, at least `least`, of those that change.

    `size` [rows] is the size of each row's change (changes.py).
    """
    found = np.zeros(len(size), bool)
    found[np.argsort(-size, kind="stable")[: max(least, round(LARGEST * len(size)))]] = True
    return found & (size > 0)


def telling(columns: Columns, chosen: Array) -> list[dict[str, Any]]:
    """Return the columns in which the chosen rows differ most from the others, as distances from 0 to 1.

    Numbers by the Kolmogorov-Smirnov statistic of the values that are there, categories by the total variation
    distance; either is at least the difference in the fraction of missing values.
    """
    found = sorted(((_distance(column, chosen), name) for name, column in columns.items()), reverse=True)
    return [{"column": name, "distance": distance} for distance, name in found[:TELLING] if distance > 0]


def _distance(column: Column, chosen: Array) -> float:
    if isinstance(column, list):
        codes = np.unique(["=" + value if value is not None else "" for value in column], return_inverse=True)[1]
        parts = [np.bincount(codes[rows], minlength=codes.max() + 1) / rows.sum() for rows in (chosen, ~chosen)]
        return float(np.abs(parts[0] - parts[1]).sum() / 2)
    values = column.numpy()
    missing = np.isnan(values)
    gap = abs(float(missing[chosen].mean()) - float(missing[~chosen].mean()))
    return max(gap, kolmogorov_smirnov(values[chosen & ~missing], values[~chosen & ~missing]))


def kolmogorov_smirnov(one: Array, other: Array) -> float:
    """Return the largest distance between the distributions of two samples of numbers; 0 where one is empty."""
    if not len(one) or not len(other):
        return 0.0
    every = np.sort(np.concatenate([one, other]))
    below = (np.searchsorted(np.sort(part), every, "right") / len(part) for part in (one, other))
    first, second = below
    return float(np.abs(first - second).max())


def slices(columns: Columns, schema: Schema, redacted: set[str]) -> Iterator[tuple[str, str, Array]]:
    """Yield each column of data.slices that requests give, each value of it, and which rows have it, bool [rows].

    Categories that training did not have are texts of clients': together they are one slice, "(other)".
    """
    features = {feature["name"]: feature for feature in schema["features"]}
    for name in schema.get("slices", []):
        if name in columns and name not in redacted:
            texts = np.array(_texts(columns[name], {*features[name].get("categories", ())}), dtype=object)
            for value in sorted({*texts}):
                yield name, value, texts == value


def _texts(column: Column, known: set[str]) -> list[str]:
    """Return the values of a category or a boolean as metrics.json names them."""
    if not isinstance(column, list):
        return [{1.0: "True", 0.0: "False"}.get(value, "(missing)") for value in column.tolist()]
    return ["(missing)" if value is None else value if value in known else "(other)" for value in column]
