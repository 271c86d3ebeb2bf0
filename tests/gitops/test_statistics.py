"""Intervals: that they hold the truth as often as they say, also by group, with few rows and at a metric's bound."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from breast_cancer import metrics
from defaults import ROOT
from gitops.core.artifacts import ProjectError
from gitops.statistics import coverage, fractions, intervals, scores
from gitops.statistics.coverage import Conditions
from gitops.statistics.resampling import Clusters, quantile, resamples
from scipy import stats

Array = Any

#: A hundred numbers that are normal, without chance.
NORMAL = stats.norm.ppf((np.arange(100) + 0.5) / 100)


@dataclass(frozen=True)
class Own:
    """A metric of a project of its own."""

    score: Callable[[Array, Array, Array], float]
    fraction_of: Any = None


MEAN = {"mean": Own(lambda actual, outputs, predicted: float(actual.mean()))}


def mean_of(values: Array, groups: Array | None = None, count: int = 2000, seed: int = 0) -> intervals.Interval:
    groups = np.arange(len(values)) if groups is None else groups
    return intervals.of_metrics(MEAN, (values, values, values), groups, count, seed)["mean"]


def binary(positive: Array, scores_: Array, names: list[str] | None = None) -> dict[str, Any]:
    """Return the intervals of the binary metrics; a row is positive from a probability of one half on."""
    outputs = np.stack([1 - scores_, scores_], axis=1)
    groups = np.arange(len(positive))
    known = metrics.METRICS["binary"]
    wanted = {name: known[name] for name in names or known}
    return intervals.of_metrics(wanted, (positive, outputs, (scores_ >= 0.5).astype(int)), groups, 2000, seed=1)


def test_a_resample_holds_groups_whole() -> None:
    groups = np.array([7, -1, 7, 3, -1, 7])
    sizes = {7: 3, -1: 2, 3: 1}
    drawn = [*resamples(groups, 200, seed=0)]
    for rows in drawn:
        assert (np.diff(rows) >= 0).all()
        counts = np.bincount(rows, minlength=6)
        times = {group: counts[groups == group] for group in sizes}
        assert all(len(set(count)) == 1 for count in times.values())
        assert sum(count[0] for count in times.values()) == len(Clusters(groups)) == 3
    assert {len(rows) for rows in drawn} == {3, 4, 5, 6, 7, 8, 9}
    assert np.mean([np.isin(3, rows) for rows in drawn]) == pytest.approx(1 - (2 / 3) ** 3, abs=0.1)


def test_resamples_are_the_same_for_the_same_seed() -> None:
    groups = np.arange(50) // 2
    first, second, other = ([*resamples(groups, 3, seed)] for seed in (1, 1, 2))
    assert all((one == two).all() for one, two in zip(first, second, strict=True))
    assert any(len(one) != len(two) or (one != two).any() for one, two in zip(first, other, strict=True))


def test_a_quantile_that_needs_more_resamples_is_an_error() -> None:
    draws = np.random.default_rng(0).permutation(np.arange(1.0, 1000.0))
    assert (quantile(draws, 0.025), quantile(draws, 0.975)) == (25, 975)
    assert (quantile(draws, 0.001), quantile(draws, 0.999)) == (1, 999)
    with pytest.raises(ProjectError, match=r"evaluate\.bootstrap gives 998 resamples: .* 0\.001 needs 999; set .* 999"):
        quantile(draws[1:], 0.001)
    draws[:500] = np.nan
    with pytest.raises(ProjectError, match=r"gate\.x gives 999 resamples, of which 500 do not .* set gate\.x to 2001"):
        quantile(draws, 0.001, "gate.x")
    assert np.isfinite(quantile(draws, 0.025))


def test_the_interval_is_that_of_scipy_where_many_rows_leave_nothing_to_correct() -> None:
    values = np.random.default_rng(0).exponential(size=3000)
    ours = mean_of(values, count=4000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(1))
    low, high = theirs.confidence_interval
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_rows_of_a_group_count_once() -> None:
    values = np.random.default_rng(0).normal(size=60)
    alone = mean_of(values)
    groups = np.tile(np.arange(60), 9)
    together = mean_of(np.tile(values, 9), groups)
    apart = mean_of(np.tile(values, 9))
    width = alone.high - alone.low
    assert together.high - together.low == pytest.approx(width, rel=0.05)
    assert apart.high - apart.low == pytest.approx(width / 3, rel=0.1)


def test_the_interval_of_few_groups_holds_the_truth_as_often_as_it_says() -> None:
    """30 groups of five rows that share most of their variance; 200 times, so 0.92 is two standard errors below."""
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(30), 5)
        found = mean_of(rng.exponential(size=30)[groups] + 0.3 * rng.normal(size=150), groups, 1000, seed)
        held += found.low <= 1 <= found.high
    assert 0.915 <= held / 200 <= 0.985


def test_few_rows_with_all_influence_widen_the_interval() -> None:
    """Its bound lies beyond what resamples reach, on the side of the heavy tail."""
    values = np.exp(2 * np.random.default_rng(3).normal(size=60))
    found = mean_of(values)
    percentiles = np.quantile([values[rows].mean() for rows in resamples(np.arange(60), 2000, 0)], [0.025, 0.975])
    assert found.high - found.value > 1.5 * (percentiles[1] - found.value)
    assert found.low > percentiles[0]


def test_a_perfect_auc_has_a_lower_bound() -> None:
    few, many = (binary(np.arange(200) < count, np.where(np.arange(200) < count, 0.9, 0.1)) for count in (3, 60))
    for found in (few, many):
        assert all(found[name].value == found[name].high == 1 for name in ("roc_auc", "pr_auc", "f1", "accuracy"))
        assert all(found[name].low < 1 for name in ("roc_auc", "pr_auc", "f1", "accuracy"))
    assert few["roc_auc"].low < 0.75 < 0.95 < many["roc_auc"].low
    assert few["accuracy"].low == many["accuracy"].low == pytest.approx(200 / (200 + 1.96**2), abs=1e-3)
    assert few["brier"].low == few["brier"].high == pytest.approx(0.01)  # no fraction: no interval


def test_few_mistakes_have_the_interval_of_a_fraction() -> None:
    actual = np.arange(100) % 2
    predicted = np.where(np.arange(100) < 3, 0.9 - 0.8 * actual, 0.1 + 0.8 * actual)
    found = binary(actual, predicted)["accuracy"]
    expected = stats.binomtest(97, 100).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    more = np.where(np.arange(100) < 9, 0.9 - 0.8 * actual, 0.1 + 0.8 * actual)
    bound = stats.binomtest(91, 100).proportion_ci(method="wilson")
    assert (binary(actual, more)["accuracy"].low, bound.low) == (
        pytest.approx(0.84, abs=0.02),
        pytest.approx(0.838, abs=0.01),
    )


def test_the_interval_of_an_auc_with_few_positive_rows_holds_the_truth() -> None:
    """Three positive rows, true AUC 0.9: the bootstrap's interval holds it in two of three cases."""
    gap, held, percentiles = stats.norm.ppf(0.9) * np.sqrt(2), 0, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        positive = np.arange(150) < 3
        scores_ = stats.norm.cdf(rng.normal(size=150) + gap * positive)
        found = binary(positive.astype(int), scores_, names=["roc_auc"])["roc_auc"]
        held += found.low <= 0.9 <= found.high
        below = np.searchsorted(np.sort(scores_[~positive]), scores_[positive]) / 147
        percentiles += below.min() <= 0.9 <= below.max()
    assert held / 150 >= 0.92 and percentiles / 150 < 0.85


