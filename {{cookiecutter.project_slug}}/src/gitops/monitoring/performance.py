"""How well the release's model performs in production, on labelled requests, compared with its test rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from gitops import owner
from gitops.core import artifacts
from gitops.core.figures import number
from gitops.core.params import Params
from gitops.core.value import EXPECTED_VALUE
from gitops.monitoring.critical_values import FALSE_ALARM
from gitops.statistics import intervals, jackknife
from gitops.statistics.resampling import quantile, resamples

Array = NDArray[Any]


def evaluate(settings: Params, context: dict[str, Any]) -> dict[str, Any] | None:
    """Return the primary metric of the labelled rows, or None where no row is labelled.

    `metric`, `rows`, `value` with its 95 % interval `low` to `high`, `recorded` (the release's own value), `drop` (how
    much worse, in the metric's unit), `limit` and `passed`. It fails if the drop is above
    `monitor.max_performance_drop` and significant: resamples of the labelled rows and of the test rows, drawn
    independently, by group, are worse in all but FALSE_ALARM of the cases. With fewer than `monitor.min_rows` labelled
    rows, or where these do not define the metric, `value` and `passed` are None and `reason` says why. Raises
    ProjectError where evaluate.bootstrap gives too few resamples for that.
    """
    schema, name = context["schema"], context["metric"]
    labelled = artifacts.read_parquet(artifacts.MONITOR_LABELLED)
    if labelled.empty:
        return None
    classes = schema["target"]["classes"]
    rows = labelled[labelled["target"].isin(classes)] if classes else labelled
    metric, recorded = (
        owner.metrics().of(schema["task"], classes, settings.value).get(name),
        context["recorded"]["value"],
    )
    if metric and name == EXPECTED_VALUE:  # by the amounts of today, as the labelled rows
        recorded = metric.score(*_arrays(artifacts.read_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS), classes))
    known = {"metric": name, "rows": len(rows), "recorded": recorded}
    unknown = known | dict.fromkeys(("value", "low", "high", "drop", "limit", "passed"))
    if metric is None:
        return unknown | {"reason": f"{name} is the release's primary metric, and is not known here any more"}
    if len(rows) < settings.monitor.min_rows:
        return unknown | {"reason": f"{len(rows)} labelled rows, and {settings.monitor.min_rows} are needed"}
    reference = artifacts.read_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS)
    new, old = _arrays(rows, classes), _arrays(reference, classes)
    count, seed = settings.evaluate.bootstrap, settings.evaluate.seed
    with tqdm(total=3 * count, desc="performance", unit="resample", disable=None) as progress:
        found = intervals.of_metrics({name: metric}, new, _groups(rows), count, seed, progress.update)[name]
        if math.isnan(found.value):
            return unknown | {"reason": f"{name} is not defined for these labels"}
        drawn = [
            _resampled(metric, arrays, _groups(frame), count, seed + place, progress.update)
            for place, (arrays, frame) in enumerate(((new, rows), (old, reference)))
        ]
    sign = 1 if metric.better == "higher" else -1
    certain_drop = quantile(sign * (drawn[1] - drawn[0]), FALSE_ALARM)
    drop, limit = sign * (recorded - found.value), settings.monitor.max_performance_drop
    return known | {
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "drop": drop,
        "limit": limit,
        "passed": not (drop > limit and certain_drop > 0),
        "reason": f"{settings.label(name)} is {number(found.value)} ({number(found.low)} to {number(found.high)}) on "
        f"{len(rows)} labelled rows, {number(recorded)} on the test rows",
    }


def _groups(outputs: pd.DataFrame) -> Array:
    """Return the number of each row's group; where groups are not known, each row is one."""
    return outputs[artifacts.GROUP].to_numpy() if artifacts.GROUP in outputs else np.arange(len(outputs))


def _arrays(outputs: pd.DataFrame, classes: list[str]) -> tuple[Array, Array, Array]:
    """Return actual values, outputs and predictions as the project's metrics.py takes them.

    A prediction is what was answered, whatever the threshold of the decision was then.
    """
    if not classes:
        values = outputs["prediction"].to_numpy(float)
        return outputs["target"].to_numpy(float), values, values
    indices = {name: index for index, name in enumerate(classes)}
    actual, predicted = (outputs[name].map(indices).to_numpy(int) for name in ("target", "prediction"))
    return actual, outputs[[f"p_{name}" for name in classes]].to_numpy(float), predicted


def _resampled(
    metric: owner.Metric,
    arrays: tuple[Array, Array, Array],
    groups: Array,
    count: int,
    seed: int,
    on_resample: Callable[[], object],
) -> Array:
    """Return the metric of `count` resamples by group, NaN where one does not define it; of very many rows draws of it
    instead (statistics/jackknife.py).
    """

    def score(rows: Array) -> list[float]:
        return [metric.score(*(array[rows] for array in arrays))]

    if len(groups) >= jackknife.LARGE:
        classes = None if metric.fraction_of in (None, "rows") else arrays[0]
        value, influence = np.array(score(np.arange(len(groups)))), jackknife.influences(score, classes, groups, seed)
        return jackknife.draws(value, influence, len(np.unique(groups)), count, seed)[:, 0]
    values = np.empty(count)
    for index, rows in enumerate(resamples(groups, count, seed)):
        values[index] = score(rows)[0]
        on_resample()
    return values
