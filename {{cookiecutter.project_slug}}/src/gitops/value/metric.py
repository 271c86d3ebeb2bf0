"""The metric `expected_value`: what the model's decisions are worth a month, by the section `value` of params.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from gitops.core.value import Value
from gitops.statistics import bounded
from gitops.value import worth
from gitops.value.worth import Array


class ExpectedValue:
    """A metric as those of the project's metrics.py, with an interval of its own where decisions have known amounts.

    Raises ProjectError where `value.answers` is for other classes than `classes`, which are in the schema's order.
    """

    better: Literal["higher", "lower"] = "higher"
    fraction_of: None = None

    def __init__(self, value: Value, classes: Sequence[str]) -> None:
        self._value, self._classes = value, classes
        self._range = worth.range_of(value, classes)

    def score(self, actual: Array, outputs: Array, predicted: Array) -> float:
        """Return the expected value a month, in `value.unit`; arrays as in the project's metrics.py."""
        return worth.monthly(self._value, float(worth.of_rows(self._value, actual, predicted, self._classes).mean()))

    def interval(
        self, rows: tuple[Array, Array, Array], groups: Array, count: int, seed: int
    ) -> tuple[float, float] | None:
        """Return the 95 % interval (statistics/bounded.py); None for regression, whose errors have no bound.

        `rows` are the arrays of `score`, `groups` [rows] the number of each row's group.
        """
        if self._range is None:
            return None
        earned = worth.of_rows(self._value, rows[0], rows[2], self._classes)
        low, high = bounded.interval(earned, self._range, groups, count, seed)
        return worth.monthly(self._value, low), worth.monthly(self._value, high)
