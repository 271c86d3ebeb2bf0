"""The temperature makes probabilities hold, and the threshold is the best one by its metric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import VALUES
from project import calibration, metrics
from project.metrics import METRICS, Array, Metric
from scipy.special import expit, softmax

from gitops.core.artifacts import ProjectError
from gitops.core.value import Value

ROWS = 4000


def binary(positive: Array) -> Array:
    return np.stack([1 - positive, positive], axis=1)


def sampled(classes: int, seed: int = 0) -> tuple[Array, Array]:
    """Return the actual classes of rows, drawn by their probabilities, and the logits of these."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(ROWS, classes))
    drawn = softmax(logits, axis=1).cumsum(axis=1) < rng.random((ROWS, 1))
    return drawn.sum(axis=1), logits


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("confidence", [0.5, 2.0])
def test_the_temperature_undoes_too_much_or_too_little_confidence(classes: int, confidence: float) -> None:
    actual, logits = sampled(classes)
    outputs = softmax(logits * confidence, axis=1)
    temperature = calibration.best_temperature(actual, outputs)
    assert temperature == pytest.approx(confidence, rel=0.1)
    before = calibration.calibration_error(actual, outputs)
    after = calibration.calibration_error(actual, calibration.temper(outputs, temperature))
    assert before > 0.05 and after < 0.025


def test_rows_without_an_error_do_not_make_the_model_certain() -> None:
    actual = np.arange(60) % 2
    temperature = calibration.best_temperature(actual, binary(np.where(actual, 0.95, 0.05)))
    assert 0.3 < temperature < 1


def test_a_temperature_is_undone_by_its_inverse() -> None:
    outputs = softmax(sampled(3)[1], axis=1)
    np.testing.assert_allclose(calibration.temper(calibration.temper(outputs, 3.0), 1 / 3.0), outputs)


def test_the_calibration_error_is_that_of_bins_of_equal_count() -> None:
    """The lower half of the rows is positive half as often as predicted, the upper half as often as predicted."""
    positive = np.repeat([0.2, 0.8], 50)
    actual = np.concatenate([np.arange(50) % 10 == 0, np.arange(50) % 5 > 0]).astype(int)
    assert calibration.calibration_error(actual, binary(positive)) == pytest.approx((0.1 + 0.0) / 2)


def test_classes_weigh_the_same() -> None:
    weights = calibration.class_weights(torch.tensor([0] * 90 + [1] * 10), 3)
    assert weights.tolist() == pytest.approx([100 / 270, 100 / 30, 100 / 3])


@pytest.mark.parametrize(
    ("positive", "actual", "threshold", "value"),
    [
        ([0.1, 0.25, 0.5, 0.75], [0, 0, 1, 1], 0.375, 1.0),  # any in (0.25, 0.5] is right on all rows
        ([0.1, 0.25, 0.5, 0.75], [0, 1, 0, 1], 0.175, 0.8),  # in (0.1, 0.25]
        ([0.25, 0.25, 0.25, 0.75], [0, 0, 0, 1], 0.5, 1.0),
        ([0.0, 1.0, 1.0], [0, 1, 1], 0.5, 1.0),
    ],
)
def test_the_threshold_is_in_the_middle_of_the_best_ones(
    positive: list[float], actual: list[int], threshold: float, value: float
) -> None:
    found = calibration.choose_threshold("f1", METRICS["binary"], np.array(actual), binary(np.array(positive)))
    assert found == {"threshold": pytest.approx(threshold), "metric": "f1", "value": pytest.approx(value)}


def test_a_metric_that_is_better_when_lower_chooses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = Metric(lambda actual, outputs, predicted: float(((predicted == 0) & (actual == 1)).mean()), "lower")
    monkeypatch.setitem(METRICS["binary"], "missed", cost)
    found = calibration.choose_threshold(
        "missed", METRICS["binary"], np.array([0, 1, 0, 1]), binary(np.array([0.2, 0.4, 0.6, 0.8]))
    )
    assert found["value"] == 0 and found["threshold"] == pytest.approx(0.2)


