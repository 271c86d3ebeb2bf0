"""Training for real, on a small table: it learns, resumes to the same weights, and exports what it has trained."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TARGETS, VALUES, prepared, settings, statistics
from project import calibration, evaluate, metrics, train
from project.model import export
from project.settings import Settings
from project.splits import Splits, choose_device
from project.train import Entry

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.integrations import tracking
from gitops.tabular import numbers
from gitops.training import program


class Callback:
    """Stands in for an MLflow run; Ctrl-C comes in the epoch `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at

    def __getattr__(self, method: str) -> Any:
        return lambda *_: {}

    def log(self, entry: Entry) -> None:
        if entry["epoch"] == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Splits:
    """The prepared splits of the table, for the task that a test names."""
    monkeypatch.chdir(tmp_path)
    task = getattr(request, "param", "binary")
    frames, schema = prepared(task)
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST):
        artifacts.write_parquet(path, frames[path.stem])
    artifacts.write_json(artifacts.SCHEMA, schema)
    numbers.write(artifacts.NUMBERS, statistics(frames["train"], schema))
    return train.load_splits(settings(task))


def numbers_of(rows: Any) -> list[list[float]]:
    """Return the numbers of each row, 0 for missing."""
    return [row for part in rows.parts(100) for row in part.numbers.nan_to_num().tolist()]


def fit(splits: Splits, epochs: int, checkpoint: str = "checkpoint.pt", stop_at: int | None = None) -> Any:
    chosen = settings(splits.schema["task"], train={"epochs": epochs})
    return train.fit_model(chosen, splits, Path(checkpoint), Callback(stop_at))


@pytest.mark.parametrize("splits", TARGETS, indirect=True)
def test_it_learns_and_the_exported_program_answers_the_same(splits: Splits) -> None:
    model, history = fit(splits, epochs=12)
    losses = [entry["val_loss"] for entry in history]
    assert min(losses) < losses[0]
    actual, expected, _ = train.predict(model, splits, splits.val)
    assert len(actual) == len(expected) and np.isfinite(expected).all()
    if splits.schema["target"]["classes"]:
        np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)

    program.save(export(model, splits.schema), artifacts.MODEL)
    exported, frame = torch.export.load(artifacts.MODEL).module(), artifacts.read_parquet(artifacts.VAL)
    for rows in (1, 2, len(frame)):
        answer = evaluate.predict(exported, frame.head(rows), splits.schema)
        np.testing.assert_allclose(answer, expected[:rows], rtol=1e-4, atol=1e-6)
    if splits.schema["target"]["classes"]:
        assert calibration.report(exported, actual, expected)["temperature"] == pytest.approx(model.temperature.item())
    assert_odd_rows_get_finite_answers(exported, frame, splits.schema)


def assert_odd_rows_get_finite_answers(exported: Any, frame: Any, schema: dict[str, Any]) -> None:
    """A new category, a huge number, and rows of missing values have answers too."""
    odd = frame.head(3).copy()
    odd.loc[odd.index[0], "colour"] = "ultraviolet"
    odd.loc[odd.index[1], "size"] = 1e300
    odd.loc[odd.index[2], ["size", "colour", "since", "member"]] = None
    assert np.isfinite(evaluate.predict(exported, odd, schema)).all()


def test_the_answer_has_the_tables_fractions_although_the_loss_has_weights(splits: Splits) -> None:
    """Odds that were learned with weights are odds times the weights' ratio, which the answer takes out."""
    changes = {"train": {"class_weights": "balanced", "epochs": 2}, "model": {"ensemble_size": 1}}
    model, _ = train.fit_model(settings("binary", **changes), splits, Path("checkpoint.pt"), Callback())
    weights = calibration.class_weights(splits.train.target, 2)
    assert torch.equal(model.class_weights, weights) and weights[1] > weights[0]
    _, outputs, _ = train.predict(model, splits, splits.val)
    model.class_weights.fill_(1)
    _, learned, _ = train.predict(model, splits, splits.val)
    ratio = (learned[:, 1] / learned[:, 0]) / (outputs[:, 1] / outputs[:, 0])
    np.testing.assert_allclose(ratio, (weights[1] / weights[0]) ** (1 / model.temperature), rtol=1e-3)


def test_weights_are_those_of_the_rows_in_the_loss(splits: Splits) -> None:
    model, _ = fit(splits, epochs=1)
    target = torch.tensor([0, 1, 1])
    outputs = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]], [[0.5, 0.0]]])
    single = [train.loss_of(model, outputs[row : row + 1], target[row : row + 1]).item() for row in range(3)]
    model.class_weights = torch.tensor([2.0, 0.5])
    expected = (2 * single[0] + 0.5 * single[1] + 0.5 * single[2]) / 3
    assert train.loss_of(model, outputs, target).item() == pytest.approx(expected)


def test_without_calibration_the_answer_is_the_networks_own(splits: Splits) -> None:
    chosen = settings("binary", train={"calibration": None, "threshold": None, "epochs": 1})
    model, _ = train.fit_model(chosen, splits, Path("checkpoint.pt"), Callback())
    assert model.temperature == 1
    assert model.decision == {"threshold": 0.5, "metric": None, "value": None}
    (numbers, categories, _), *_ = splits.val.parts(10_000)
    with torch.no_grad():
        plain = torch.softmax(model(numbers, categories), dim=2).mean(dim=1)
    np.testing.assert_allclose(train.predict(model, splits, splits.val)[1], plain, rtol=1e-5)


def test_the_decision_is_the_one_that_predictions_follow(splits: Splits) -> None:
    model, _ = fit(splits, epochs=2)
    actual, outputs, predicted = train.predict(model, splits, splits.val)
    assert model.decision == calibration.choose_threshold("f1", metrics.METRICS["binary"], actual, outputs)
    assert predicted.tolist() == (outputs[:, 1] >= model.decision["threshold"]).astype(int).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"today": {"column": "weight"}}, r"value\.today\.column is 'weight', which the splits lack"),
        (
            {"answers": {"a": {"a": 0.0, "b": 0.0}, "b": {"a": 0.0, "b": 0.0}}, "today": {"answer": "a"}},
            r"for a, b, and",
        ),
    ],
)
def test_a_value_that_does_not_fit_ends_before_the_training(
    splits: Splits, changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings("binary", value=VALUES["binary"] | changes, data={"positive": None})
    monkeypatch.setattr(Settings, "load", lambda: chosen)
    monkeypatch.setattr(tracking, "start", lambda *_: nullcontext(Callback()))
    monkeypatch.setattr(train, "_fit", lambda *_: pytest.fail("trained"))
    with pytest.raises(ProjectError, match=message):
        train.main()


def test_an_interrupted_training_resumes_to_the_same_weights(splits: Splits) -> None:
    whole, history = fit(splits, epochs=6, checkpoint="whole.pt")
    with pytest.raises(KeyboardInterrupt):
        fit(splits, epochs=6, checkpoint="broken.pt", stop_at=3)
    resumed, resumed_history = fit(splits, epochs=6, checkpoint="broken.pt")
    assert resumed_history == history
    for left, right in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_the_same_training_is_the_same_file(splits: Splits) -> None:
    for name in ("one", "another"):
        model, _ = fit(splits, epochs=1, checkpoint=f"{name}.pt")
        program.save(export(model, splits.schema), Path(f"{name}.pt2"))
    assert Path("one.pt2").read_bytes() == Path("another.pt2").read_bytes()


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(ProjectError, match=r"train\.device is 'cuda'"):
        choose_device("cuda")


@pytest.mark.parametrize("splits", TARGETS, indirect=True)
def test_the_stages_hand_the_decision_on(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` writes it, and the predictions and metrics of `evaluate` are by it."""
    task, classes = splits.schema["task"], splits.schema["target"]["classes"]
    chosen = settings(task, train={"epochs": 2}, value=VALUES[task])
    monkeypatch.setattr(Settings, "load", lambda: chosen)
    for stage in ("start", "resume"):
        monkeypatch.setattr(tracking, stage, lambda *_: nullcontext(Callback()))
    train.main()
    decision = artifacts.read_json(artifacts.DECISION, "train")
    assert decision.keys() == ({"threshold", "metric", "value"} if task == "binary" else set())
    if task == "binary":  # a threshold at which other classes are predicted than at one half
        artifacts.write_json(artifacts.DECISION, decision | {"threshold": 0.03125})
    evaluate.main()
    result, table = artifacts.read_json(artifacts.METRICS, "evaluate"), artifacts.read_parquet(artifacts.PREDICTIONS)
    assert ("calibration" in result) == bool(classes)
    plots = {path.stem for path in artifacts.PLOTS.glob("*.csv")}
    assert {"value", "decision_curve"} & plots == ({"value", "decision_curve"} if task == "binary" else set())
    if task == "binary":
        assert table["prediction"].tolist() == np.where(table["p_yes"] >= 0.03125, "yes", "no").tolist()
        assert (np.where(table["p_yes"] >= 0.5, "yes", "no") != table["prediction"]).any()
        right = (table["prediction"] == table["target"])[table["split"] == "test"].mean()
        assert result["metrics"]["accuracy"]["value"] == pytest.approx(right)
        hits = table[(table["split"] == "test") & (table["target"] == "yes") & (table["prediction"] == "yes")]
        assert result["confusion"]["counts"][1][1] == len(hits)


@pytest.mark.parametrize("splits", TARGETS, indirect=True)
def test_a_part_that_is_held_out_is_not_trained_on(splits: Splits) -> None:
    whole = splits.train.target.double().numpy()
    parts = []
    for seed in range(3):
        rest, held = train.hold_out(splits, 0.2, seed)
        assert len(held) == pytest.approx(0.2 * len(whole), abs=1)
        assert sorted(numbers_of(rest.train) + numbers_of(held)) == sorted(numbers_of(splits.train))
        # The target's distribution is that of the whole split: of rows drawn at random alone it would not always be.
        assert held.target.double().mean().item() == pytest.approx(whole.mean(), abs=0.15 * whole.std())
        assert rest.val is splits.val
        parts.append(held.target.tolist())
        assert torch.equal(train.hold_out(splits, 0.2, seed)[1].target, held.target)
    assert parts[0] != parts[1] != parts[2]


def test_groups_are_held_out_whole(splits: Splits) -> None:
    groups = np.arange(len(splits.train)) // 4
    rest, held = train.hold_out(replace(splits, train=replace(splits.train, groups=groups)), 0.2, seed=1)
    assert len(held) == pytest.approx(0.2 * len(groups), abs=4)
    whole, kept = [*map(tuple, numbers_of(splits.train))], {*map(tuple, numbers_of(rest.train))}
    inside = np.array([row in kept for row in whole])
    for group in range(len(groups) // 4):
        assert len(set(inside[groups == group])) == 1
    assert rest.train.groups.tolist() == groups[inside].tolist()


def test_too_few_groups_to_hold_a_part_out_are_an_error(splits: Splits) -> None:
    with pytest.raises(ProjectError, match="9 groups of training rows are too few to hold 20% of them out"):
        train.hold_out(
            replace(splits, train=replace(splits.train, groups=np.arange(len(splits.train)) % 9)), 0.2, seed=1
        )
