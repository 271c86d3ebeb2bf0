"""Curves of a classifier, to draw and to integrate: over its thresholds, and of its probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: Maximum number of equal-count bins of `reliability`.
BINS = 10


def roc_curve(positive: Array, scores: Array) -> tuple[Array, Array]:
    """Return false and true positive rates at every threshold, from (0, 0) to (1, 1); ties move both at once.

    `positive` [rows] is 1 for the positive class and else 0, `scores` [rows] its probability.
    """
    true, false = _counts(positive, scores)
    return np.append(0.0, false / max(1, false[-1])), np.append(0.0, true / max(1, true[-1]))


def precision_recall_curve(positive: Array, scores: Array) -> tuple[Array, Array]:
    """Return precision and recall at every threshold, the highest first; `positive` must hold a 1."""
    true, false = _counts(positive, scores)
    return true / (true + false), true / true[-1]


def reliability(actual: Array, outputs: Array) -> tuple[Array, Array, Array]:
    """Return mean predicted probability, observed fraction and rows of each of at most BINS bins of equal count.

    The probability is that of the positive class, the last, where there are two classes, and of the likeliest class
    where there are more. `actual` holds class indices [rows], `outputs` probabilities [rows, classes].
    """
    if outputs.shape[1] == 2:
        predicted, observed = outputs[:, -1], actual
    else:
        predicted, observed = outputs.max(axis=1), outputs.argmax(axis=1) == actual
    bins = np.array_split(np.argsort(predicted, kind="stable"), min(BINS, len(predicted)))
    means = [[part[rows].mean() for rows in bins] for part in (predicted, observed)]
    return np.array(means[0]), np.array(means[1]), np.array([len(rows) for rows in bins])


def _counts(positive: Array, scores: Array) -> tuple[Array, Array]:
    """Return the true and false positives at each threshold; rows of equal score have one threshold."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    return np.cumsum(positive[order])[last_of_tie], np.cumsum(1 - positive[order])[last_of_tie]
