"""Your metrics: each an entry of METRICS, which the gate, the report, the monitor and tuning know by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gitops.core.value import EXPECTED_VALUE, Value
from gitops.rendering.curves import precision_recall_curve, roc_curve
from gitops.value.metric import ExpectedValue

Array = NDArray[Any]

NAN = float("nan")


@dataclass(frozen=True)
class Metric:
    """`score(actual, outputs, predicted)` is NaN where the rows do not define it, as ROC AUC of rows of one class.

    `actual` holds class indices (int, [rows]) or values (float, [rows]); `outputs` probabilities [rows, classes] or
    values [rows]; `predicted` the classes that `features.decide` makes of these (int, [rows]), or the values again.
    For the binary task the positive class is the last.

    `fraction_of` is for metrics from 0 to 1, and says what decides them (gitops/statistics/fractions.py): their
    intervals are then right with a few rows of these, and where the metric is exactly 0 or 1.
    """

    score: Callable[[Array, Array, Array], float]
    better: Literal["higher", "lower"]
    fraction_of: Literal["pairs", "positives", "rows", "classes"] | None = None


def roc_auc(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the area under the ROC curve of the positive class."""
    if actual.min() == actual.max():
        return NAN
    false, true = roc_curve(actual, outputs[:, -1])
    return float(np.trapezoid(true, false))


def pr_auc(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the average precision: the area under precision and recall as a step function, as in scikit-learn."""
    if not actual.any():
        return NAN
    precision, recall = precision_recall_curve(actual, outputs[:, -1])
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def f1(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the F1 score of the positive class."""
    true = int(((predicted == 1) & (actual == 1)).sum())
    wrong = int((predicted != actual).sum())
    return 2 * true / (2 * true + wrong) if true + wrong else NAN


def macro_f1(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the mean F1 score of the classes; one that is neither actual nor predicted has none."""
    classes = outputs.shape[1]
    true = np.bincount(actual[predicted == actual], minlength=classes)
    named = np.bincount(predicted, minlength=classes) + np.bincount(actual, minlength=classes)
    present = named > 0
    return float((2 * true[present] / named[present]).mean())


def accuracy(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the fraction of rows whose predicted class is right."""
    return float((predicted == actual).mean())


def brier(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the mean squared error of the positive class's probability (Brier, 1950)."""
    return float(((outputs[:, -1] - actual) ** 2).mean())


def log_loss(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the mean negative log-likelihood of the actual class."""
    return float(-np.log(outputs[np.arange(len(actual)), actual].clip(1e-15, 1)).mean())


def rmse(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the root of the mean squared error, in the target's unit."""
    return float(np.sqrt(((outputs - actual) ** 2).mean()))


def mae(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the mean absolute error, in the target's unit."""
    return float(np.abs(outputs - actual).mean())


def r2(actual: Array, outputs: Array, predicted: Array) -> float:
    """Return the coefficient of determination."""
    total = float(((actual - actual.mean()) ** 2).sum())
    return 1 - float(((outputs - actual) ** 2).sum()) / total if total else NAN


#: Metrics by task, in the order in which they are shown.
METRICS: dict[str, dict[str, Metric]] = {
    "binary": {
        "roc_auc": Metric(roc_auc, "higher", "pairs"),
        "pr_auc": Metric(pr_auc, "higher", "positives"),
        "f1": Metric(f1, "higher", "positives"),
        "accuracy": Metric(accuracy, "higher", "rows"),
        "brier": Metric(brier, "lower"),
    },
    "multiclass": {
        "macro_f1": Metric(macro_f1, "higher", "classes"),
        "accuracy": Metric(accuracy, "higher", "rows"),
        "log_loss": Metric(log_loss, "lower"),
    },
    "regression": {
        "rmse": Metric(rmse, "lower"),
        "mae": Metric(mae, "lower"),
        "r2": Metric(r2, "higher"),
    },
}


Metrics = Mapping[str, Metric | ExpectedValue]


def of(task: str, classes: Sequence[str], value: Value | None) -> Metrics:
    """Return the task's metrics by name: METRICS, and `expected_value` where params.yaml has a section `value`.

    `classes` are those of the schema, in its order. Raises ProjectError where the section is for other classes.
    """
    return METRICS[task] | ({EXPECTED_VALUE: ExpectedValue(value, classes)} if value else {})


def score(task: str, actual: Array, outputs: Array, predicted: Array) -> dict[str, float]:
    """Return every metric of METRICS[task] by name; arrays as in Metric."""
    return {name: metric.score(actual, outputs, predicted) for name, metric in METRICS[task].items()}


def confusion(actual: Array, predicted: Array, classes: int) -> list[list[int]]:
    """Return counts [actual class][predicted class] of so many classes."""
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (actual, predicted), 1)
    return counts.tolist()
