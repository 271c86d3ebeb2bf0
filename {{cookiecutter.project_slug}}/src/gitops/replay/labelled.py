"""Which of the two models is right more often, on logged requests whose labels have come."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gitops import owner
from gitops.core.params import Params
from gitops.core.value import EXPECTED_VALUE
from gitops.gate import champion_challenger
from gitops.gate.opponents import Predictions

Array = NDArray[Any]


def compare(
    settings: Params, labels: list[str], old: Predictions, new: Predictions, classes: list[str], groups: Array
) -> dict[str, Any]:
    """Return `rows`, and by metric each model's score and the candidate's difference with its 95 % interval.

    `labels` and `groups` are of the rows of both predictions, whose classes, if any, are in the order of `classes`. A
    label that is none of them, or no number, is left out. Above 0 the candidate is better. Where there are fewer rows
    than `monitor.min_rows`, or they do not define the metric, `reason` says so and there are no metrics. Raises
    ProjectError as champion_challenger.paired does.
    """
    actual, known = _actual(labels, classes)
    rows = np.flatnonzero(known)
    if len(rows) < settings.monitor.min_rows:
        return _nothing(len(rows), f"{len(rows)} labelled rows, and monitor.min_rows is {settings.monitor.min_rows}")
    actual, groups = actual[rows], groups[rows]
    if len(np.unique(groups)) < 2:
        return _nothing(len(rows), "all labelled rows are about one id")
    metrics = owner.metrics().of(settings.data.task, classes, settings.value)
    wanted = (settings.gate.primary_metric, "accuracy", EXPECTED_VALUE)
    names = list(dict.fromkeys(name for name in wanted if name in metrics))
    pair = [Predictions(its.outputs[rows], its.predicted[rows]) for its in (old, new)]
    [found] = champion_challenger.paired(metrics, actual, groups, pair[1], pair[:1], [names], settings.evaluate)
    if not found:
        return _nothing(len(rows), f"the labelled rows do not define {' and '.join(names)}")
    scores = {
        name: {
            key: metrics[name].score(actual, its.outputs, its.predicted)
            for key, its in zip(("production", "candidate"), pair, strict=True)
        }
        | {"difference": {key: asdict(difference)[key] for key in ("value", "low", "high")}}
        for name, difference in found.items()
    }
    return {"rows": len(rows), "metrics": scores, "reason": None}


def _nothing(rows: int, reason: str) -> dict[str, Any]:
    return {"rows": rows, "metrics": {}, "reason": reason}


def _actual(labels: list[str], classes: list[str]) -> tuple[Array, Array]:
    """Return labels as class indices or numbers, [rows], and which of them are known, bool [rows]."""
    if classes:
        places = {name: index for index, name in enumerate(classes)}
        found = np.array([places.get(label, -1) for label in labels], "int64")
        return found, found >= 0
    numbers = pd.to_numeric(pd.Series(labels, dtype="object"), errors="coerce").to_numpy("float64")
    return numbers, np.isfinite(numbers)
