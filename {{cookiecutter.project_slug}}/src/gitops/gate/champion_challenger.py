"""Comparison of the candidate (challenger) with the release in production (champion).

Three methods, the best first. Where one is impossible, its reason is kept and the next is tried:

1. `paired`, same test rows: the release's own predictions on them are fetched.
2. `paired`, other test rows: the release's model is fetched and run on the candidate's. Rows that `make retrain`
   appended leave all others in their splits. After another change of the table the release may have been trained on
   some of these test rows, which favours it and never the candidate.
3. `recorded`: the recorded metrics of both models, each on its own test rows.

Without a release for the same task there is nothing to compare with: `absolute`.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gitops import owner
from gitops.core import artifacts
from gitops.core.artifacts import PREDICTIONS, TEST, ProjectError
from gitops.core.params import Params
from gitops.integrations import dvc
from gitops.releases.record import Deployed, Release, Score

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

#: A model's outputs [rows, classes] or [rows], and its predictions [rows], as in the project's metrics.py.
Predictions = tuple[Array, Array]

#: Settings of `data` that define the prediction target: where one differs, metrics are not comparable.
SUBJECT = ("task", "target", "positive")


@dataclass(frozen=True)
class Difference:
    """How much better the candidate is, in the metric's unit: above 0 is better, whatever the metric's direction."""

    value: float
    low: float  # 95 % interval
    high: float


@dataclass(frozen=True)
class Comparison:
    """The result: production's metrics and the differences, both empty where the mode is `absolute`."""

    mode: Literal["paired", "recorded", "absolute"]
    basis: str  # what was compared, or why nothing was
    production: dict[str, float] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)


def compare(
    settings: Params, schema: dict[str, Any], evaluated: dict[str, Any], present: Deployed | None
) -> Comparison:
    """Compare `evaluated` (metrics.json) with the present release, whose files may be missing."""
    if present is None:
        return Comparison("absolute", "there is no release to compare with")
    record = present.record
    now, then = settings.data.model_dump(), record.params.get("data", {})
    changed = [f"data.{key}" for key in SUBJECT if now[key] != then.get(key)]
    if changed:
        return Comparison("absolute", f"the release is for another task ({', '.join(changed)} changed)")
    reasons = []
    for method in (_same_rows, _old_model):
        try:
            return method(settings, schema, evaluated, record)
        except ProjectError as error:
            reasons.append(str(error))
    return recorded(settings.data.task, evaluated["metrics"], record.metrics, "; ".join(reasons))


def paired(
    task: str, actual: Array, candidate: Predictions, production: Predictions, resamples: int, seed: int
) -> dict[str, Difference]:
    """Return each metric's difference between two models on the same rows, with its 95 % interval.

    A paired percentile bootstrap (Efron and Tibshirani, 1993, chapter 13): each resample draws rows once and scores
    both models on them, so that rows which are hard for both cancel out. `actual` is [rows]. Resamples in which
    a metric is undefined are left out of its interval.
    """
    rng, score = np.random.default_rng(seed), owner.metrics().score

    def difference(rows: Array) -> dict[str, float]:
        new, old = (score(task, actual[rows], *(part[rows] for part in model)) for model in (candidate, production))
        return {name: owner.sign(task, name) * (new[name] - old[name]) for name in new}

    count = len(actual)
    values = difference(np.arange(count))
    progress = tqdm(range(resamples), "gate", unit="resample", disable=None)
    draws = [difference(rng.integers(0, count, count)) for _ in progress]
    differences = {}
    for name, value in values.items():
        defined = [draw[name] for draw in draws if not math.isnan(draw[name])] or [value]
        low, high = np.quantile(defined, [0.025, 0.975])
        differences[name] = Difference(value, float(low), float(high))
    return differences


def recorded(task: str, candidate: dict[str, Any], production: dict[str, Score], why: str) -> Comparison:
    """Compare two models by their recorded metrics, each on its own test rows.

    The interval is that of a difference between two independent estimates, from their intervals (Zou and Donner, 2008).
    """
    differences = {}
    for name in candidate.keys() & production.keys():
        sign = owner.sign(task, name)
        new, old = Score.model_validate(candidate[name]), production[name]
        (new_low, new_high), (old_low, old_high) = (sorted((sign * it.low, sign * it.high)) for it in (new, old))
        value, now, then = sign * (new.value - old.value), sign * new.value, sign * old.value
        low, high = math.hypot(now - new_low, old_high - then), math.hypot(new_high - now, then - old_low)
        differences[name] = Difference(value, value - low, value + high)
    return Comparison(
        "recorded",
        f"as recorded, each model on its own test rows ({why})",
        {name: score.value for name, score in production.items()},
        differences,
    )


