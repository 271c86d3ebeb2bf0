"""Comparison of the candidate (challenger) with the release in production (champion) and those before it.

All of them that have predictions for today's test rows (opponents.py) are compared on these rows at once: `paired`.
Where production has none, its recorded metrics stand in for them, each model's on its own test rows: `recorded`; other
releases are left out then. Without a release for the same task there is nothing to compare with: `absolute`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from tqdm import tqdm

from gitops import owner
from gitops.core import artifacts
from gitops.core.artifacts import GROUP, PREDICTIONS, ROW, TEST
from gitops.core.params import Params
from gitops.gate import opponents
from gitops.gate.opponents import Opponent, Predictions
from gitops.releases.record import Deployed, Release, Score
from gitops.statistics import differences, jackknife, resampling

Array = NDArray[Any]
Metrics = Mapping[str, owner.Metric]


@dataclass(frozen=True)
class Difference:
    """How much better the candidate is, in the metric's unit: above 0 is better, whatever the metric's direction."""

    value: float
    low: float  # 95 % interval
    high: float
    lower: float  # one-sided 95 % bounds: of this difference alone,
    upper: float  # and of those from all releases together


@dataclass(frozen=True)
class Against:
    """A release, its scores, and the candidate's differences from it. Metrics that have none are left out."""

    commit: str  # of env/production, the first that held it
    title: str
    model_version: str
    basis: str  # on which rows, and by which predictions
    deployed: bool
    scores: dict[str, float]
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Comparison:
    """The result: every release that was compared, production first, and why others were not, by their titles.

    `releases` is empty where the mode is `absolute`.
    """

    mode: Literal["paired", "recorded", "absolute"]
    basis: str  # what was compared with production, or why nothing was
    releases: list[Against] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def production(self) -> Against | None:
        """The release in production; None where there was nothing to compare with."""
        return self.releases[0] if self.releases else None


def compare(
    settings: Params, schema: dict[str, Any], evaluated: dict[str, Any], present: Deployed | None
) -> Comparison:
    """Compare `evaluated` (metrics.json) with the releases up to the present one, whose files may be missing.

    Raises ProjectError in a shallow clone, where the candidate's own predictions do not fit its test split, and where
    `evaluate.bootstrap` is too small.
    """
    if present is None:
        return Comparison("absolute", "there is no release to compare with")
    if changed := opponents.other_subject(settings, present.record):
        return Comparison("absolute", f"the release is for another task ({', '.join(changed)} changed)")
    test = artifacts.read_parquet(TEST, [ROW, GROUP, schema["target"]["name"]])
    met = opponents.meet(settings, schema, test, evaluated["test_md5"], opponents.find(present))
    actual = owner.features().encode_target(test[schema["target"]["name"]], schema).numpy()
    candidate = opponents.read(PREDICTIONS, test, schema)
    metrics = owner.metrics().of(schema["task"], schema["target"]["classes"], settings.value)
    on_rows = [one for one in met if one.predictions]
    releases = _on_rows(settings, metrics, actual, test[GROUP].to_numpy(), candidate, on_rows)
    left_out = {one.title: one.basis for one in met if not one.predictions and not one.deployed}
    if met[0].predictions is None:
        releases.insert(0, recorded(settings, evaluated["metrics"], met[0]))
    production = releases[0]
    return Comparison("paired" if met[0].predictions else "recorded", production.basis, releases, left_out)


def _on_rows(
    settings: Params,
    metrics: Metrics,
    actual: Array,
    groups: Array,
    candidate: Predictions,
    met: Sequence[Opponent],
) -> list[Against]:
    """Return the comparison with each opponent on the same rows: production by every metric, others by the gate's."""
    gate = settings.gate
    judged = [name for name in metrics if name == gate.primary_metric or name in gate.guardrail_metrics]
    names = [list(metrics) if one.deployed else judged for one in met]
    predictions = [one.predictions for one in met if one.predictions]
    found = paired(metrics, actual, groups, candidate, predictions, names, settings.evaluate)
    everything = np.arange(len(actual))
    return [
        Against(
            one.commit,
            one.title,
            one.record.model.version,
            one.basis,
            one.deployed,
            {
                name: value
                for name, value in _scores(metrics, its, wanted, actual, everything).items()
                if name in its_found
            },
            its_found,
        )
        for one, its, wanted, its_found in zip(met, predictions, names, found, strict=True)
    ]


