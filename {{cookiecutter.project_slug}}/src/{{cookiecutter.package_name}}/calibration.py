"""What follows the fit of a classifier: probabilities that hold, and the probability from which a row is positive.

Both are chosen on the validation split, as the best epoch is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from gitops.core.artifacts import ProjectError
from gitops.rendering.curves import reliability

from .metrics import Array, Metrics

#: A probability that the model answers as 0 counts as this much, which has a logarithm.
SMALLEST = 1e-30

#: Temperatures between which the best one is looked for.
COLDEST, HOTTEST = 0.1, 10.0

#: About how many thresholds are tried; a validation split of more rows has that many quantiles.
THRESHOLDS = 400

#: Scores that differ by no more than this are equal.
ROUNDING = 1e-12


def class_weights(target: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the weight of each class in the loss, so that all have the same sum over the rows and the mean row has 1.

    `target` holds class indices [rows]; one that never occurs is weighted as if it did once.
    """
    counts = torch.bincount(target, minlength=classes).clamp(min=1)
    return len(target) / (classes * counts)


def temper(outputs: Array, temperature: float) -> Array:
    """Return probabilities [rows, classes] sharpened by a temperature below 1, or flattened by one above."""
    return np.exp(_log_probabilities(outputs, temperature))


def _log_probabilities(outputs: Array, temperature: float) -> Array:
    found: Array = log_softmax(np.log(outputs.clip(SMALLEST)) / temperature, axis=1)
    return found


def best_temperature(actual: Array, outputs: Array) -> float:
    """Return the temperature that gives the actual classes [rows] the highest likelihood, given `outputs` at 1.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) of the ensemble's answer.
    The temperature's logarithm has a standard normal prior, which a few dozen rows outweigh: without one, rows that are
    all classified rightly would have the model answer with certainty.
    """

    def cost(log_temperature: float) -> float:
        chosen = _log_probabilities(outputs, float(np.exp(log_temperature)))[np.arange(len(actual)), actual]
        return float(log_temperature**2 / 2 - chosen.sum())

    found = minimize_scalar(cost, bounds=(np.log(COLDEST), np.log(HOTTEST)), method="bounded")
    return float(np.exp(found.x))


def report(program: torch.nn.Module, actual: Array, outputs: Array) -> dict[str, float]:
    """Return the temperature in a program, and the expected calibration error of its outputs before it and with it."""
    temperature = float(dict(program.named_buffers()).get("model.temperature", 1.0))
    before = temper(outputs, 1 / temperature)
    errors = {"error_before": calibration_error(actual, before), "error_after": calibration_error(actual, outputs)}
    return {"temperature": temperature} | errors


def calibration_error(actual: Array, outputs: Array) -> float:
    """Return how far predicted probabilities are from observed fractions, in the mean over all rows.

    The expected calibration error with bins of equal mass (Nixon et al., "Measuring Calibration in Deep Learning", CVPR
    workshops 2019), of which the calibration plot shows each.
    """
    predicted, observed, rows = reliability(actual, outputs)
    return float((np.abs(predicted - observed) * rows).sum() / rows.sum())


def choose_threshold(name: str | None, metrics: Metrics, actual: Array, outputs: Array) -> dict[str, Any]:
    """Return the contents of model/decision.json: the best threshold by the metric `name`, and its value there.

    It is the middle of the widest interval of thresholds that score best. Raises ProjectError where the rows do not
    define the metric at any.
    """
    if name is None:
        return {"threshold": 0.5, "metric": None, "value": None}
    metric, positive = metrics[name], outputs[:, -1]

    def value(threshold: float) -> float:
        return metric.score(actual, outputs, (positive >= threshold) * 1)

    tops = _thresholds(actual, positive)
    scores = np.array([value(top) for top in tops]) * (1 if metric.better == "higher" else -1)
    if actual.min() == actual.max() or np.isnan(scores).all():
        raise ProjectError(
            f"the {len(actual)} validation rows do not define {name} (one class only?), by which train.threshold says "
            "that the decision threshold is chosen: raise data.val_size, or set train.threshold to null"
        )
    best = np.flatnonzero(scores >= np.nanmax(scores) - ROUNDING)
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    bottoms = np.append(0.0, tops[:-1])
    low, high = max(((bottoms[run[0]], tops[run[-1]]) for run in runs), key=lambda ends: float(ends[1] - ends[0]))
    # Outputs are float32: with a threshold that is one too, all who compare the two agree, in whatever precision.
    middle = float(np.float32((low + high) / 2))
    threshold = middle if middle > low else float(high)
    return {"threshold": threshold, "metric": name, "value": value(threshold)}


def _thresholds(actual: Array, positive: Array) -> Array:
    """Return thresholds in (0, 1], ascending: all that differ in what they decide, or quantiles of many rows.

    Quantiles of the positive rows are among them: where those are rare, the best threshold lies among the highest
    probabilities.
    """
    found = np.unique(positive[(positive > 0) & (positive < 1)])
    if len(found) > THRESHOLDS:
        levels = np.linspace(0, 1, THRESHOLDS // 2)
        parts = [np.quantile(part, levels, method="nearest") for part in (found, positive[actual == 1]) if len(part)]
        found = np.intersect1d(np.concatenate(parts), found)
    return np.append(found, 1.0)
