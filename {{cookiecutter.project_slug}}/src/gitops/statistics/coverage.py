"""How often the intervals hold the true value, as it was measured, for rows like those at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from gitops.statistics.jackknife import LARGE
from gitops.statistics.measured import MEASURED
from gitops.statistics.resampling import Array, Clusters

#: Coverage in percent of a 95 % interval that does as it says, from and to.
GOOD = (93, 97)

#: Rows or groups below which nothing was measured.
LEAST = 20

#: Root mean square of the errors to their mean absolute value: 1.25 for normal, 1.7 for log-normal errors;
#: of 100 rows with normal errors one in 200 has more than this.
HEAVY_TAILED = 1.35

Errors = Literal["normal", "log-normal"]


@dataclass(frozen=True)
class Conditions:
    """What the coverage depends on. `errors` is None for classes, `rarest`, the rows of the rarest class, for values.

    Groups have several rows each, or one.
    """

    task: str
    errors: Errors | None
    rows: int
    groups: int
    rarest: int | None


@dataclass(frozen=True)
class Cell:
    """The coverage of each metric under some conditions, as fraction of the repetitions."""

    conditions: Conditions
    repetitions: int
    coverage: dict[str, float]


def conditions(task: str, actual: Array, outputs: Array, groups: Array) -> Conditions:
    """Return the conditions of rows; `actual`, `outputs` and `groups` as in intervals.py."""
    count = len(Clusters(groups))
    if task != "regression":
        return Conditions(task, None, len(actual), count, int(np.unique(actual, return_counts=True)[1].min()))
    errors = np.abs(actual - outputs)
    heavy = math.sqrt((errors**2).mean()) > HEAVY_TAILED * errors.mean()
    return Conditions(task, "log-normal" if heavy else "normal", len(actual), count, None)


def measured(found: Conditions) -> dict[str, float]:
    """Return the coverage of each metric that was measured, under the conditions most like these; else nothing.

    Nearest in the logarithms of rows, groups and rows of the rarest class; intervals without resamples, which large
    samples have, are measured by themselves.
    """
    alike = [cell for cell in cells() if _method(cell.conditions) == _method(found)]
    if not alike or found.groups < LEAST:
        return {}
    return min(alike, key=lambda cell: _distance(cell.conditions, found)).coverage


def good(coverage: float) -> bool:
    """Tell whether a coverage, as a fraction, is that of an interval that does as it says."""
    return GOOD[0] <= round(100 * coverage) <= GOOD[1]


def _method(its: Conditions) -> tuple[str, Errors | None, bool]:
    return its.task, its.errors, its.rows >= LARGE


def _distance(one: Conditions, other: Conditions) -> float:
    pairs = [(one.rows, other.rows), (one.groups, other.groups), (one.rarest or 1, other.rarest or 1)]
    return math.hypot(*(math.log(first / second) for first, second in pairs))


@cache
def cells() -> list[Cell]:
    """Return what was measured."""
    return parse(MEASURED)


def parse(table: str) -> list[Cell]:
    """Return the cells of lines as in measured.py."""
    found = []
    for line in table.split("\n"):
        if line:
            task, errors, rows, groups, rarest, repetitions, *coverage = line.split()
            pairs = (pair.split("=") for pair in coverage)
            kind: Errors | None = None if errors == "-" else "normal" if errors == "normal" else "log-normal"
            conditions = Conditions(task, kind, int(rows), int(groups), None if rarest == "-" else int(rarest))
            found.append(Cell(conditions, int(repetitions), {name: float(value) for name, value in pairs}))
    return found
