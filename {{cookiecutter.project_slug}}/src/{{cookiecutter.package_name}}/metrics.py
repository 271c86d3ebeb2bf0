"""Scores of a prediction and their bootstrap intervals. Names and directions stand in params_sections.METRICS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def score(task: str, actual: Array, outputs: Array) -> dict[str, float]:
    """Return every metric of `task`.

    `actual` holds class indices (int, [rows]) or values (float, [rows]); `outputs` probabilities [rows, classes] or
    values [rows]. For the binary task the positive class is the last. A metric that these rows do not define (ROC-AUC
    of one class) is NaN.
    """
    if task == "regression":
        return _regression(actual, outputs)
    if task == "multiclass":
        return _multiclass(actual, outputs)
    return _binary(actual, outputs)


def bootstrap(
    task: str,
    actual: Array,
    outputs: Array,
    resamples: int,
    seed: int,
    on_resample: Callable[[], object] = lambda: None,
) -> dict[str, dict[str, float]]:
    """Return value, low and high of each metric: the percentile bootstrap's 95 % interval (Efron, 1979) over rows.

    Resamples in which a metric is not defined are left out of its interval. `on_resample` is called after each.
    """
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        rows = rng.integers(0, len(actual), len(actual))
        for name, value in score(task, actual[rows], outputs[rows]).items():
            drawn.setdefault(name, []).append(value)
        on_resample()
    intervals = {}
    for name, value in score(task, actual, outputs).items():
        defined = [draw for draw in drawn[name] if not np.isnan(draw)] or [value]
        low, high = np.quantile(defined, [0.025, 0.975])
        intervals[name] = {"value": value, "low": float(low), "high": float(high)}
    return intervals


def confusion(actual: Array, outputs: Array) -> list[list[int]]:
    """Return counts [actual class][predicted class]."""
    classes = outputs.shape[1]
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (actual, outputs.argmax(axis=1)), 1)
    return counts.tolist()


def roc_curve(positive: Array, scores: Array) -> tuple[Array, Array]:
    """Return false and true positive rates at every threshold, from (0, 0) to (1, 1); ties move both at once."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    true = np.cumsum(positive[order])[last_of_tie]
    false = np.cumsum(1 - positive[order])[last_of_tie]
    return np.append(0.0, false / max(1, false[-1])), np.append(0.0, true / max(1, true[-1]))


def _binary(actual: Array, outputs: Array) -> dict[str, float]:
    scores, predicted = outputs[:, -1], outputs.argmax(axis=1)
    true = int(((predicted == 1) & (actual == 1)).sum())
    wrong = int((predicted != actual).sum())
    return {
        "roc_auc": _roc_auc(actual, scores),
        "pr_auc": _average_precision(actual, scores),
        "f1": 2 * true / (2 * true + wrong) if true + wrong else float("nan"),
        "accuracy": float((predicted == actual).mean()),
        "brier": float(((scores - actual) ** 2).mean()),
    }


def _roc_auc(positive: Array, scores: Array) -> float:
    if positive.min() == positive.max():
        return float("nan")
    false, true = roc_curve(positive, scores)
    return float(np.trapezoid(true, false))


def _average_precision(positive: Array, scores: Array) -> float:
    """Area under precision and recall as a step function, the definition of sklearn's average_precision_score."""
    if not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    true = np.cumsum(positive[order])
    precision = (true / np.arange(1, len(true) + 1))[last_of_tie]
    recall = (true / true[-1])[last_of_tie]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def _multiclass(actual: Array, outputs: Array) -> dict[str, float]:
    predicted = outputs.argmax(axis=1)
    classes = outputs.shape[1]
    true = np.bincount(actual[predicted == actual], minlength=classes)
    named = np.bincount(predicted, minlength=classes) + np.bincount(actual, minlength=classes)
    present = named > 0  # a class that is neither actual nor predicted has no F1
    likelihood = outputs[np.arange(len(actual)), actual].clip(1e-15, 1)
    return {
        "macro_f1": float((2 * true[present] / named[present]).mean()),
        "accuracy": float((predicted == actual).mean()),
        "log_loss": float(-np.log(likelihood).mean()),
    }


def _regression(actual: Array, outputs: Array) -> dict[str, float]:
    error = outputs - actual
    spread = float(((actual - actual.mean()) ** 2).sum())
    return {
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(np.abs(error).mean()),
        "r2": 1 - float((error**2).sum()) / spread if spread else float("nan"),
    }
