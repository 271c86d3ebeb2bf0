"""What the changed answers are worth where nobody knows yet which were right: what each model expects of both.

A model's calibrated probabilities say what it expects of any answer: the worth of the answer for each class that may be
the actual one, weighted by the class's probability. A model that predicts a number expects that number. Each is the
model's own belief, in which its own answers are mostly the better ones; so there are two, and the truth may be neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops.core.sections import Evaluation
from gitops.core.value import Value
from gitops.gate.opponents import Predictions
from gitops.replay.changes import mean
from gitops.value import worth

Array = NDArray[Any]


def gains(
    value: Value, old: Predictions, new: Predictions, classes: list[str], groups: Array, bootstrap: Evaluation
) -> dict[str, Any]:
    """Return what the candidate's (`new`) answers in place of production's (`old`) earn a month, as either expects.

    `value` is the section of params.yaml. Both models have the `classes`, in this order; empty for regression. Each of
    `candidate` and `production` is the belief of that model: `value` with its 95 % interval `low` to `high`, and
    `at_stake`, the sum of all differences without their signs.
    """
    found: dict[str, Any] = {"unit": value.unit, "decisions": value.decisions}
    for name, belief in (("candidate", new.outputs), ("production", old.outputs)):
        difference = _expected(value, belief, new.predicted, classes) - _expected(value, belief, old.predicted, classes)
        gain = mean(difference, groups, bootstrap)
        monthly = {key: getattr(gain, key) * value.decisions for key in ("value", "low", "high")}
        found[name] = monthly | {"at_stake": float(np.abs(difference).mean()) * value.decisions}
    return found


def _expected(value: Value, belief: Array, predicted: Array, classes: list[str]) -> Array:
    """Return what each answer is expected to earn, [rows], by probabilities [rows, classes] or numbers [rows]."""
    if not classes:
        return worth.of_rows(value, belief, predicted, classes)
    amounts = worth.matrix(value, classes)  # by the actual class, then by the answer
    return np.asarray((belief * amounts[:, predicted].T).sum(axis=1))
