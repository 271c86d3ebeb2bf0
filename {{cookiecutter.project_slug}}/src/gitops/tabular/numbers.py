"""Statistics of the training rows' numbers, from which the model's preprocessing is made without reading the rows.

`prepare` writes them to data/prepared/numbers.parquet, a row for each number feature and, in a regression, the target.
Values are those of the encoder: booleans 1 or 0, dates in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.tabular import arrow

if TYPE_CHECKING:
    from gitops.tabular.schema import Split

#: Quantiles are kept at 0, 1 / LEVELS, ..., 1: enough for any number of bins, and exact for powers of two.
LEVELS = 1024

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Numbers:
    """Statistics of the columns `names`, each value known or the column's median where one is missing.

    `median`, `mean` and `std` (of the population) are [columns], `quantiles` [columns, LEVELS + 1].
    """

    names: list[str]
    median: Array
    mean: Array
    std: Array
    quantiles: Array

    def of(self, names: list[str]) -> Numbers:
        """Return those of the columns `names`, in their order. Raises ProjectError where one is not there."""
        if missing := [name for name in names if name not in self.names]:
            raise ProjectError(f"{artifacts.NUMBERS} lacks the column {missing[0]!r}: run `make pipeline`")
        at = [self.names.index(name) for name in names]
        return Numbers(names, self.median[at], self.mean[at], self.std[at], self.quantiles[at])


def describe(columns: Iterable[tuple[str, Array]]) -> Numbers:
    """Return the statistics of columns [rows] with NaN for a missing value; each is let go before the next is taken.

    The quantile at q is the value with the rank round(q * (rows - 1)). A column without any value counts as zeros.
    """
    names, statistics, quantiles = [], [], []
    for name, column in columns:
        ranked = np.sort(column[~np.isnan(column)])
        known, missing = len(ranked), len(column) - len(ranked)
        middle = median(ranked) if known else 0.0
        if missing:
            ranked = np.insert(ranked, np.searchsorted(ranked, middle), np.full(missing, middle))
        ranks = np.round(np.linspace(0, 1, LEVELS + 1) * (len(ranked) - 1)).astype(int)
        names.append(name)
        statistics.append([middle, ranked.mean(), ranked.std()])
        quantiles.append(ranked[ranks])
    found = np.array(statistics, np.float64).reshape(-1, 3).T
    return Numbers(names, found[0], found[1], found[2], np.array(quantiles, np.float64).reshape(-1, LEVELS + 1))


def median(ranked: NDArray[Any]) -> float:
    """Return the median of sorted numbers [rows], at least one: the mean of the two in the middle."""
    return float(ranked[(len(ranked) - 1) // 2 : len(ranked) // 2 + 1].mean())


def of_split(train: Split, schema: dict[str, Any]) -> Numbers:
    """Return the statistics of the number features in `schema`, schema.json, and of a regression's target."""
    names = [feature["name"] for feature in schema["features"] if feature["dtype"] != "category"]
    names += [schema["target"]["name"]] if schema["task"] == "regression" else []
    return describe((name, arrow.floats(train.column(name))) for name in names)


def write(path: Path, numbers: Numbers) -> None:
    """Write the statistics, whole or not at all."""
    columns: dict[str, Any] = {"name": pa.array(numbers.names, pa.string())}
    columns |= {key: pa.array(getattr(numbers, key)) for key in ("median", "mean", "std")}
    columns["quantiles"] = pa.array([*numbers.quantiles], pa.list_(pa.float64()))
    with artifacts.replacing(path) as temporary:
        pq.write_table(pa.table(columns), str(temporary))


def read(path: Path = artifacts.NUMBERS) -> Numbers:
    """Return what `write` has written. Raises ProjectError where it is not there."""
    if not path.exists():
        raise ProjectError(f"{path} is missing: run `make pipeline` first")
    table = pq.read_table(str(path), memory_map=False)
    middle, mean, std = (table[key].to_numpy() for key in ("median", "mean", "std"))
    quantiles = table["quantiles"].combine_chunks().flatten().to_numpy().reshape(-1, LEVELS + 1)
    return Numbers(table["name"].to_pylist(), middle, mean, std, quantiles)
