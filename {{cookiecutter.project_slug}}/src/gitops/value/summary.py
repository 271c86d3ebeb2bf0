"""What metrics.json says of value: the model's a month, that of today's way, and the difference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gitops.core.sections import Evaluation
from gitops.core.value import Value
from gitops.statistics import bounded, intervals
from gitops.value import today, worth
from gitops.value.worth import Array


class Mean:
    """The mean of rows, as a metric of which intervals.py makes an interval."""

    fraction_of: None = None

    def score(self, actual: Array, outputs: Array, predicted: Array) -> float:
        """Return the mean of the first array."""
        return float(actual.mean())


def of(
    value: Value,
    schema: dict[str, Any],
    rows: tuple[Array, Array, Array],
    model: Mapping[str, float | None],
    groups: Array,
    bootstrap: Evaluation,
) -> dict[str, Any]:
    """Return `value` of metrics.json, all a month and with 95 % intervals.

    `rows`: the actual values, the model's predictions and today's answers (worth.of_rows, today.answers); `model`: the
    score of `expected_value`, with its interval. What running the model costs is the model's alone.
    """
    actual, predicted, without = rows
    classes = schema["target"]["classes"]
    named = [classes.index(answer) for answer in value.today.answers] if classes else []
    given = named or range(len(classes))
    now = worth.of_rows(value, actual, predicted, classes)
    then = worth.of_rows(value, actual, without, classes)

    def estimate(earned: Array, bounds: tuple[float, float] | None, fixed: float) -> dict[str, float]:
        mean = float(earned.mean())
        if bounds is None:
            its = intervals.of_metrics({"mean": Mean()}, (earned,) * 3, groups, bootstrap.bootstrap, bootstrap.seed)[
                "mean"
            ]
            low, high = its.low, its.high
        else:
            low, high = bounded.interval(earned, bounds, groups, bootstrap.bootstrap, bootstrap.seed)
        estimates = {"value": mean, "low": low, "high": high}
        return {name: value.decisions * its - fixed for name, its in estimates.items()}

    return {
        "unit": value.unit,
        "decisions": value.decisions,
        "running_cost": value.running_cost,
        "model": {name: model[name] for name in ("value", "low", "high")},
        "today": {"name": today.name(value.today)} | estimate(then, worth.range_of(value, classes, given), 0.0),
        "gain": estimate(now - then, worth.range_of_gain(value, classes, given), value.running_cost),
    }
