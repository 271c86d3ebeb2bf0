"""Our metrics against scikit-learn's definitions; they exist because a bootstrap calls them a thousand times."""

from __future__ import annotations

import numpy as np
import pytest
from breast_cancer import metrics
from sklearn import metrics as reference

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("ties", [False, True])
def test_binary(ties: bool) -> None:
    actual = RNG.integers(0, 2, 300)
    scores = (actual * 0.3 + RNG.random(300)) / 1.3
    scores = scores.round(1) if ties else scores
    outputs = np.stack([1 - scores, scores], axis=1)
    predicted = outputs.argmax(axis=1)
    assert metrics.score("binary", actual, outputs) == pytest.approx(
        {
            "roc_auc": reference.roc_auc_score(actual, scores),
            "pr_auc": reference.average_precision_score(actual, scores),
            "f1": reference.f1_score(actual, predicted),
            "accuracy": reference.accuracy_score(actual, predicted),
            "brier": reference.brier_score_loss(actual, scores),
        }
    )


def test_multiclass() -> None:
    actual = RNG.integers(0, 3, 200)
    outputs = RNG.dirichlet(np.ones(4), 200)  # the fourth class never occurs, but is predicted
    predicted = outputs.argmax(axis=1)
    assert metrics.score("multiclass", actual, outputs) == pytest.approx(
        {
            "macro_f1": reference.f1_score(actual, predicted, average="macro"),
            "accuracy": reference.accuracy_score(actual, predicted),
            "log_loss": reference.log_loss(actual, outputs, labels=range(4)),
        }
    )
    assert metrics.confusion(actual, outputs) == reference.confusion_matrix(actual, predicted, labels=range(4)).tolist()


def test_regression() -> None:
    actual = RNG.normal(size=100)
    outputs = actual + RNG.normal(size=100)
    assert metrics.score("regression", actual, outputs) == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(actual, outputs),
            "mae": reference.mean_absolute_error(actual, outputs),
            "r2": reference.r2_score(actual, outputs),
        }
    )


def test_a_metric_that_one_class_does_not_define_is_nan() -> None:
    scores = metrics.score("binary", np.zeros(5, dtype=int), np.tile([0.9, 0.1], (5, 1)))
    assert np.isnan(scores["roc_auc"])
    assert np.isnan(scores["pr_auc"])
    assert scores["accuracy"] == 1


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    truth, held = 0.7, 0
    for seed in range(100):
        right = np.random.default_rng(seed).random(200) < truth
        outputs = np.where(right, 0.9, 0.1)
        interval = metrics.bootstrap("binary", np.ones(200, dtype=int), np.stack([1 - outputs, outputs], 1), 200, seed)
        held += interval["accuracy"]["low"] <= truth <= interval["accuracy"]["high"]
    assert 88 <= held <= 100


def test_intervals_are_the_same_every_time() -> None:
    actual, outputs = RNG.normal(size=50), RNG.normal(size=50)
    first, second = (metrics.bootstrap("regression", actual, outputs, 100, seed=1) for _ in range(2))
    assert first == second
    assert first["rmse"]["low"] < first["rmse"]["value"] < first["rmse"]["high"]