def test_what_answers_are_worth_chooses_the_threshold() -> None:
    """A case that is missed costs fifty needless answers: that is worth it from a probability of 1 in 50 on."""
    answers = {"yes": {"yes": -1.0, "no": -50.0}, "no": {"yes": -1.0, "no": 0.0}}
    value = Value.model_validate(VALUES["binary"] | {"answers": answers})
    rng = np.random.default_rng(0)
    positive = rng.beta(0.3, 3, 100_000)
    actual = (rng.random(100_000) < positive).astype(int)
    known = metrics.of("binary", ["no", "yes"], value)
    found = calibration.choose_threshold("expected_value", known, actual, binary(positive))
    assert found["metric"] == "expected_value" and found["threshold"] == pytest.approx(0.02, abs=0.01)
    assert found["value"] > known["expected_value"].score(actual, binary(positive), (positive >= 0.5).astype(int))


def test_without_a_metric_it_is_one_half() -> None:
    found = calibration.choose_threshold(None, {}, np.array([0, 1]), binary(np.array([0.1, 0.2])))
    assert found == {"threshold": 0.5, "metric": None, "value": None}


@pytest.mark.parametrize("actual", [np.zeros(5, dtype=int), np.ones(5, dtype=int)])
def test_rows_of_one_class_choose_none(actual: Array) -> None:
    with pytest.raises(ProjectError, match=r"5 validation rows .* f1.* train\.threshold"):
        calibration.choose_threshold("f1", METRICS["binary"], actual, binary(np.linspace(0.1, 0.9, 5)))


def test_in_whatever_precision_the_same_rows_are_positive() -> None:
    """Neighbours in float32, with no number between them: the training compares in float64, servers do not."""
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    outputs = binary(np.array([low, high], dtype=np.float32))
    threshold = calibration.choose_threshold("f1", METRICS["binary"], np.array([0, 1]), outputs.astype(float))[
        "threshold"
    ]
    for kind in (np.float32, np.float64):
        assert (outputs[:, 1].astype(kind) >= threshold).tolist() == [False, True]
    assert (torch.tensor(outputs[:, 1]) >= threshold).tolist() == [False, True]


def test_rare_positives_are_found_from_the_right_threshold_on() -> None:
    """1 % positives and calibrated probabilities whose ROC AUC is 0.93: at one half hardly one of them is found."""
    rng = np.random.default_rng(1)
    splits = []
    for _ in range(2):
        actual = (rng.random(40_000) < 0.01).astype(int)
        apart = 2.087  # standard deviations between the classes: an AUC of 0.93
        score = rng.normal(size=len(actual)) + apart * actual
        splits.append((actual, binary(expit(apart * score - apart**2 / 2 + np.log(0.01 / 0.99)))))
    (actual, outputs), (test_actual, test_outputs) = splits
    metric = METRICS["binary"]["f1"]
    threshold = calibration.choose_threshold("f1", METRICS["binary"], actual, outputs)["threshold"]
    half, best = (
        metric.score(test_actual, test_outputs, (test_outputs[:, 1] >= it).astype(int)) for it in (0.5, threshold)
    )
    assert METRICS["binary"]["roc_auc"].score(test_actual, test_outputs, test_actual) == pytest.approx(0.93, abs=0.02)
    assert threshold < 0.25
    assert best > half + 0.1


def test_many_rows_cost_a_bounded_number_of_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def f1(actual: Array, outputs: Array, predicted: Array) -> float:
        calls.append(1)
        return METRICS["binary"]["accuracy"].score(actual, outputs, predicted)

    monkeypatch.setitem(METRICS["binary"], "f1", Metric(f1, "higher"))
    rng = np.random.default_rng(0)
    positive = rng.random(50_000)
    actual = (rng.random(50_000) < positive).astype(int)
    found = calibration.choose_threshold("f1", METRICS["binary"], actual, binary(positive))
    assert found["threshold"] == pytest.approx(0.5, abs=0.05)
    assert len(calls) <= calibration.THRESHOLDS + 2
