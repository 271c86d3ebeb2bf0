"""How well the release's model performs in production, on labelled requests, compared with its test rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from gitops import owner
from gitops.core import artifacts
from gitops.core.params import Params
from gitops.monitoring.drift import FALSE_ALARM

Array = NDArray[Any]


def evaluate(settings: Params, context: dict[str, Any]) -> dict[str, Any] | None:
    """Return the primary metric of the labelled rows, or None where no row is labelled.

    `metric`, `rows`, `value` with its 95 % bootstrap interval `low` to `high`, `recorded` (the release's own value),
    `drop` (how much worse, in the metric's unit), `limit` and `passed`. It fails if the drop is above
    `monitor.max_performance_drop` and significant: resamples of the labelled rows and of the test rows, drawn
    independently, are worse in all but FALSE_ALARM of the cases. With fewer than `monitor.min_rows` labelled rows, or
    where these do not define the metric, `value` and `passed` are None and `reason` says why.
    """
    schema, name = context["schema"], context["metric"]
    labelled = artifacts.read_parquet(artifacts.MONITOR_LABELLED)
    if labelled.empty:
        return None
    task, classes = schema["task"], schema["target"]["classes"]
    rows = labelled[labelled["target"].isin(classes)] if classes else labelled
    known = {"metric": name, "rows": len(rows), "recorded": context["recorded"]["value"]}
    unknown = known | dict.fromkeys(("value", "low", "high", "drop", "limit", "passed"))
    if len(rows) < settings.monitor.min_rows:
        return unknown | {"reason": f"{len(rows)} labelled rows, and {settings.monitor.min_rows} are needed"}
    new, old = _arrays(rows, classes), _arrays(artifacts.read_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS), classes)
    value = owner.metrics().score(task, *new)[name]
    if math.isnan(value):
        return unknown | {"reason": f"{name} is not defined for these labels"}
    sign = owner.sign(task, name)
    resampled = _resampled(task, name, new, old, settings.evaluate.bootstrap, settings.evaluate.seed)
    low, high = np.quantile(resampled[:, 0], [0.025, 0.975])
    certain_drop = float(np.quantile(sign * (resampled[:, 1] - resampled[:, 0]), FALSE_ALARM))
    drop, limit = sign * (context["recorded"]["value"] - value), settings.monitor.max_performance_drop
    return known | {
        "value": value,
        "low": float(low),
        "high": float(high),
        "drop": drop,
        "limit": limit,
        "passed": not (drop > limit and certain_drop > 0),
        "reason": f"{name} is {value:.4g} ({low:.4g} to {high:.4g}) on {len(rows)} labelled rows, "
        f"{context['recorded']['value']:.4g} on the test rows",
    }


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
    task: str,
    name: str,
    new: tuple[Array, Array, Array],
    old: tuple[Array, Array, Array],
    resamples: int,
    seed: int,
) -> Array:
    """Return the metric of resampled new and old rows, [resamples, 2], without pairs that do not define it."""
    rng, score = np.random.default_rng(seed), owner.metrics().score
    scores = []
    for _ in tqdm(range(resamples), "performance", unit="resample", disable=None):
        pair = []
        for arrays in (new, old):
            rows = rng.integers(0, len(arrays[0]), len(arrays[0]))
            pair.append(score(task, *(array[rows] for array in arrays))[name])
        scores.append(pair)
    values: Array = np.array(scores)
    return values[~np.isnan(values).any(axis=1)]
