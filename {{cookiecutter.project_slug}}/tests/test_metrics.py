"""Your metrics. Those that come with the template agree with scikit-learn, which is too slow for a bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from project import metrics
from sklearn import metrics as reference

RNG = np.random.default_rng(0)


Array = metrics.Array


def assert_scores(task: str, actual: Array, outputs: Array, predicted: Array, expected: dict[str, float]) -> None:
    """Compare those metrics of the task that `expected` names: METRICS may have lost some, and have others."""
    scores = metrics.score(task, actual, outputs, predicted)
    assert scores.keys() & expected.keys()
    for name in scores.keys() & expected.keys():
        assert scores[name] == pytest.approx(expected[name]), name


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, known in metrics.METRICS.items() for name in known])
def test_a_metric_prefers_the_truth_to_a_guess(task: str, name: str) -> None:
    """Each metric is a number, and its `better` is right."""
    classes = {"binary": 2, "multiclass": 3}.get(task)
    if classes:
        actual = np.arange(90) % classes
        right, guess = np.eye(classes)[actual] * 0.9 + 0.1 / classes, RNG.dirichlet(np.ones(classes), 90)
    else:
        actual = RNG.normal(size=90)
        right, guess = actual + 0.01, RNG.normal(size=90)
    metric = metrics.METRICS[task][name]
    truth, chance = (metric.score(actual, it, it.argmax(axis=1) if classes else it) for it in (right, guess))
    assert np.isfinite([truth, chance]).all()
    assert truth > chance if metric.better == "higher" else truth < chance


@pytest.mark.parametrize("ties", [False, True])
def test_binary(ties: bool) -> None:
    actual = RNG.integers(0, 2, 300)
    scores = (actual * 0.3 + RNG.random(300)) / 1.3
    scores = scores.round(1) if ties else scores
    outputs = np.stack([1 - scores, scores], axis=1)
    predicted = (scores > 0.3).astype(int)
    assert_scores(
        "binary",
        actual,
        outputs,
        predicted,
        {
            "roc_auc": reference.roc_auc_score(actual, scores),
            "pr_auc": reference.average_precision_score(actual, scores),
            "f1": reference.f1_score(actual, predicted),
            "accuracy": reference.accuracy_score(actual, predicted),
            "brier": reference.brier_score_loss(actual, scores),
        },
    )


def test_multiclass() -> None:
    actual = RNG.integers(0, 3, 200)
    outputs = RNG.dirichlet(np.ones(4), 200)  # the fourth class never occurs, but is predicted
    predicted = outputs.argmax(axis=1)
    assert_scores(
        "multiclass",
        actual,
        outputs,
        predicted,
        {
            "macro_f1": reference.f1_score(actual, predicted, average="macro"),
            "accuracy": reference.accuracy_score(actual, predicted),
            "log_loss": reference.log_loss(actual, outputs, labels=range(4)),
        },
    )
    counts = metrics.confusion(actual, predicted, 4)
    assert counts == reference.confusion_matrix(actual, predicted, labels=range(4)).tolist()


def test_regression() -> None:
    actual = RNG.normal(size=100)
    outputs = actual + RNG.normal(size=100)
    assert_scores(
        "regression",
        actual,
        outputs,
        outputs,
        {
            "rmse": reference.root_mean_squared_error(actual, outputs),
            "mae": reference.mean_absolute_error(actual, outputs),
            "r2": reference.r2_score(actual, outputs),
        },
    )


def test_a_metric_that_one_class_does_not_define_is_nan() -> None:
    actual, outputs = np.zeros(5, dtype=int), np.tile([0.9, 0.1], (5, 1))
    assert np.isnan(metrics.roc_auc(actual, outputs, actual))
    assert np.isnan(metrics.pr_auc(actual, outputs, actual))
    assert metrics.accuracy(actual, outputs, actual) == 1


@pytest.mark.parametrize(("task", "name"), [(task, name) for task, known in metrics.METRICS.items() for name in known])
def test_a_metric_that_is_a_fraction_is_one(task: str, name: str) -> None:
    """From 0 to 1, so that its interval can be that of a fraction (gitops/statistics/fractions.py)."""
    metric = metrics.METRICS[task][name]
    if metric.fraction_of is not None:
        classes = {"binary": 2, "multiclass": 3}[task]
        actual = np.arange(90) % classes
        right = np.eye(classes)[actual]
        wrong = np.eye(classes)[(actual + 1) % classes]
        assert metric.score(actual, right, right.argmax(axis=1)) == 1
        assert 0 <= metric.score(actual, wrong, wrong.argmax(axis=1)) <= 0.5
