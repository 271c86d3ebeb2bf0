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

    `groups` [rows] holds the number of each row's group, any integers.
    """

    def __init__(self, groups: Array) -> None:
        """Sort the rows by group once, so that each draw costs no more than its rows."""
        self.order = np.argsort(groups, kind="stable")
        _, self.starts, self.sizes = np.unique(groups[self.order], return_index=True, return_counts=True)

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.sizes)

    def draw(self, rng: np.random.Generator) -> Array:
        """Return the rows (int64) of as many groups as there are, drawn with replacement.

        Their number differs from draw to draw where the groups' sizes differ.
        """
        return self.rows(rng.integers(0, len(self), len(self)))

    def rows(self, drawn: Array) -> Array:
        """Return the rows of the groups at the positions `drawn`, group by group."""
        if len(self) == len(self.order):
            return self.order[drawn]
        sizes = self.sizes[drawn]
        # Position in `order` of each row: where its group starts, and how many rows of the group come before it.
        ends = np.cumsum(sizes)
        return self.order[np.repeat(self.starts[drawn] - ends + sizes, sizes) + np.arange(ends[-1])]


def draw_rows(groups: Array, rng: np.random.Generator) -> Array:
    """Return the rows (int64) of one resample of groups; `groups` [rows] as in Clusters.

    Many resamples of the same rows are cheaper with one Clusters.
    """
    return Clusters(groups).draw(rng)


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
    defined = draws[~np.isnan(draws)]
    needed = math.ceil(round(1 / min(level, 1 - level), 6)) - 1
    if len(defined) < needed:
        total = math.ceil(needed * len(draws) / len(defined)) if len(defined) else needed
        missing = (
            f", of which {len(draws) - len(defined)} do not define the metric" if len(defined) < len(draws) else ""
        )
        raise ProjectError(
            f"{setting} gives {len(draws)} resamples{missing}: a bound at {min(level, 1 - level):.3g} needs {total}; "
            f"set {setting} to {total} or more"
        )
    return float(np.quantile(defined, level, method="weibull"))
