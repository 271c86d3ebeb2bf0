"""The expected value a month of any predictions, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from gitops.core.sections import Evaluation
from gitops.core.value import EXPECTED_VALUE, Value
from gitops.statistics import intervals
from gitops.value.metric import ExpectedValue
from gitops.value.worth import Array


def score(
    value: Value, classes: Sequence[str], rows: tuple[Array, Array, Array], groups: Array, bootstrap: Evaluation
) -> dict[str, float]:
    """Return `value` and its 95 % interval, `low` to `high`.

    `rows` holds actual values, outputs and predictions as the project's metrics.py takes them, `groups` [rows] the
    number of each row's group. Raises ProjectError as ExpectedValue and intervals.of_metrics do.
    """
    metrics = {EXPECTED_VALUE: ExpectedValue(value, classes)}
    found = intervals.of_metrics(metrics, rows, groups, bootstrap.bootstrap, bootstrap.seed)[EXPECTED_VALUE]
    return {"value": found.value, "low": found.low, "high": found.high}
