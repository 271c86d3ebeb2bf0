"""How far two models' answers to the same rows differ: decisions, sizes of change, distributions.

A change of a row has a size. Of classes it is the total variation distance between the two models' probabilities, from
0 to 1, for two classes the difference of the positive one's; of numbers it is the difference in standard deviations of
the target. A decision has changed where the class is another one, or the number differs by more than TOLERANCE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops.core.sections import Evaluation
from gitops.gate.opponents import Predictions
from gitops.replay.where import kolmogorov_smirnov
from gitops.statistics import intervals
from gitops.statistics.intervals import Interval

Array = NDArray[Any]
Schema = dict[str, Any]

#: Standard deviations of the target by which a number differs that counts as another decision: half of what is called a
#: small effect (Cohen, 1988, "Statistical Power Analysis for the Behavioral Sciences", section 2.2).
TOLERANCE = 0.1

#: Quantiles of the size of a change, and bins of the histogram.
QUANTILES, BINS = (0.5, 0.9, 0.99), 20

#: Standard deviations beyond which changes share the histogram's last bin.
FAR = 2.0


@dataclass(frozen=True)
class Mean:
    """The mean of a number that each row has, as a metric whose interval is wanted; or how often it is 1."""

    fraction_of: Any = None

    def score(self, actual: Array, outputs: Array, predicted: Array) -> float:
        return float(outputs.mean())


@dataclass(frozen=True)
class Changes:
    """`size` and `shift`, with its sign where it has one, of each row's change, and whether its decision is another."""

    size: Array
    shift: Array
    changed: Array


def mean(values: Array, groups: Array, bootstrap: Evaluation) -> Interval:
    """Return the mean of `values` [rows] with its 95 % interval by `groups`; of a bool array the fraction that is true.

    Raises ProjectError as intervals.of_metrics does.
    """
    fraction = values.dtype == bool
    numbers = values.astype("float64")
    rows = (values.astype("int64") if fraction else np.zeros(len(values), "int64"), numbers, numbers)
    metric = Mean("rows" if fraction else None)
    return intervals.of_metrics({"mean": metric}, rows, groups, bootstrap.bootstrap, bootstrap.seed)["mean"]


def between(old: Predictions, new: Predictions, schemas: tuple[Schema, Schema], deviation: float) -> Changes:
    """Return the changes from `old` predictions to `new`, of models with the `schemas`, in that order.

    `deviation` is the target's standard deviation where it is a number.
    """
    before, after = (schema["target"]["classes"] for schema in schemas)
    if not after:
        shift = (new.outputs - old.outputs) / (deviation or 1.0)
        return Changes(np.abs(shift), shift, np.abs(shift) > TOLERANCE)
    names = [*before, *(name for name in after if name not in before)]
    first, second = _aligned(old.outputs, before, names), _aligned(new.outputs, after, names)
    size = np.abs(second - first).sum(axis=1) / 2
    shift = second[:, len(before) - 1] - first[:, len(before) - 1] if len(names) == 2 else size
    changed = decisions(old, before, names) != decisions(new, after, names)
    return Changes(size, shift, changed)


def _aligned(outputs: Array, classes: list[str], names: list[str]) -> Array:
    """Return probabilities in the order of `names`, 0 for a class that the model does not know."""
    found = np.zeros((len(outputs), len(names)))
    found[:, [names.index(name) for name in classes]] = outputs
    return found


def decisions(its: Predictions, classes: list[str], names: list[str]) -> Array:
    """Return the predicted classes as places in `names`, [rows]."""
    return np.array([names.index(name) for name in classes])[its.predicted]


def transitions(old: Predictions, new: Predictions, schemas: tuple[Schema, Schema]) -> list[dict[str, Any]]:
    """Return how many rows went from which class to which, the most frequent change first; unchanged ones too."""
    before, after = (schema["target"]["classes"] for schema in schemas)
    pairs, counts = np.unique(np.stack([old.predicted, new.predicted]), axis=1, return_counts=True)
    found = [
        {"production": before[start], "candidate": after[end], "rows": int(count)}
        for start, end, count in zip(*pairs, counts, strict=True)
    ]
    return sorted(found, key=lambda each: (each["production"] == each["candidate"], -each["rows"]))


def sizes(changes: Changes) -> dict[str, Any]:
    """Return quantiles of the size of the changes, the largest, and a histogram of the shifts."""
    quantiles = np.quantile(changes.size, QUANTILES)
    edge = min(FAR, float(np.abs(changes.shift).max())) or 1.0
    low = -edge if changes.shift.min() < 0 else 0.0
    counts, edges = np.histogram(changes.shift.clip(low, edge), BINS, (low, edge))
    return {
        "quantiles": {f"{level:g}": float(size) for level, size in zip(QUANTILES, quantiles, strict=True)},
        "largest": float(changes.size.max()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def drift(old: Predictions, new: Predictions, schemas: tuple[Schema, Schema]) -> float:
    """Return how far the distributions of the two models' answers are apart, 0 to 1, as the monitor measures drift.

    Of numbers, and of each class's probability, the Kolmogorov-Smirnov statistic; the largest of the classes.
    """
    before, after = (schema["target"]["classes"] for schema in schemas)
    if not after:
        return kolmogorov_smirnov(old.outputs, new.outputs)
    shared = [(before.index(name), after.index(name)) for name in after if name in before]
    return max((kolmogorov_smirnov(old.outputs[:, a], new.outputs[:, b]) for a, b in shared), default=1.0)


def in_order(its: Predictions, classes: list[str], order: list[str]) -> Predictions | None:
    """Return predictions with their `classes` in another order; None where these are not the same classes."""
    if {*classes} != {*order}:
        return None
    if not order:
        return its
    return Predictions(_aligned(its.outputs, classes, order), decisions(its, classes, order))
