"""The standard error of any metric without resamples, from the influence of blocks of groups on it.

A bootstrap scores each of thousands of resamples, each as large as the test split: of a million rows that takes many
minutes. From LARGE rows on a metric is instead scored on each of many blocks alone, which are no more rows in all than
there are (the random groups of Wolter, 2007, "Introduction to Variance Estimation", chapter 2), or, where a block alone
says too little or something else, without each block (the delete-a-group jackknife; ibid., chapter 4). Groups are dealt
to the blocks at random, so that the order of the rows does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import stdtrit

from gitops.statistics.resampling import Array, Clusters

#: Rows from which intervals and bounds are analytic. Of so many the bootstrap of the binary metrics takes 15 seconds,
#: of a million twelve minutes, and without it 1 to 25 seconds; the bounds differ by a few percent of the interval's
#: width. It is the rows that cost; that groups may be few is what the t distribution is for.
LARGE = 50_000

#: Blocks that are scored alone, at least and at most: so few values leave a standard error uncertain by 3 % and 2 %.
BLOCKS, MOST = 500, 1000

#: What a block that is scored alone has at least: rows, rows of the rarest class, groups.
ROWS, RAREST, GROUPS = 250, 100, 20

#: Blocks that are left out in turn: as many as score this number of rows in all, within these bounds.
SCORED, FEWEST = 50_000_000, 200

#: A metric whose mean over the blocks differs from its value by more than this part of their standard deviation depends
#: on the number of rows (a sum, a maximum), or is far from linear in them: its blocks are left out in turn.
BIASED = 0.25

#: Returns scores of the rows with these numbers (int64).
Scores = Callable[[Array], Sequence[float]]


def influences(score: Scores, classes: Array | None, groups: Array, seed: int) -> Array:
    """Return the influence of each block on each score, [blocks, scores], 0 in the mean over the blocks.

    The sum of a score's squares is its variance but for the factor `blocks / (blocks - 1)`. `classes` [rows] are the
    rows' class indices, None where no score hangs on the rarest one; `groups` [rows] is the number of each row's group.
    Of one group alone, one row of zeros.
    """
    clusters, rng = Clusters(groups), np.random.default_rng(seed)
    shuffled = rng.permutation(len(clusters))[clusters.codes]
    whole = np.array(score(np.arange(len(groups))))
    rarest = len(groups) if classes is None else int(np.unique(classes, return_counts=True)[1].min())
    alone = min(MOST, len(groups) // ROWS, rarest // RAREST, len(clusters) // GROUPS)
    if alone >= BLOCKS:
        found = _of_blocks_alone(score, whole, shuffled * alone // len(clusters))
        if found is not None:
            return found
    blocks = min(len(clusters), max(FEWEST, min(BLOCKS, SCORED // len(groups))))
    if blocks == 1:
        return np.zeros((1, len(whole)))
    block = shuffled * blocks // len(clusters)
    left_out = np.array([score(np.flatnonzero(block != index)) for index in range(blocks)])
    # A block without which a metric is not defined says nothing about its influence.
    left_out = np.where(np.isnan(left_out), whole, left_out)
    return np.asarray((left_out.mean(axis=0) - left_out) * ((blocks - 1) / blocks))


def _of_blocks_alone(score: Scores, whole: Array, block: Array) -> Array | None:
    """Return the influences by the scores of each block alone; None where these say something else than the whole."""
    order = np.argsort(block, kind="stable")
    sizes = np.bincount(block)
    found = np.array([score(np.sort(rows)) for rows in np.split(order, np.cumsum(sizes)[:-1])])
    weights = (sizes / sizes.sum())[:, None]
    mean = (weights * found).sum(axis=0)
    if np.isnan(mean).any() or (np.abs(mean - whole) > BIASED * found.std(axis=0) + 1e-12).any():
        return None
    return np.asarray(weights * (found - mean))


def variance(influence: Array) -> float:
    """Return the variance of a score from the influences of blocks or groups on it."""
    return float((influence**2).sum()) * len(influence) / max(1, len(influence) - 1)


def quantile(influence: Array, level: float = 0.975) -> float:
    """Return the t distribution's quantile with the variance's degrees of freedom (Satterthwaite, 1946).

    They are the number of blocks or groups less one, and fewer where a few have most of the influence.
    """
    blocks, squares = len(influence), float((influence**2).sum())
    if blocks < 2 or squares == 0:
        return 0.0
    kurtosis = blocks * float((influence**4).sum()) / squares**2
    return float(stdtrit(max(1.0, min(blocks - 1, 2 * blocks / max(kurtosis - 1, 1e-9))), level))


def draws(values: Array, influence: Array, groups: int, count: int, seed: int) -> Array:
    """Return `count` draws of scores around `values`, [count, scores], in the place of resamples.

    They are from the multivariate normal distribution with the covariance of the influences. As the bootstrap's, it is
    that of a population with n - 1 in place of n groups, for which differences.py widens bounds.
    """
    blocks = len(influence)
    factor = math.sqrt(blocks / max(1, blocks - 1) * (groups - 1) / groups)
    # A sum of the influences with independent normal weights has their covariance, also where this is singular.
    weights = np.random.default_rng(seed).normal(size=(count, blocks))
    return np.asarray(values + factor * weights @ influence)