def test_groups_of_a_rare_class_count_once() -> None:
    actual = np.repeat([1, 0], [4, 96])
    kinds = ("pairs", "positives", "classes")
    alone = [fractions.interval(kind, 0.8, actual, np.arange(100)) for kind in kinds]  # type: ignore[arg-type]
    grouped = [fractions.interval(kind, 0.8, actual, np.arange(100) // 2) for kind in kinds]  # type: ignore[arg-type]
    for one, other in zip(alone, grouped, strict=True):
        assert one and other and other[0] < one[0] < 0.8 < one[1] < other[1]


def test_rows_of_one_class_say_nothing_about_the_other() -> None:
    found = binary(np.zeros(50, dtype=int), np.linspace(0.1, 0.7, 50))
    assert (found["f1"].value, found["f1"].low, found["f1"].high) == (0, 0, 1)
    assert np.isnan(found["roc_auc"].value) and 0.4 < found["accuracy"].low < found["accuracy"].high < 0.9


def test_a_metric_that_hardly_any_resample_defines_is_an_error() -> None:
    own = {"rare": Own(lambda actual, outputs, predicted: float(actual.mean()) if len({*actual}) > 45 else np.nan)}
    values = np.random.default_rng(0).normal(size=50)
    with pytest.raises(ProjectError, match=r"evaluate\.bootstrap gives 500 resamples, of which 500 do not define"):
        intervals.of_metrics(own, (values, values, values), np.arange(50), 500, 0)


def test_a_metric_of_ones_own_has_an_interval_and_one_that_is_not_defined_has_none() -> None:
    values = np.random.default_rng(0).normal(size=100)
    own = {
        "median": Own(lambda actual, outputs, predicted: float(np.median(actual))),
        "never": Own(lambda actual, outputs, predicted: float("nan")),
        "at times": Own(lambda actual, outputs, predicted: float(actual.mean()) if values[0] in actual else np.nan),
    }
    arrays = values, values, values
    found = intervals.of_metrics(own, arrays, np.arange(100), 2000, 0)
    assert found["median"].low < np.median(values) < found["median"].high
    assert np.isnan(found["never"].value)
    assert found["at times"].low < values.mean() < found["at times"].high
    assert scores.of_metrics("regression", own, arrays, np.arange(100), 2000, 0)["never"] is None


def test_a_constant_has_no_interval() -> None:
    found = scores.of_metrics("regression", MEAN, (np.ones(50),) * 3, np.arange(50), 1000, 0)["mean"]
    assert found == {"value": 1.0, "low": 1.0, "high": 1.0, "coverage": None}


def test_one_group_alone_has_no_interval() -> None:
    found = mean_of(np.arange(20.0), np.zeros(20, dtype=int))
    assert found.low == found.high == found.value


TABLE = """
binary - 100 100 1 400 roc_auc=0.900 brier=0.950
binary - 100 100 30 400 roc_auc=0.940 brier=0.990
binary - 10000 10000 3000 400 roc_auc=0.950 brier=0.950
binary - 1000 50 300 400 roc_auc=0.920 brier=0.950
regression normal 100 100 - 400 rmse=0.950
regression log-normal 100 100 - 400 rmse=0.800
"""


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coverage, "cells", lambda: coverage.parse(TABLE))


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("rows", "groups", "rarest", "expected"),
    [(150, 150, 2, 0.9), (150, 150, 40, 0.94), (5000, 5000, 900, 0.95), (900, 60, 200, 0.92)],
)
def test_coverage_is_that_of_the_rows_most_like_these(rows: int, groups: int, rarest: int, expected: float) -> None:
    assert coverage.measured(Conditions("binary", None, rows, groups, rarest))["roc_auc"] == expected