def _same_rows(settings: Params, schema: dict[str, Any], evaluated: dict[str, Any], record: Release) -> Comparison:
    """Compare with the predictions that the release made on the same test split."""
    if record.test_md5 != evaluated["test_md5"]:
        raise ProjectError("the test split has changed")
    table = dvc.fetch(record.predictions.md5)
    return _on_rows(settings, schema, "on the same test rows", lambda test: _predicted(table, test, schema))


def _old_model(settings: Params, schema: dict[str, Any], evaluated: dict[str, Any], record: Release) -> Comparison:
    """Compare with the outputs of the release's model on the candidate's test split."""
    content = dvc.fetch(record.package.md5).read_bytes()
    basis = "on today's test rows, on which the release's model was run"
    return _on_rows(settings, schema, basis, lambda test: _run(content, record, test, schema))


def _on_rows(
    settings: Params, schema: dict[str, Any], basis: str, production: Callable[[pd.DataFrame], Predictions]
) -> Comparison:
    """Compare on the candidate's test split; `production` returns the release's predictions for its rows."""
    task = settings.data.task
    test = artifacts.read_parquet(TEST)
    actual = owner.features().encode_target(test[schema["target"]["name"]], schema).numpy()
    old, new = production(test), _predicted(PREDICTIONS, test, schema)
    if not np.isfinite(old[0]).all():
        raise ProjectError("the release's outputs are not all finite numbers")
    differences = paired(task, actual, new, old, settings.evaluate.bootstrap, settings.evaluate.seed)
    return Comparison("paired", basis, owner.metrics().score(task, actual, *old), differences)


def _predicted(path: Path, test: pd.DataFrame, schema: dict[str, Any]) -> Predictions:
    """Return those for the rows of `test` in a predictions.parquet. Raises ProjectError if it lacks some."""
    classes = schema["target"]["classes"]
    try:
        table = artifacts.read_parquet(path)
        table = table[table["split"] == "test"].set_index("row").loc[test[artifacts.ROW]]
        outputs = table[[f"p_{name}" for name in classes] or "prediction"].to_numpy("float64")
        indices = {name: index for index, name in enumerate(classes)}
        predicted = table["prediction"].map(indices).to_numpy("int64") if classes else outputs
    except (KeyError, ValueError, OSError) as error:
        raise ProjectError(f"the predictions in {path} do not fit the test split: {error}") from error
    return outputs, predicted


def _run(archive: bytes, record: Release, test: pd.DataFrame, schema: dict[str, Any]) -> Predictions:
    """Run the model of a TorchServe archive on a split. Raises ProjectError where it does not fit the columns.

    Its decisions are those by its own threshold, which its schema holds.
    """
    import torch

    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        model, old = files.read(artifacts.MODEL.name), json.loads(files.read(artifacts.SCHEMA.name))
    if hashlib.sha256(model).hexdigest() != record.model.sha256:
        raise ProjectError(f"{record.package.path} of the release does not hold the model that its record names")
    dtypes = {feature["name"]: feature["dtype"] for feature in schema["features"]}
    if lost := [feature["name"] for feature in old["features"] if dtypes.get(feature["name"]) != feature["dtype"]]:
        raise ProjectError(f"the release's model needs columns that were removed or changed: {', '.join(lost)}")
    classes, old_classes = schema["target"]["classes"], old["target"]["classes"]
    if sorted(classes) != sorted(old_classes):
        raise ProjectError(f"the release's model has other classes: {', '.join(old_classes)}")
    try:
        outputs = owner.evaluate().predict(torch.export.load(io.BytesIO(model)).module(), test, old)
    except Exception as error:  # a program of an older torch can fail in any way; the gate then falls back
        raise ProjectError(f"the release's model does not run: {error}") from error
    predicted = owner.features().decide(outputs, old)
    if not classes:
        return outputs, predicted
    places = [classes.index(name) for name in old_classes]
    return outputs[:, np.argsort(places)], np.array(places)[predicted]
