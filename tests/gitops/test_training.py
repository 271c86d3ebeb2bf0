"""Training for real, on a small table: it learns, resumes to the same weights, and exports what it trained."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from breast_cancer import evaluate, features, metrics, prepare, train
from breast_cancer.model import TabularModel, export
from conftest import ROOT
from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data, Model, Train

SMALL = Model(width=32, depth=1, members=4, bins=8)


class Interrupted:
    """Stands in for an MLflow run; Ctrl-C comes in the epoch `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at

    def log(self, entry: dict[str, float]) -> None:
        if entry["epoch"] == self.stop_at:
            raise KeyboardInterrupt


def write_table(path: Path, rows: int = 400) -> None:
    rng = np.random.default_rng(0)
    size, colour = rng.normal(size=rows), rng.choice(["red", "green", "blue"], rows)
    since = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 7 * 24, rows), unit="h")
    value = size + (colour == "red") + np.sin(2 * np.pi * since.hour / 24) + rng.normal(size=rows) / 10
    frame = pd.DataFrame(
        {"size": size, "colour": colour, "since": since.strftime("%Y-%m-%dT%H:%M:%SZ"), "value": value}
    )
    frame["grade"] = pd.cut(frame["value"], [-9, 0.5, 1.5, 9], labels=["low", "middle", "high"])
    frame["top"] = frame["value"] > 1
    frame.loc[::40, ["size", "colour"]] = None
    frame.to_csv(path, index=False)


def prepared(tmp_path: Path, task: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    path = tmp_path / "raw.csv"
    write_table(path)
    targets = {"regression": "value", "multiclass": "grade", "binary": "top"}
    others = [name for other, name in targets.items() if other != task]
    return prepare.prepare(Data(path=str(path), target=targets[task], task=task, drop=others))  # type: ignore[arg-type]


def tensors(frame: pd.DataFrame, schema: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    target = features.encode_target(frame, schema)
    return *features.encode_frame(frame, schema), target.float() if target.is_floating_point() else target


def fitted(tmp_path: Path, task: str, epochs: int = 40) -> tuple[TabularModel, dict[str, pd.DataFrame], dict[str, Any]]:
    splits, schema = prepared(tmp_path, task)
    rows = tensors(splits["train"], schema)
    torch.manual_seed(0)
    model = TabularModel(schema, rows[0], rows[2], SMALL)
    settings = Train(epochs=epochs, learning_rate=0.01)
    train.fit(model, rows, tensors(splits["val"], schema), settings, tmp_path / "checkpoint.pt", Interrupted())  # type: ignore[arg-type]
    return model, splits, schema


@pytest.mark.parametrize(
    ("task", "metric", "least"),
    [("regression", "r2", 0.9), ("multiclass", "macro_f1", 0.8), ("binary", "roc_auc", 0.95)],
)
def test_it_learns_and_the_exported_graph_answers_the_same(
    tmp_path: Path, task: str, metric: str, least: float
) -> None:
    model, splits, schema = fitted(tmp_path, task)
    test = splits["test"]
    with torch.inference_mode():
        expected = model.eval().predict(*features.encode_frame(test, schema)).double().numpy()
    assert metrics.score(task, features.encode_target(test, schema).numpy(), expected)[metric] > least

    torch.export.save(export(model, schema), tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for rows in (1, 2, len(test)):
        np.testing.assert_allclose(evaluate.predict(program, test.head(rows), schema), expected[:rows], rtol=1e-5)


def test_unseen_categories_and_missing_values_get_a_finite_answer(tmp_path: Path) -> None:
    model, _, schema = fitted(tmp_path, "binary", epochs=2)
    row = {"size": 0.5, "colour": "red", "since": "2026-01-01"}
    odd = [row | {"colour": "ultraviolet"}, row | {"size": 1e300}, row | {"since": "9999-01-01"}, dict.fromkeys(row)]
    rows = [features.check_row(0, one, schema) for one in odd]
    with torch.inference_mode():
        answers = model.eval().predict(*features.encode_rows(rows, schema))
    assert torch.isfinite(answers).all()
    torch.testing.assert_close(answers.sum(dim=1), torch.ones(len(odd)))


def test_training_stops_early_and_keeps_the_best_weights(tmp_path: Path) -> None:
    splits, schema = prepared(tmp_path, "regression")
    rows, val = tensors(splits["train"], schema), tensors(splits["val"], schema)
    torch.manual_seed(0)
    model = TabularModel(schema, rows[0], rows[2], SMALL)
    settings = Train(epochs=500, patience=3, learning_rate=0.03)
    history = train.fit(model, rows, val, settings, tmp_path / "c.pt", Interrupted())  # type: ignore[arg-type]
    losses = [entry["val_loss"] for entry in history]
    assert len(history) < 500
    assert len(history) - 1 - losses.index(min(losses)) == 3
    assert train.validation_loss(model, val) == pytest.approx(min(losses), rel=1e-6)


def test_the_same_model_is_the_same_file(tmp_path: Path) -> None:
    model, _, schema = fitted(tmp_path, "binary", epochs=1)
    for name in ("one.pt2", "another.pt2"):
        train.save(export(model, schema), tmp_path / name)
    assert (tmp_path / "one.pt2").read_bytes() == (tmp_path / "another.pt2").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.pt2") as archive:
        for name in archive.namelist():
            assert str(ROOT).encode() not in archive.read(name), f"{name} names a folder of this machine"


def test_a_full_disk_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, schema = fitted(tmp_path, "binary", epochs=1)
    path = tmp_path / "model" / "model.pt2"
    path.parent.mkdir()
    path.write_bytes(b"the old model")
    write = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        write(self, bytes(content[:100]))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        train.save(export(model, schema), path)
    assert path.read_bytes() == b"the old model"
    assert list(path.parent.iterdir()) == [path]


def test_a_device_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        assert train.choose_device("auto").type == "cuda"
        return
    assert train.choose_device("auto").type == "cpu"
    with pytest.raises(ProjectError, match=r"train\.device is 'cuda'"):
        train.choose_device("cuda")


def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    splits, schema = prepared(tmp_path, "regression")
    rows, val = tensors(splits["train"], schema), tensors(splits["val"], schema)

    def run(checkpoint: str, stop_at: int | None = None) -> tuple[TabularModel, list[dict[str, float]]]:
        torch.manual_seed(0)
        model = TabularModel(schema, rows[0], rows[2], SMALL)
        settings = Train(epochs=12)
        return model, train.fit(model, rows, val, settings, tmp_path / checkpoint, Interrupted(stop_at))  # type: ignore[arg-type]

    whole, whole_history = run("whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run("broken.pt", stop_at=5)
    resumed, resumed_history = run("broken.pt")
    assert resumed_history == whole_history
    for left, right in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(left, right)
