"""Training for real, on a small table: it learns, resumes to the same weights, and exports what it has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TARGETS, prepared, settings
from project import evaluate, train
from project.model import export
from project.train import Entry, Splits

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError


class Callback:
    """Stands in for an MLflow run; Ctrl-C comes in the epoch `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at

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
    return train.load_splits(settings(task))


def fit(splits: Splits, epochs: int, checkpoint: str = "checkpoint.pt", stop_at: int | None = None) -> Any:
    chosen = settings(splits.schema["task"], train={"epochs": epochs})
    return train.fit_model(chosen, splits, Path(checkpoint), Callback(stop_at))


@pytest.mark.parametrize("splits", TARGETS, indirect=True)
def test_it_learns_and_the_exported_program_answers_the_same(splits: Splits) -> None:
    model, history = fit(splits, epochs=12)
    losses = [entry["val_loss"] for entry in history]
    assert min(losses) < losses[0]
    actual, expected, _ = train.predict_validation(model, splits)
    assert len(actual) == len(expected) and np.isfinite(expected).all()
    if splits.schema["target"]["classes"]:
        np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)

    train.save(export(model, splits.schema), artifacts.MODEL)
    program, frame = torch.export.load(artifacts.MODEL).module(), artifacts.read_parquet(artifacts.VAL)
    for rows in (1, 2, len(frame)):
        answer = evaluate.predict(program, frame.head(rows), splits.schema)
        np.testing.assert_allclose(answer, expected[:rows], rtol=1e-4, atol=1e-6)
    assert_odd_rows_get_finite_answers(program, frame, splits.schema)


def assert_odd_rows_get_finite_answers(program: Any, frame: Any, schema: dict[str, Any]) -> None:
    """A new category, a huge number, and rows of missing values have answers too."""
    odd = frame.head(3).copy()
    odd.loc[odd.index[0], "colour"] = "ultraviolet"
    odd.loc[odd.index[1], "size"] = 1e300
    odd.loc[odd.index[2], ["size", "colour", "since", "member"]] = None
    assert np.isfinite(evaluate.predict(program, odd, schema)).all()


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
        train.save(export(model, splits.schema), Path(f"{name}.pt2"))
    assert Path("one.pt2").read_bytes() == Path("another.pt2").read_bytes()


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert train.choose_device("auto").type == "cpu"
    with pytest.raises(ProjectError, match=r"train\.device is 'cuda'"):
        train.choose_device("cuda")
