"""Curves of a binary classifier over its thresholds, to draw and to integrate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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


def _counts(positive: Array, scores: Array) -> tuple[Array, Array]:
    """Return the true and false positives at each threshold; rows of equal score have one threshold."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    return np.cumsum(positive[order])[last_of_tie], np.cumsum(1 - positive[order])[last_of_tie]
