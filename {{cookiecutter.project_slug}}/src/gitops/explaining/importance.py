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

#: Blocks of groups that are left out in turn for an interval, at most.
BLOCKS = 50


@dataclass(frozen=True)
class Pairs:
    """Which rows are scored with whose value of a column: `rows` and `donors`, int64 [pairs]."""

    rows: Array
    donors: Array


@dataclass(frozen=True)
class Importance:
    """By how much the metric is worse, and the 95 % interval of that; NaN where the rows do not define the metric."""

    value: float
    low: float
    high: float


def pairs(groups: Array, repeats: int, rng: np.random.Generator) -> Pairs:
    """Return `repeats` shuffles of rows, in each of which a row gives its value once, to a row of another group.

    A group with more than half of the rows gives some to itself. `groups` [rows] is the number of each row's group.
    """
    clusters, count = Clusters(groups), len(groups)
    donors = np.empty((repeats, count), np.int64)
    for shuffled in donors:
        # Whole groups in a random order, and in it the row that is half of all rows away.
        order = np.lexsort((rng.random(count), rng.permutation(len(clusters))[clusters.codes]))
        shuffled[order] = np.roll(order, count // 2)
    return Pairs(np.tile(np.arange(count), repeats), donors.ravel())


class Scorer:
    """Scores columns of the same rows: `actual` and `outputs` of the rows as they are, with `groups` [rows]."""

    def __init__(self, score: Score, actual: Array, outputs: Array, groups: Array, rng: np.random.Generator) -> None:
        """Score the rows without each block of groups in turn, which is the same for all columns."""
        self.score, self.actual = score, actual
        clusters = Clusters(groups)
        blocks = min(BLOCKS, len(clusters))
        self.block = rng.permutation(len(clusters))[clusters.codes] * blocks // len(clusters)
        self.left_out = [self.block != index for index in range(blocks)] if blocks > 1 else []
        self.whole = score(actual, outputs)
        self.without = [score(actual[kept], outputs[kept]) for kept in self.left_out]

    def importance(self, shuffled: Array, by: Pairs) -> Importance:
        """Return a column's importance from the outputs of the pairs, `shuffled` [pairs] or [pairs, classes].

        The interval is that of a delete-a-group jackknife (Wolter, 2007, chapter 4) for rows and for donors: without a
        block, neither its rows are scored nor are rows with its values.
        """
        actual = self.actual[by.rows]
        value = self.whole - self.score(actual, shuffled)
        found = []
        for kept, whole in zip(self.left_out, self.without, strict=True):
            both = kept[by.rows] & kept[by.donors]
            found.append(whole - self.score(actual[both], shuffled[both]))
        left_out = np.array(found)
        # A block without which the metric is not defined says nothing about its influence.
        left_out = np.where(np.isnan(left_out), value, left_out)
        if math.isnan(value) or len(left_out) < 2:
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
