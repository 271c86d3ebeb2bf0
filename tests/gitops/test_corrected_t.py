"""The t-test of `make tune`: its numbers, and how often it errs where nothing is better."""

from __future__ import annotations

import numpy as np
import pytest
from gitops.statistics import corrected_t
from scipy import stats


def test_without_shared_rows_it_is_the_ordinary_one_sided_t_test() -> None:
    differences = [0.3, -0.1, 0.4, 0.2, 0.1]
    expected = stats.ttest_1samp(differences, 0, alternative="greater")
    assert corrected_t.p_value(differences, 0) == pytest.approx(expected.pvalue)
    assert corrected_t.lower_bound(differences, 0) == pytest.approx(expected.confidence_interval(0.95).low)


def test_the_correction_adds_the_ratio_of_scored_to_trained_rows() -> None:
    """Nadeau and Bengio (2003), section 5: 1 / J becomes 1 / J + n2 / n1."""
    differences = [1.0, 2.0, 3.0, 4.0]
    ordinary = corrected_t.standard_error(differences, 0)
    assert corrected_t.standard_error(differences, 0.25) == pytest.approx(ordinary * np.sqrt((1 / 4 + 0.25) / (1 / 4)))


@pytest.mark.parametrize(("differences", "p_value"), [([0.0] * 3, 1.0), ([0.5] * 3, 0.0), ([-0.5] * 3, 1.0)])
def test_differences_without_variance_decide_by_their_sign(differences: list[float], p_value: float) -> None:
    assert corrected_t.p_value(differences, 0.25) == p_value


def test_the_bound_and_the_p_value_say_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        differences = rng.normal(0.5, 1, size=10).tolist()
        assert (corrected_t.p_value(differences, 0.25) < 0.05) == (corrected_t.lower_bound(differences, 0.25) > 0)


def test_the_luck_of_the_rows_is_not_taken_for_a_difference() -> None:
    """Each row favours one of two equal ways at random, and ten repeats score a fifth of the same 200 rows each."""
    rng = np.random.default_rng(1)
    false = {0.0: 0, 0.25: 0}
    for _ in range(1000):
        rows = rng.normal(size=200)
        differences = [float(rng.permutation(rows)[:40].mean()) for _ in range(10)]
        for ratio in false:
            false[ratio] += corrected_t.p_value(differences, ratio) < 0.05
    assert false[0.25] <= 60 and false[0.0] > 150
