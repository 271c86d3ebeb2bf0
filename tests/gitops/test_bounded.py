"""The interval of a mean between known bounds (statistics/bounded.py)."""

from __future__ import annotations

import numpy as np
import pytest
from gitops.core.artifacts import ProjectError
from gitops.statistics import bounded
from scipy.stats import beta

DRAWS = 20_000


@pytest.mark.parametrize(("rows", "ones"), [(30, 0), (30, 3), (200, 1), (200, 100), (50, 50)])
def test_of_a_fraction_it_is_that_of_clopper_and_pearson(rows: int, ones: int) -> None:
    low, high = bounded.interval(np.arange(rows) < ones, (0.0, 1.0), np.arange(rows), DRAWS, 1)
    exact = beta.ppf(0.025, ones, rows - ones + 1) if ones else 0.0
    assert low == pytest.approx(exact, abs=0.004)
    exact = beta.ppf(0.975, ones + 1, rows - ones) if ones < rows else 1.0
    assert high == pytest.approx(exact, abs=0.004)


def test_it_scales_with_the_amounts() -> None:
    values = np.array([0.0, -400.0, -20000.0, 0.0, -400.0] * 20)
    one, other = (
        bounded.interval(factor * values, (-20000.0 * factor, 0.0), np.arange(100), 999, 1) for factor in (1, 3)
    )
    assert other == pytest.approx([3 * bound for bound in one])


def test_rows_of_a_group_count_once() -> None:
    """Ten equal rows in each of thirty groups say as much as thirty rows."""
    values = np.random.default_rng(0).choice([0.0, -1.0, -9.0], 30)
    alone = bounded.interval(values, (-9.0, 0.0), np.arange(30), DRAWS, 1)
    together = bounded.interval(values.repeat(10), (-9.0, 0.0), np.arange(30).repeat(10), DRAWS, 1)
    careless = bounded.interval(values.repeat(10), (-9.0, 0.0), np.arange(300), DRAWS, 1)
    assert together == pytest.approx(alone, abs=0.05)
    assert careless[1] - careless[0] < 0.5 * (together[1] - together[0])


def test_it_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(0).choice([0.0, -1.0], 60), np.repeat(np.arange(30), 2)
    whole = bounded.interval(values, (-1.0, 0.0), groups, DRAWS, 1)
    monkeypatch.setattr(bounded, "AT_ONCE", 100)
    assert bounded.interval(values, (-1.0, 0.0), groups, DRAWS, 1) == pytest.approx(whole, abs=0.02)


def test_where_all_values_must_be_equal_it_is_this_value() -> None:
    assert bounded.interval(np.full(7, -400.0), (-400.0, -400.0), np.arange(7), 100, 1) == (-400.0, -400.0)


def test_too_few_draws_are_an_error_that_says_how_many_are_needed() -> None:
    with pytest.raises(ProjectError, match=r"needs 39"):
        bounded.interval(np.zeros(9), (-1.0, 0.0), np.arange(9), 20, 1)


def test_it_holds_the_true_mean_where_one_row_in_a_hundred_costs_most() -> None:
    """Of a hundred rows a third lack such a row."""
    held = 0
    for seed in range(300):
        values = np.random.default_rng(seed).choice([0.0, -1.0, -100.0], 100, p=[0.8, 0.19, 0.01])
        low, high = bounded.interval(values, (-100.0, 0.0), np.arange(100), 400, seed)
        held += low <= -1.19 <= high
    assert held >= 0.93 * 300
