"""Permutation importance: how much worse the model scores when the values of one column belong to other rows.

Breiman, 2001, "Random Forests", section 10; as a U-statistic of pairs of rows, Fisher, Rudin and Dominici, 2019, "All
Models are Wrong, but Many are Useful", section 3.2. Columns that say the same share what they are worth, or have none:
the model reads what it misses from the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops.statistics import jackknife
from gitops.statistics.resampling import Clusters

Array = NDArray[Any]

#: Returns the metric of rows, higher for better: `score(actual, outputs)`, as in the project's metrics.py.
Score = Callable[[Array, Array], float]

#: Blocks of rows, at most, and groups of rows that one has at least.
BLOCKS, GROUPS = 50, 5


@dataclass(frozen=True)
class Pairs:
    """Which rows are scored with whose value of a column: `rows` and `donors`, int64 [pairs].

    A row and its donor are in the same one of `blocks`, int64 [rows], of which groups are not divided: so the blocks
    are independent of each other, and what is left without one tells how sure a result is.
    """

    rows: Array
    donors: Array
    blocks: Array


@dataclass(frozen=True)
class Importance:
    """By how much the metric is worse, and the 95 % interval of that; NaN where the rows do not define the metric."""

    value: float
    low: float
    high: float


def pairs(groups: Array, repeats: int, rng: np.random.Generator) -> Pairs:
    """Return `repeats` shuffles of rows, in each of which a row gives its value once, to a row of another group.

    A group with more than half of a block's rows gives some to itself. `groups` [rows] is the number of each row's
    group.
    """
    clusters, count = Clusters(groups), len(groups)
    number = max(1, min(BLOCKS, len(clusters) // GROUPS))
    blocks = rng.permutation(len(clusters))[clusters.codes] * number // len(clusters)
    starts = np.flatnonzero(np.diff(np.sort(blocks))) + 1
    donors = np.empty((repeats, count), np.int64)
    for shuffled in donors:
        # Whole groups of a block in a random order, and in it the row that is half of the block away.
        order = np.lexsort((rng.random(count), rng.permutation(len(clusters))[clusters.codes], blocks))
        for rows in np.split(order, starts):
            shuffled[rows] = np.roll(rows, len(rows) // 2)
    return Pairs(np.tile(np.arange(count), repeats), donors.ravel(), blocks)


class Scorer:
    """Scores columns by the same pairs of rows: `actual` and `outputs` of the rows as they are."""

    def __init__(self, score: Score, actual: Array, outputs: Array, by: Pairs) -> None:
        """Score the rows without each block in turn, which is the same for all columns."""
        self.score, self.actual, self.by = score, actual, by
        count = int(by.blocks.max()) + 1
        self.kept = [by.blocks != index for index in range(count)] if count > 1 else []
        self.whole = score(actual, outputs)
        self.without = [score(actual[kept], outputs[kept]) for kept in self.kept]

    def importance(self, shuffled: Array) -> Importance:
        """Return a column's importance from the outputs of the pairs, `shuffled` [pairs] or [pairs, classes].

        The interval is that of a delete-a-group jackknife (Wolter, 2007, "Introduction to Variance Estimation",
        chapter 4); of one block alone it has no width.
        """
        actual = self.actual[self.by.rows]
        value = self.whole - self.score(actual, shuffled)
        found = []
        for kept, whole in zip(self.kept, self.without, strict=True):
            pairs = kept[self.by.rows]
            found.append(whole - self.score(actual[pairs], shuffled[pairs]))
        left_out = np.array(found)
        # A block without which the metric is not defined says nothing about its influence.
        left_out = np.where(np.isnan(left_out), value, left_out)
        if math.isnan(value) or not len(left_out):
            return Importance(value, value, value)
        influence = (left_out.mean() - left_out) * ((len(left_out) - 1) / len(left_out))
        half = jackknife.quantile(influence) * math.sqrt(jackknife.variance(influence))
        return Importance(value, value - half, value + half)


def shortlist(codes: dict[str, Array], outputs: Array, count: int) -> list[str]:
    """Return at most `count` columns, those whose values by themselves tell most about the outputs, in the given order.

    By the correlation ratio (Fisher, 1925): the variance of the outputs between the groups of rows that `codes` [rows],
    numbers from 0, makes of a column. A column that matters only together with another may be missed.
    """
    if len(codes) <= count:
        return [*codes]
    centred = outputs.reshape(len(outputs), -1) - outputs.mean(axis=0)
    between = {}
    for name, code in codes.items():
        rows = np.maximum(1, np.bincount(code))
        between[name] = sum(float((np.bincount(code, each) ** 2 / rows).sum()) for each in centred.T)
    best = {*sorted(between, key=lambda name: -between[name])[:count]}
    return [name for name in codes if name in best]
