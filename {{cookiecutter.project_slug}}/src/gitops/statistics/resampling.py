"""Cluster bootstrap: resamples of rows that keep groups whole, and quantiles of what is computed from them.

Rows that share a group depend on each other, so groups are drawn, not rows (Davison and Hinkley, 1997, section 3.8).
Where each row is a group by itself this is the ordinary bootstrap (Efron, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops.core.artifacts import ProjectError

Array = NDArray[Any]


class Clusters:
    """The groups of some rows, from which resamples are drawn.

    `groups` [rows] holds the number of each row's group, any integers. `codes` [rows] numbers the groups 0, 1, ...
    """

    def __init__(self, groups: Array) -> None:
        """Number the groups once, so that each draw costs no more than its rows."""
        numbers, self.codes = np.unique(groups, return_inverse=True)
        self._count = len(numbers)

    def __len__(self) -> int:
        """Return the number of groups."""
        return self._count

    def draw(self, rng: np.random.Generator) -> Array:
        """Return the rows (int64, ascending) of as many groups as there are, drawn with replacement.

        A group that is drawn twice is there twice. The number of rows differs from draw to draw where groups differ in
        size.
        """
        drawn = np.bincount(rng.integers(0, len(self), len(self)), minlength=len(self))
        return np.repeat(np.arange(len(self.codes)), drawn[self.codes])


def resamples(groups: Array, count: int, seed: int) -> Iterator[Array]:
    """Yield the rows of `count` resamples of groups, the same ones for the same seed."""
    clusters, rng = Clusters(groups), np.random.default_rng(seed)
    for _ in range(count):
        yield clusters.draw(rng)


def quantile(draws: Array, level: float, setting: str = "evaluate.bootstrap") -> float:
    """Return the quantile of resampled values [resamples] at `level`, between 0 and 1.

    It is the value at position (n + 1) * level of the n draws in order, between two of them interpolated (Davison and
    Hinkley, 1997, section 5.2). Draws that are NaN, in which a metric is not defined, are left out. Raises ProjectError
    where this position lies beyond the draws, with the number that `setting` needs.
    """
    defined, tail = draws[~np.isnan(draws)], min(level, 1 - level)
    needed = math.ceil(round(1 / tail, 6)) - 1
    if len(defined) < needed:
        undefined = len(draws) - len(defined)
        total = math.ceil(needed * len(draws) / max(1, len(defined)))
        raise ProjectError(
            f"{setting} gives {len(draws)} resamples"
            + (f", of which {undefined} do not define the metric" if undefined else "")
            + f": a bound at {tail:.2g} needs {needed}; set {setting} to {total} or more"
        )
    return float(np.quantile(defined, level, method="weibull"))