def paired(
    metrics: Metrics,
    actual: Array,
    groups: Array,
    candidate: Predictions,
    releases: Sequence[Predictions],
    names: Sequence[Collection[str]],
    bootstrap: Any,
) -> list[dict[str, Difference]]:
    """Return, for each release, the candidate's difference from it in each of the `metrics` that `names` has for it.

    A paired bootstrap over groups of rows (Efron and Tibshirani, 1993, chapter 13): each resample is drawn once, and
    all models are scored on it. Of very many rows the differences are drawn from the normal distribution with the
    covariance that blocks of rows show (statistics/jackknife.py). `actual` and `groups` are [rows]; `bootstrap` has the
    number of resamples and the seed (params.yaml, evaluate). A metric that the rows do not define for one of the two
    models has no difference. Raises ProjectError where the resamples are too few for the bounds, or there is one group
    of rows alone.
    """
    if not releases:
        return []
    every, count = list(dict.fromkeys(itertools.chain(*names))), len(np.unique(groups))
    signs = {name: 1 if metrics[name].better == "higher" else -1 for name in every}
    # A resample holds the rows in this order, and what is nearly sorted is sorted quickly in each.
    first = candidate.outputs[:, -1] if candidate.outputs.ndim == 2 else candidate.outputs
    order = np.argsort(-first, kind="stable")
    actual, groups = actual[order], groups[order]
    candidate, *releases = (Predictions(its.outputs[order], its.predicted[order]) for its in (candidate, *releases))

    def measure(rows: Array) -> list[dict[str, float]]:
        new = _scores(metrics, candidate, every, actual, rows)
        old = (_scores(metrics, its, wanted, actual, rows) for its, wanted in zip(releases, names, strict=True))
        return [{name: signs[name] * (new[name] - score[name]) for name in score} for score in old]

    measured = measure(np.arange(len(actual)))
    pairs = [(place, name) for place, its in enumerate(measured) for name in its if math.isfinite(its[name])]

    def differing(rows: Array) -> list[float]:
        found = measure(rows)
        return [found[place][name] for place, name in pairs]

    values = np.array([measured[place][name] for place, name in pairs])
    draws = _drawn(differing, values, actual if candidate.outputs.ndim == 2 else None, groups, bootstrap)
    found: list[dict[str, Difference]] = [{} for _ in releases]
    for name in every:
        columns = [column for column, pair in enumerate(pairs) if pair[1] == name]
        for column, difference in zip(columns, _bounded(values[columns], draws[:, columns], count), strict=True):
            found[pairs[column][0]][name] = difference
    return found


def _drawn(score: jackknife.Scores, values: Array, classes: Array | None, groups: Array, bootstrap: Any) -> Array:
    """Return the differences `values` as `score` gives them for resamples, [resamples, differences], or draws of them
    where there are very many rows.
    """
    count, seed = bootstrap.bootstrap, bootstrap.seed
    if len(groups) >= jackknife.LARGE:
        influence = jackknife.influences(score, classes, groups, seed)
        return jackknife.draws(values, influence, len(np.unique(groups)), count, seed)
    resamples = tqdm(resampling.resamples(groups, count, seed), "gate", count, unit="resample", disable=None)
    return np.array([score(rows) for rows in resamples]).reshape(count, len(values))


def _bounded(values: Array, drawn: Array, groups: int) -> list[Difference]:
    """Return the differences `values` with their bounds, from those of the resamples, [resamples, differences]."""
    if not len(values):
        return []
    low = differences.lower_bounds(values, drawn, groups, 0.975)
    high = -differences.lower_bounds(-values, -drawn, groups, 0.975)
    lower, upper = differences.lower_bounds(values, drawn, groups), differences.upper_bounds(values, drawn, groups)
    return [Difference(*map(float, row)) for row in zip(values, low, high, lower, upper, strict=True)]


def _scores(metrics: Metrics, its: Predictions, names: Collection[str], actual: Array, rows: Array) -> dict[str, float]:
    """Return some metrics of predictions on some rows."""
    arrays = actual[rows], its.outputs[rows], its.predicted[rows]
    return {name: metrics[name].score(*arrays) for name in names}


def recorded(settings: Params, candidate: dict[str, Any], production: Opponent) -> Against:
    """Compare with production by the recorded metrics of both, each on its own test rows.

    The interval is that of a difference between two independent estimates, from their intervals (Zou and Donner, 2008);
    for a one-sided bound at the same level these are made shorter, as those of the normal distribution.
    """
    record: Release = production.record
    scores = record.comparable(settings.value)
    shorter = float(ndtri(0.95) / ndtri(0.975))
    found = {}
    for name in candidate.keys() & scores.keys():
        sign = settings.sign(name)
        new, old = Score.model_validate(candidate[name]), scores[name]
        (new_low, new_high), (old_low, old_high) = (sorted((sign * it.low, sign * it.high)) for it in (new, old))
        value, now, then = sign * (new.value - old.value), sign * new.value, sign * old.value
        low, high = math.hypot(now - new_low, old_high - then), math.hypot(new_high - now, then - old_low)
        found[name] = Difference(value, value - low, value + high, value - shorter * low, value + shorter * high)
    return Against(
        production.commit,
        production.title,
        record.model.version,
        f"as recorded, each model on its own test rows ({production.basis})",
        production.deployed,
        {name: score.value for name, score in scores.items()},
        found,
    )
