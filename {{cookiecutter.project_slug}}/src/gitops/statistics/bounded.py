"""The interval of a mean whose rows lie between known bounds, which knows of rare values that no row happens to have.

Where one row in a thousand costs as much as all others earn, a test split of a few hundred rows may hold none of them,
and resamples of it can hold none either. The bound of Gaffke ("Three test statistics for a nonparametric one-sided
hypothesis on the mean of a nonnegative variable", Mathematical Methods of Statistics, 2005), as in Phan, Thomas and
Learned-Miller ("Towards Practical Mean Bounds for Small Samples", ICML 2021), adds one row at the worst value there is:
it is a quantile of the mean under weights drawn from the flat Dirichlet distribution. For a fraction it is the bound of
Clopper and Pearson (1934).
"""

from __future__ import annotations

import numpy as np

from gitops.statistics.resampling import Array, Clusters, quantile

#: Weights that are drawn at once, at most.
AT_ONCE = 4_000_000


def interval(values: Array, bounds: tuple[float, float], groups: Array, count: int, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values` [rows], each between the two `bounds`, from `count` draws.

    Weights are drawn for groups (`groups` [rows], any integers), and the one that is added has their mean size. Raises
    ProjectError as `quantile` does.
    """
    if bounds[0] == bounds[1]:
        return bounds
    codes = Clusters(groups).codes
    # Groups that are alike share a weight: the sum of their exponential ones, which has a gamma distribution. A complex
    # number stands for the pair of a group's sum and size, since NumPy finds distinct numbers faster than rows.
    pairs, alike = np.unique(np.bincount(codes, values) + 1j * np.bincount(codes), return_counts=True)
    rng, sums, rows = np.random.default_rng(seed), np.empty(count), np.empty(count)
    for draws in np.array_split(np.arange(count), -(-count * len(pairs) // AT_ONCE)):
        weights = rng.standard_gamma(alike, (len(draws), len(pairs)))
        sums[draws], rows[draws] = weights @ pairs.real, weights @ pairs.imag
    added = rng.exponential(len(values) / alike.sum(), count)
    low, high = (
        quantile((sums + added * bound) / (rows + added), level)
        for bound, level in zip(bounds, (0.025, 0.975), strict=True)
    )
    return low, high
