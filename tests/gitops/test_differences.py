"""Bounds of the differences between models, alone and together, and what the gate decides by them."""

from __future__ import annotations

import numpy as np
import pytest
from gitops.core.artifacts import ProjectError
from gitops.gate import decision
from gitops.statistics import differences

RNG = np.random.default_rng(0)


def resampled(rows: np.ndarray, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the columns of `rows`, and those of bootstrap resamples."""
    drawn = np.array([rows[RNG.integers(0, len(rows), len(rows))].mean(axis=0) for _ in range(count)])
    return rows.mean(axis=0), drawn


def test_a_bound_of_many_rows_is_the_percentile_of_the_resamples() -> None:
    values, drawn = resampled(RNG.normal(size=(1000, 1)))
    lower, upper = differences.lower_bounds(values, drawn, 10**6), differences.upper_bounds(values, drawn, 10**6)
    assert lower == pytest.approx(np.quantile(drawn, 0.05, method="weibull"), abs=1e-4)
    assert upper == pytest.approx(np.quantile(drawn, 0.95, method="weibull"), abs=1e-4)


def test_bounds_of_few_groups_are_wider() -> None:
    values, drawn = resampled(RNG.normal(size=(50, 1)))
    widths = [float((differences.upper_bounds(values, drawn, groups) - values)[0]) for groups in (3, 10, 10**6)]
    # Student's t for two degrees of freedom, and n / (n - 1).
    assert widths[0] / widths[2] == pytest.approx(np.sqrt(3 / 2) * 2.920 / 1.645, rel=1e-3)
    assert widths[0] > widths[1] > widths[2]


def test_together_bounds_are_wider_unless_the_differences_are_one() -> None:
    one = RNG.normal(size=(200, 1))
    same, drawn_same = resampled(np.repeat(one, 10, axis=1))
    alone = differences.upper_bounds(same[:1], drawn_same[:, :1], 200)
    assert differences.upper_bounds(same, drawn_same, 200) == pytest.approx(np.repeat(alone, 10))
    values, drawn = resampled(RNG.normal(size=(200, 10)))
    together, errors = differences.upper_bounds(values, drawn, 200), drawn.std(axis=0, ddof=1)
    # Of ten independent ones, 0.995 of each: 2.57 standard errors in place of 1.645.
    assert (together - values) / errors == pytest.approx(np.full(10, 2.57), abs=0.35)


def test_the_error_rate_holds_for_all_releases_together() -> None:
    """Ten releases of equal models: one at a time, some would seem better in far more than 5 % of the cases."""
    together = alone = 0
    for _ in range(300):
        values, drawn = resampled(RNG.normal(size=(100, 10)), count=200)
        together += bool((differences.upper_bounds(values, drawn, 100) < 0).any())
        alone += bool((differences.lower_bounds(-values, -drawn, 100) > 0).any())
    assert together <= 27 and alone > 75


def test_a_difference_without_variance_is_its_own_bound() -> None:
    """What rounding leaves of it does not widen the bounds of the others."""
    drawn = np.column_stack([np.where(np.arange(100) % 2, 0.2, 0.2 + 1e-15), RNG.normal(size=100)])
    values = np.array([0.2 - 1e-15, 0.0])
    lower, upper = differences.lower_bounds(values, drawn, 50), differences.upper_bounds(values, drawn, 50)
    assert [lower[0], upper[0]] == pytest.approx([0.2, 0.2])
    assert upper[1] == pytest.approx(differences.upper_bounds(values[1:], drawn[:, 1:], 50)[0])


def test_resamples_that_do_not_define_a_metric_are_left_out() -> None:
    values, drawn = resampled(RNG.normal(size=(100, 2)))
    with_gaps = np.insert(drawn, 7, np.nan, axis=0)
    for bounds in (differences.lower_bounds, differences.upper_bounds):
        assert bounds(values, with_gaps, 100) == pytest.approx(bounds(values, drawn, 100))


def test_too_few_resamples_for_a_bound_are_an_error_that_names_the_setting() -> None:
    with pytest.raises(ProjectError, match=r"set evaluate\.bootstrap to 19 or more"):
        differences.upper_bounds(np.zeros(1), np.zeros((10, 1)), 30)


@pytest.mark.parametrize(
    ("kind", "value", "lower", "upper", "passes"),
    [
        ("proved_worse", -0.02, -0.04, -0.001, False),
        ("proved_worse", -0.02, -0.04, 0.001, True),  # worse, not proved
        ("proved_worse", -0.009, -0.012, -0.006, True),  # proved, within the tolerance
        ("proved_worse", -0.01, -0.012, -0.006, True),
        ("not_worse", 0.02, -0.011, 0.05, False),
        ("not_worse", -0.005, -0.0099, 0.0, True),
        ("not_worse", -0.005, -0.01, 0.0, True),
    ],
)
def test_a_decision_is_made_by_value_bounds_and_tolerance(
    kind: str, value: float, lower: float, upper: float, passes: bool
) -> None:
    assert decision.passes(kind, 0.01, value, lower, upper) is passes
