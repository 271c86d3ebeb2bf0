"""Intervals and bounds of large samples: without resamples they say what these say, in a fraction of the work."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from breast_cancer import metrics
from gitops.gate import champion_challenger
from gitops.gate.opponents import Predictions
from gitops.monitoring import performance
from gitops.statistics import coverage, delong, intervals, jackknife
from gitops.statistics.coverage import Conditions
from scipy.special import expit
from test_statistics import Own

Array = Any

NEVER = 10**9


def rows_of(task: str, count: int, groups: int, seed: int = 0) -> tuple[tuple[Array, Array, Array], Array]:
    """Return rows with a model's outputs as metrics.py takes them, and groups that share half of the variance."""
    rng, group = np.random.default_rng(seed), np.arange(count) % groups

    def normal() -> Array:
        if groups == count:
            return rng.normal(size=count)
        return np.sqrt(0.5) * (rng.normal(size=groups)[group] + rng.normal(size=count))

    if task == "regression":
        outputs = 2 * normal()
        return (outputs + normal(), outputs, outputs), group
    scores = np.exp(np.stack([1.5 * normal() for _ in range(3 if task == "multiclass" else 2)], axis=1))
    outputs = scores / scores.sum(axis=1, keepdims=True)
    actual = (rng.random(count)[:, None] > outputs.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return (actual, outputs, outputs.argmax(axis=1)), group


def both(task: str, rows: Any, groups: Array, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, intervals.Interval]]:
    """Return the intervals without and with resamples."""
    found = []
    for large in (len(groups), NEVER):
        monkeypatch.setattr(jackknife, "LARGE", large)
        found.append(intervals.of_metrics(metrics.METRICS[task], rows, groups, 2000, 1))
    return found


