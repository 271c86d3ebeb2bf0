"""How much a feature alone says of the target: rows of both are counted, or compared, bin by bin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gitops.exploration.tables import Array, Split

#: Cells of the largest table of counts, a feature's bins times the classes.
CELLS = 5_000_000


@dataclass(frozen=True)
class Target:
    """The target of the rows that are explored in full.

    `codes`: indices of `classes` [rows] (int64), -1 where it is missing; `values`: those of a regression [rows]
    (float64), NaN where it is missing. One of them is None.
    """

    name: str
    classes: list[str]
    codes: Array | None
    values: Array | None

    @property
    def known(self) -> Array:
        """Where the target is known, bool [rows]."""
        if self.codes is not None:
            return np.asarray(self.codes >= 0)
        return np.empty(0, bool) if self.values is None else ~np.isnan(self.values)

    @cached_property
    def median(self) -> float:
        """The median of a regression's target, 0 where there is none."""
        known = self.known
        return float(np.median(self.values[known])) if self.values is not None and known.any() else 0.0


def read(split: Split, context: dict[str, Any]) -> Target | None:
    """Return the target; None where the table lacks its column, or that is not what the task needs."""
    name = context["target"]
    if name not in split.names or name in context["problems"]:
        return None
    column = split.column(name)
    if context["task"] == "regression":
        return Target(name, [], None, column.cast(pa.float64()).to_numpy().astype(float))
    classes = context["classes"] or sorted(map(str, pc.unique(column.drop_null()).to_pylist()))
    if context["classes"] is None and context["positive"] in classes:
        classes = [*(name for name in classes if name != context["positive"]), context["positive"]]
    codes = pc.index_in(column, pa.array(classes, column.type)).fill_null(-1).to_numpy().astype(np.int64)
    return Target(name, [*map(str, classes)], codes, None)


def association(bins: Array, count: int, target: Target) -> float | None:
    """Return which fraction of the target's uncertainty the bins of a feature, 0 to `count` - 1 [rows], take away.

    0 is none, 1 all of it. Classes: the uncertainty coefficient, mutual information over the target's entropy (Theil,
    1970), less the bias of mutual information in few rows (Miller, 1955). Numbers: epsilon squared, the correlation
    ratio less its bias (Kelley, 1935), the fraction of the variance between the bins. None where the target is constant
    or there are too many bins to count.
    """
    known = target.known
    if target.codes is not None:
        classes = len(target.classes)
        if count * classes > CELLS:
            return None
        return _uncertainty(
            np.bincount(bins[known] * classes + target.codes[known], minlength=count * classes), classes
        )
    return _correlation_ratio(bins[known], target.values[known]) if target.values is not None else None


def _uncertainty(counts: Array, classes: int) -> float | None:
    table = counts.reshape(-1, classes)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    rows = table.sum()
    if min(table.shape, default=0) == 0 or table.shape[1] < 2:
        return None
    joint, of_bins, of_classes = table / rows, table.sum(axis=1) / rows, table.sum(axis=0) / rows
    entropy = -float((of_classes * np.log(of_classes)).sum())
    some = joint > 0
    information = float((joint[some] * np.log(joint[some] / np.outer(of_bins, of_classes)[some])).sum())
    bias = (table.shape[0] - 1) * (table.shape[1] - 1) / (2 * rows)
    return float(min(1.0, max(0.0, (information - bias) / entropy)))


def _correlation_ratio(bins: Array, values: Array) -> float | None:
    rows = np.bincount(bins)
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    groups = int((rows > 0).sum())
    if not total or len(values) <= groups:
        return None
    means = np.bincount(bins, weights=values) / np.maximum(1, rows)
    within = float(((values - means[bins]) ** 2).sum())
    return max(0.0, 1 - within / (len(values) - groups) / (total / (len(values) - 1)))


def by_bin(bins: Array, count: int, target: Target) -> list[list[float]]:
    """Return for each bin the rows of each class, or the quartiles of the target, NaN where it has no row."""
    known = target.known
    if target.codes is not None:
        classes = len(target.classes)
        counts = np.bincount(bins[known] * classes + target.codes[known], minlength=count * classes)
        found: list[list[float]] = counts.astype(float).reshape(count, classes).tolist()
        return found
    if target.values is None:
        return []
    bins, values = bins[known], target.values[known]
    ordered = values[np.argsort(bins, kind="stable")]
    ends = np.cumsum(np.bincount(bins, minlength=count))
    groups = np.split(ordered, ends[:-1])
    return [[*np.quantile(group, [0.25, 0.5, 0.75])] if len(group) else [np.nan] * 3 for group in groups]
