"""What each decision earns, in the unit of the section `value` of params.yaml, and what that makes a month."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops.core.artifacts import ProjectError
from gitops.core.value import Value

Array = NDArray[Any]


def of_rows(value: Value, actual: Array, predicted: Array, classes: Sequence[str]) -> Array:
    """Return what the decision on each row earns, float64 [rows]; costs are below 0.

    `actual` and `predicted` hold indices into `classes` (int, [rows]), or values where there are no classes (float,
    [rows]). Raises ProjectError as `matrix` does.
    """
    if value.error is None:
        return np.asarray(matrix(value, classes)[actual, predicted])
    error = np.asarray(predicted, dtype=np.float64) - actual
    return np.where(error > 0, -value.error.over * error, value.error.under * error)


def matrix(value: Value, classes: Sequence[str]) -> Array:
    """Return what one decision earns, float64 [actual class, answer], in the order of `classes`.

    Raises ProjectError where `value.answers` is for other classes.
    """
    answers = value.answers or {}
    if {*value.classes} != {*classes}:
        raise ProjectError(
            f"value.answers is for {', '.join(value.classes) or 'no class'}, and the target's classes are "
            f"{', '.join(classes)}: give an amount for each actual class and each answer, or set value to null"
        )
    return np.array([[answers[actual][answer] for answer in classes] for actual in classes], dtype=np.float64)


def monthly(value: Value, mean: float) -> float:
    """Return what the model is worth in a month whose decisions earn `mean` on average: less what running it costs."""
    return value.decisions * mean - value.running_cost


def range_of(
    value: Value, classes: Sequence[str], answers: Collection[int] | None = None
) -> tuple[float, float] | None:
    """Return the least and the most that one decision can earn; None for regression, where errors have no bound.

    `answers`: the only classes that are ever answered, as indices.
    """
    if value.error is not None:
        return None
    amounts = matrix(value, classes)[:, sorted({*(range(len(classes)) if answers is None else answers)})]
    return float(amounts.min()), float(amounts.max())


def range_of_gain(value: Value, classes: Sequence[str], answers: Collection[int]) -> tuple[float, float] | None:
    """Return the least and the most that any answer can earn beyond one of `answers`; None for regression."""
    if value.error is not None:
        return None
    amounts = matrix(value, classes)
    gains = amounts[:, :, None] - amounts[:, None, sorted({*answers})]
    return float(gains.min()), float(gains.max())