@pytest.mark.parametrize("groups", [3000, 300])
@pytest.mark.parametrize("task", metrics.METRICS)
def test_both_methods_give_the_same_interval(task: str, groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the noise of 2,000 resamples and 300 blocks or more, 4 % of the width each, and of what BCa corrects."""
    rows, group = rows_of(task, 3000, groups)
    ours, theirs = both(task, rows, group, monkeypatch)
    for name, its in theirs.items():
        width = its.high - its.low
        assert ours[name].value == its.value
        assert ours[name].high - ours[name].low == pytest.approx(width, rel=0.12), name
        assert (ours[name].low, ours[name].high) == pytest.approx((its.low, its.high), abs=0.12 * width), name


def test_resamples_are_drawn_below_the_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, groups = rows_of("binary", 400, 400)
    calls: list[None] = []
    for large, expected in ((401, 500), (400, 0)):
        monkeypatch.setattr(jackknife, "LARGE", large)
        calls.clear()
        intervals.of_metrics(
            {"brier": metrics.METRICS["binary"]["brier"]}, rows, groups, 500, 1, lambda: calls.append(None)
        )
        assert len(calls) == expected
        assert intervals.from_resamples(400) == bool(expected)


def direct(positive: Array, scores: Array, groups: Array) -> tuple[float, float]:
    """Return the AUC and its variance by comparing all pairs, as Obuchowski (1997) writes it down."""
    ours, others = np.flatnonzero(positive == 1), np.flatnonzero(positive == 0)
    wins = np.sign(scores[ours][:, None] - scores[others][None, :]) / 2 + 0.5
    value, names, parts = wins.mean(), np.unique(groups), []
    for own, placed in ((ours, wins.mean(axis=1)), (others, wins.mean(axis=0))):
        sums = np.array([(placed[groups[own] == name] - value).sum() for name in names])
        having = sum(name in groups[own] for name in names)
        parts.append((sums, having, len(own)))
    (first, in_first, m), (second, in_second, n) = parts
    s10 = in_first / ((in_first - 1) * m) * (first**2).sum()
    s01 = in_second / ((in_second - 1) * n) * (second**2).sum()
    s11 = len(names) / (len(names) - 1) * (first * second).sum()
    return float(value), float(s10 / m + s01 / n + 2 * s11 / (m * n))


@pytest.mark.parametrize("groups", [150, 20])
def test_the_variance_of_an_auc_is_that_of_all_pairs(groups: int) -> None:
    """Also with ties, and with groups; each row by itself, it is DeLong's."""
    rng = np.random.default_rng(0)
    positive = (rng.random(150) < 0.3).astype(int)
    scores = np.round(rng.normal(size=150) + positive, 1)
    group = rng.permutation(150) % groups
    value, variance, influence = delong.auc(positive, scores, group)
    assert (value, variance) == pytest.approx(direct(positive, scores, group))
    assert influence.sum() == pytest.approx(0, abs=1e-12) and len(influence) == groups
    if groups == 150:
        wins = np.sign(scores[positive == 1][:, None] - scores[positive == 0][None, :]) / 2 + 0.5
        by_rows, by_columns = (wins.mean(axis=axis).var(ddof=1) / wins.shape[1 - axis] for axis in (1, 0))
        assert variance == pytest.approx(by_rows + by_columns)


def test_a_metric_of_pairs_that_is_no_auc_has_the_blocks_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here one that is half of it: with DeLong's variance its interval would be twice as wide."""
    rows, groups = rows_of("binary", 3000, 3000)
    auc = metrics.METRICS["binary"]["roc_auc"].score
    half = {"half": Own(lambda *arrays: auc(*arrays) / 2, "pairs"), "whole": Own(auc, "pairs")}
    monkeypatch.setattr(jackknife, "LARGE", 3000)
    found = intervals.of_metrics(half, rows, groups, 0, 1)
    widths = [found[name].high - found[name].low for name in ("half", "whole")]
    assert widths[0] == pytest.approx(widths[1] / 2, rel=0.1)


@pytest.mark.parametrize(("groups", "few"), [(1000, 0), (30, 0), (1000, 20)])
def test_the_interval_holds_the_truth_as_often_as_it_says(
    groups: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a mean, and of a ROC AUC; few groups have the t distribution. Of 200 times, 0.915 is two errors below."""
    monkeypatch.setattr(jackknife, "LARGE", 1000)
    held, repetitions, gap = {"mean": 0, "auc": 0}, 200, 1.0
    wanted = {
        "mean": Own(lambda actual, outputs, predicted: float(predicted.mean())),
        "auc": Own(metrics.METRICS["binary"]["roc_auc"].score, "pairs"),
    }
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        group = np.arange(1000) % groups
        shared = rng.normal(size=groups)[group] if groups < 1000 else 0.0
        actual = (np.arange(1000) < (few or 300)).astype(int)
        rng.shuffle(actual)
        noise = (shared + rng.normal(size=1000)) / np.sqrt(2 if groups < 1000 else 1)
        scores = expit(noise + gap * actual)
        found = intervals.of_metrics(wanted, (actual, np.stack([1 - scores, scores], axis=1), noise), group, 0, seed)
        held["mean"] += found["mean"].low <= 0 <= found["mean"].high
        held["auc"] += found["auc"].low <= 0.76025 <= found["auc"].high  # the normal distribution's at 1 / sqrt(2)
    assert all(0.915 <= count / repetitions <= 0.99 for count in held.values()), held


def test_a_million_rows_are_scored_a_few_times() -> None:
    """The bootstrap would score two thousand times as many."""
    scored = []

    def mean(actual: Array, outputs: Array, predicted: Array) -> float:
        scored.append(len(actual))
        return float(actual.mean())

    values = np.random.default_rng(0).normal(size=1_000_000)
    (found,) = intervals.of_metrics({"mean": Own(mean)}, (values,) * 3, np.arange(1_000_000), 2000, 0).values()
    assert found.high - found.low == pytest.approx(2 * 1.96 / 1000, rel=0.08)
    assert sum(scored) <= 3_000_000 and len(scored) <= jackknife.MOST + 2


def test_a_metric_that_depends_on_the_number_of_rows_has_blocks_left_out() -> None:
    """A sum: of a block alone it is far from that of all rows, and says nothing of its standard error."""
    values = 1 + np.random.default_rng(0).normal(size=150_000)
    own = {"sum": Own(lambda actual, outputs, predicted: float(actual.sum()))}
    (found,) = intervals.of_metrics(own, (values,) * 3, np.arange(150_000), 2000, 0).values()
    # Of sums over parts of a given size the standard error is that of a mean, times the number of rows.
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(150_000), rel=0.15)


def test_the_order_of_the_rows_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorted by what is measured, blocks of rows that follow each other would differ by far more than by chance."""
    monkeypatch.setattr(jackknife, "LARGE", 1000)
    values = np.sort(np.random.default_rng(0).normal(size=5000))
    (found,) = intervals.of_metrics(
        {"mean": Own(lambda actual, *_: float(actual.mean()))}, (values,) * 3, np.arange(5000), 0, 0
    ).values()
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(5000), rel=0.1)


def test_blocks_alone_and_left_out_have_the_same_influence(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, groups = rows_of("regression", 40_000, 40_000)
    score = metrics.METRICS["regression"]["rmse"].score
    found = []
    for least in (50, NEVER):
        monkeypatch.setattr(jackknife, "BLOCKS", least)
        blocks = jackknife.influences(lambda part: [score(*(array[part] for array in rows))], None, groups, 0)
        found.append(jackknife.variance(blocks[:, 0]))
    assert len(blocks) == jackknife.SCORED // 40_000 and found[0] == pytest.approx(found[1], rel=0.25)


def test_one_group_alone_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jackknife, "LARGE", 1000)
    rows, _ = rows_of("binary", 1000, 1000)
    for its in intervals.of_metrics(metrics.METRICS["binary"], rows, np.zeros(1000, int), 0, 0).values():
        assert its.low == its.high == its.value


def test_draws_have_the_variance_and_the_correlation_of_the_influences() -> None:
    rng = np.random.default_rng(0)
    influence = rng.normal(size=(100, 2)) @ np.array([[1.0, 0.9], [0.0, 0.1]])
    drawn = jackknife.draws(np.array([5.0, 7.0]), influence, 100, 20_000, 1)
    assert drawn.mean(axis=0) == pytest.approx([5, 7], abs=0.3)
    assert np.cov(drawn.T) == pytest.approx(influence.T @ influence, rel=0.05)


def test_the_gates_bounds_are_those_of_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two releases and two metrics, one of which is that of the candidate: its differences are 0 in each draw."""
    (actual, outputs, predicted), groups = rows_of("binary", 3000, 3000)
    worse = np.clip(outputs + 0.1 * np.random.default_rng(1).normal(size=(3000, 1)) * [1, -1], 0.001, 0.999)
    candidate, other = Predictions(outputs, predicted), Predictions(worse, worse.argmax(axis=1))
    found, known = [], metrics.METRICS["binary"]
    for large in (3000, NEVER):
        monkeypatch.setattr(jackknife, "LARGE", large)
        names, bootstrap = [["roc_auc", "brier"]] * 2, SimpleNamespace(bootstrap=2000, seed=1)
        found.append(champion_challenger.paired(known, actual, groups, candidate, [other, candidate], names, bootstrap))
    for (ours, theirs), name in itertools.product(zip(*found, strict=True), ("roc_auc", "brier")):
        width = theirs[name].high - theirs[name].low
        assert (ours[name].value, ours[name].low == ours[name].high) == (theirs[name].value, width == 0)
        for bound in ("low", "high", "lower", "upper"):
            assert getattr(ours[name], bound) == pytest.approx(getattr(theirs[name], bound), abs=0.1 * width + 1e-9)


def test_the_monitor_draws_what_it_would_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, groups = rows_of("binary", 3000, 3000)
    drawn = []
    for large in (3000, NEVER):
        monkeypatch.setattr(jackknife, "LARGE", large)
        metric = metrics.METRICS["binary"]["brier"]
        drawn.append(performance._resampled(metric, rows, groups, 2000, 1, lambda: None))
    assert drawn[0].shape == drawn[1].shape == (2000,)
    width = 4 * drawn[1].std()
    for level in (0.001, 0.05, 0.5, 0.95):
        assert np.quantile(drawn[0], level) == pytest.approx(np.quantile(drawn[1], level), abs=0.12 * width)


def test_coverage_with_resamples_says_nothing_of_intervals_without(monkeypatch: pytest.MonkeyPatch) -> None:
    table = "binary - 10000 10000 3000 400 roc_auc=0.900\n"
    for added, expected in (("", {}), ("binary - 50000 50000 15000 400 roc_auc=0.940\n", {"roc_auc": 0.94})):
        monkeypatch.setattr(coverage, "cells", lambda added=added: coverage.parse(table + added))
        assert coverage.measured(Conditions("binary", None, jackknife.LARGE, 50_000, 15_000)) == expected
        assert coverage.measured(Conditions("binary", None, jackknife.LARGE - 1, 49_999, 15_000)) == {"roc_auc": 0.9}