@pytest.mark.usefixtures("table")
def test_coverage_of_what_was_not_measured_is_not_known() -> None:
    assert coverage.measured(Conditions("binary", None, 1000, 10, 300)) == {}
    assert coverage.measured(Conditions("multiclass", None, 100, 100, 30)) == {}


@pytest.mark.usefixtures("table")
def test_a_score_says_its_coverage_where_it_is_not_95_percent() -> None:
    wanted = {"rmse": metrics.METRICS["regression"]["rmse"]} | MEAN
    for errors, expected in ((NORMAL, None), (np.exp(NORMAL) - np.exp(NORMAL).mean(), 0.8)):
        found = scores.of_metrics("regression", wanted, (errors, 0 * errors, 0 * errors), np.arange(100), 1000, 0)
        assert found["rmse"] and found["rmse"].get("coverage") == expected
        assert ("coverage" in found["rmse"]) == (expected is not None)
        assert found["mean"] and found["mean"]["coverage"] is None  # no metric of the template's


def test_conditions_name_what_coverage_depends_on() -> None:
    actual = np.repeat([0, 1], [90, 10])
    outputs = np.full((100, 2), 0.5)
    assert coverage.conditions("binary", actual, outputs, np.arange(100) // 2) == Conditions(
        "binary", None, 100, 50, 10
    )
    for errors, name in ((NORMAL, "normal"), (np.exp(NORMAL) - np.exp(NORMAL).mean(), "log-normal")):
        found = coverage.conditions("regression", errors, 0 * errors, np.arange(100))
        assert found == Conditions("regression", name, 100, 100, None)  # type: ignore[arg-type]


def test_the_document_has_the_table_that_the_report_prints_from() -> None:
    text = (ROOT / "docs/statistics.md").read_text(encoding="utf-8")
    part = text.partition("<!-- coverage -->")[2].partition("<!-- end of coverage -->")[0]
    shown = [re.findall(r"[\d.]+(?=%)", line) for line in part.split("\n") if re.search(r"\d%", line)]
    assert shown == [[f"{100 * value:.1f}" for value in cell.coverage.values()] for cell in coverage.cells()]
    assert len(shown) > 40
    names = {cell.conditions.task: [*cell.coverage] for cell in coverage.cells()}
    assert {task: [*known] for task, known in metrics.METRICS.items()} == names
