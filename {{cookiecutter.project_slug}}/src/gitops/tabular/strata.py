"""Draw rows at random so that each split has the target's distribution, as far as groups of rows allow."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gitops.core.sections import Data
from gitops.tabular import groups
from gitops.tabular.chronological import Codes
from gitops.tabular.groups import Numbers

#: A class with fewer rows than this cannot be in all three splits; such classes are spread as if they were one.
RARE = 5

#: Quantile bins by which a numeric target is stratified.
BINS = 10

#: The stratum of rare classes, by which it is sorted among the classes.
TOGETHER = "\0rare"


def of(target: NDArray[Any], classes: list[str], data: Data) -> NDArray[Any]:
    """Return the stratum of each row [rows]: whole numbers in the order in which the strata draw."""
    if data.task == "regression":
        bins = min(BINS, max(1, len(target) // RARE))
        strata = np.zeros(len(target), np.int8)
        if bins > 1:  # of each row's rank; of equal numbers the first row's is lower
            ranks = np.argsort(target, kind="stable")
            strata[ranks] = pd.qcut(np.arange(1.0, len(target) + 1), bins, labels=False)
        return strata
    rare = np.bincount(target, minlength=len(classes)) < RARE
    names = [TOGETHER if few else name for name, few in zip(classes, rare, strict=True)]
    places = {name: place for place, name in enumerate(sorted({*names}))}
    found: NDArray[Any] = np.array([places[name] for name in names], np.min_scalar_type(len(places)))[target]
    return found


def order(numbers: Numbers, strata: NDArray[Any], rng: np.random.Generator) -> Numbers:
    """Order rows so that any cut of the order holds each stratum in proportion, groups unbroken.

    Each group takes the stratum of its first row. Within a stratum the groups are shuffled and spread evenly over
    [0, 1): a group before which m of the stratum's n rows come stands at (m + u) / n, with one random u for the
    stratum. The numbers of groups grow with their first rows.
    """
    first = np.flatnonzero(groups.first_rows(numbers) == np.arange(len(numbers)))
    rows = np.bincount(numbers)[numbers[first]]
    shuffled = rng.choice(len(first), size=len(first), replace=False)
    stratum = strata[first[shuffled]]
    by_stratum = np.argsort(stratum, kind="stable")
    shuffled, stratum = shuffled[by_stratum], stratum[by_stratum]
    del by_stratum
    place = np.empty(len(first))
    for start, stop in pairwise([*np.flatnonzero(np.append(True, stratum[1:] != stratum[:-1])), len(stratum)]):
        some = shuffled[start:stop]
        before = np.cumsum(rows[some])
        total = before[-1]
        before -= rows[some]
        place[some] = (before + rng.random()) / total
    del shuffled, stratum, some, before
    if len(first) == len(numbers):
        return np.argsort(place, kind="stable")
    of_group = np.empty(int(numbers.max()) + 1)
    of_group[numbers[first]] = place
    return np.lexsort((numbers, of_group[numbers]))


def cut(ordered: Numbers, data: Data, offset: float, share: float) -> Codes:
    """Cut rows, given the group of each in their order, into splits at boundaries between groups.

    `offset`: fraction of the rows by which the order is rotated first. `share`: by how much the fractions of the
    validation and test split are larger than in the table.
    """
    start = np.arange(len(ordered))
    start[1:][ordered[1:] == ordered[:-1]] = 0
    np.maximum.accumulate(start, out=start)  # where each row's group begins
    fraction = start / len(ordered)
    fraction = (fraction + offset) % 1 if offset else fraction
    fraction += 1e-9
    bounds = [1 - (data.val_size + data.test_size) * share, 1 - data.test_size * share]
    return np.searchsorted(bounds, fraction).astype(np.int8)
