"""The value curve and the decision curve of a binary model, as data of plots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gitops.core.value import Value
from gitops.value import today, worth
from gitops.value.worth import Array

#: Points of a curve at equal distances, and at quantiles of the rows.
POINTS = 101


def tables(
    value: Value | None, schema: dict[str, Any], actual: Array, outputs: Array, frame: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return the plots by name: `value` and `decision_curve` for a binary model, and none for others.

    `actual` [rows] are class indices, `outputs` [rows, classes] probabilities; `frame` has the column of today's rule.
    """
    if value is None or schema["task"] != "binary":
        return {}
    without = today.answers(value, frame, schema)
    positive, threshold = outputs[:, -1], schema["target"].get("threshold", 0.5)
    return {
        "value": value_curve(value, schema["target"]["classes"], actual, positive, without, threshold),
        "decision_curve": decision_curve(actual, positive),
    }


def value_curve(
    value: Value, classes: list[str], actual: Array, positive: Array, without: Array, threshold: float
) -> pd.DataFrame:
    """Return what the model is worth a month by the threshold from which a row is positive, on all of these rows.

    `all` and `none`: every row is answered as positive, or none is; `today`: the answers `without` a model, class
    indices [rows]. What running the model costs is in `model` alone. The thresholds are from 0 to 1, with quantiles of
    the rows' probabilities and the model's own `threshold` among them.
    """
    levels = np.linspace(0, 1, POINTS)
    thresholds = np.unique(np.concatenate([levels, np.quantile(positive, levels), [threshold]]))
    ranked = np.argsort(positive, kind="stable")
    of_none, of_all = (worth.of_rows(value, actual, np.full(len(actual), index), classes) for index in (0, 1))
    # Rows below a threshold are answered as negative, those from it on as positive.
    below = np.searchsorted(positive[ranked], thresholds, side="left")
    sums = [np.append(0.0, np.cumsum(earned[ranked])) for earned in (of_none, of_all)]
    means = (sums[0][below] + sums[1][-1] - sums[1][below]) / len(actual)
    fixed = {"all": of_all, "none": of_none, "today": worth.of_rows(value, actual, without, classes)}
    curve = {"threshold": thresholds, "model": [worth.monthly(value, mean) for mean in means]}
    return pd.DataFrame(curve | {name: value.decisions * earned.mean() for name, earned in fixed.items()})


def decision_curve(actual: Array, positive: Array) -> pd.DataFrame:
    """Return the net benefit of the model by the threshold probability, of treating all and of treating none.

    A row is treated where its probability of being positive is at least p; the net benefit is

        true positives / rows - false positives / rows * p / (1 - p)

    (Vickers and Elkin, "Decision curve analysis", Medical Decision Making, 2006): p / (1 - p) is what a needless
    treatment costs beside what a right one gains, so that p stands for the costs one has in mind, in place of amounts.
    """
    levels = np.linspace(0, 1, POINTS)[1:-1]
    odds = levels / (1 - levels)
    prevalence = float(actual.mean())
    treated = {index: np.sort(positive[actual == index]) for index in (0, 1)}
    true, false = (
        (len(its) - np.searchsorted(its, levels, side="left")) / len(actual) for its in (treated[1], treated[0])
    )
    curve = {
        "probability": levels,
        "model": true - false * odds,
        "all": prevalence - (1 - prevalence) * odds,
        "none": 0.0,
    }
    return pd.DataFrame(curve)
