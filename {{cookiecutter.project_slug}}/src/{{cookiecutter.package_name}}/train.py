"""Stage `train`: fit the network with early stopping, keep the best weights, export them, log the run to MLflow.

Each epoch seeds itself, and a checkpoint holds all that the next epoch needs. A run that was killed and started again
therefore ends with the very weights of an unbroken one.
"""

from __future__ import annotations

import copy
import hashlib
import io
import math
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from gitops.core import artifacts, code, threads
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.integrations import tracking
from gitops.tabular import decision

from . import calibration
from .features import decide
from .model import TabularModel, export
from .settings import Settings, Train
from .splits import Rows, Splits
from .splits import hold_out as hold_out
from .splits import load_splits as load_splits

#: Rows that go through the network at once where no gradient is kept.
EVALUATION_ROWS = 8192


Entry = dict[str, float]


class Callback(Protocol):
    """Who is told of each epoch: an MLflow run, or a trial of tuning, which may raise to end the training."""

    def log(self, entry: Entry) -> None:
        """Take the entry of one epoch: "epoch", "train_loss", "val_loss"."""


class Diverged(ProjectError):
    """The loss became infinite or NaN."""


def loss_of(model: TabularModel, outputs: Tensor, target: Tensor) -> Tensor:
    """Return the ensemble's mean loss, [rows, ensemble size, outputs] against [rows]: each network learns alone."""
    size = outputs.shape[1]
    if model.classifies:
        classes = target.repeat_interleave(size)
        total = functional.cross_entropy(outputs.flatten(0, 1), classes, model.class_weights, reduction="sum")
        return total / len(classes)
    scaled = (target - model.target_mean) / model.target_scale
    return functional.mse_loss(outputs.squeeze(2), scaled.unsqueeze(1).expand(-1, size))


@torch.no_grad()
def validation_loss(model: TabularModel, rows: Rows) -> float:
    """Return the loss of the ensemble's answer, which is what is served: log-loss, or MSE in standard deviations."""
    model.eval()
    total = 0.0
    for numbers, categories, target in zip(*(part.split(EVALUATION_ROWS) for part in rows), strict=True):
        answer = model.predict(numbers, categories)
        if model.classifies:
            total += functional.nll_loss(answer.clamp_min(1e-12).log(), target, reduction="sum").item()
        else:
            total += (((answer - target) / model.target_scale) ** 2).sum().item()
    return total / len(rows[2])


def fit_model(
    settings: Settings, splits: Splits, checkpoint: Path, callback: Callback
) -> tuple[TabularModel, list[Entry]]:
    """Return a network fitted to the splits, with its best weights and calibrated, and the learning curve by epoch.

    Raises Diverged, and whatever `callback` raises.
    """
    torch.manual_seed(settings.train.seed)
    target, device = splits.train[2].cpu(), splits.train[0].device
    model = TabularModel(splits.schema, splits.numbers, settings.model)
    if model.classifies and settings.train.class_weights:
        model.class_weights = calibration.class_weights(target, len(splits.schema["target"]["classes"]))
    history = _fit(model.to(device), splits, settings.train, checkpoint, callback)
    if model.classifies:
        _calibrate(model, splits, settings.train)
    return model, history


def _fit(model: TabularModel, splits: Splits, settings: Train, checkpoint: Path, callback: Callback) -> list[Entry]:
    """Train `model` in place; a run that finds its checkpoint goes on from there."""
    train, device = splits.train, splits.train[0].device
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    state: dict[str, Any] = {"history": [], "best": math.inf, "best_epoch": 0, "best_weights": model.state_dict()}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        state = saved["state"]
        echo(f"resuming after epoch {len(state['history'])} from {checkpoint}")

    epochs = range(len(state["history"]) + 1, settings.epochs + 1)
    progress = tqdm(epochs, desc="train", unit="epoch", disable=None, leave=None)
    for epoch in progress:
        if epoch - state["best_epoch"] > settings.patience:
            break
        torch.manual_seed(settings.seed + epoch)
        model.train()
        order, total = torch.randperm(len(train[2])), 0.0
        for batch in order.to(device).split(settings.batch_size):
            numbers, categories, target = (part[batch] for part in train)
            loss = loss_of(model, model(numbers, categories), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)

        entry = {"epoch": epoch, "train_loss": total / len(order), "val_loss": validation_loss(model, splits.val)}
        if not math.isfinite(entry["val_loss"]):
            raise Diverged(f"the loss became {entry['val_loss']} in epoch {epoch}: lower train.learning_rate")
        state["history"].append(entry)
        if entry["val_loss"] < state["best"]:
            weights = copy.deepcopy(model.state_dict())
            state |= {"best": entry["val_loss"], "best_epoch": epoch, "best_weights": weights}
        with artifacts.replacing(checkpoint) as temporary:
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": state}, temporary)
        callback.log(entry)
        progress.set_postfix(val=f"{entry['val_loss']:.4f}", best=f"{state['best']:.4f}@{state['best_epoch']}")

    model.load_state_dict(state["best_weights"])
    return state["history"]  # type: ignore[no-any-return]


def _calibrate(model: TabularModel, splits: Splits, settings: Train) -> None:
    """Choose the temperature and then, of a binary model, the decision threshold, on the validation split."""
    if settings.calibration:
        model.temperature.fill_(calibration.best_temperature(*_outputs(model, splits.val)))
    if splits.schema["task"] == "binary":
        model.decision = calibration.choose_threshold(settings.threshold, *_outputs(model, splits.val))


def predict(model: TabularModel, splits: Splits, rows: Rows) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return actual values, outputs and predictions of `splits.val` or of a held-out part, as metrics.py takes them."""
    actual, outputs = _outputs(model, rows)
    return actual, outputs, decide(outputs, decision.decided(splits.schema, model.decision))


@torch.no_grad()
def _outputs(model: TabularModel, rows: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
    model.eval()
    numbers, categories, target = rows
    pairs = zip(numbers.split(EVALUATION_ROWS), categories.split(EVALUATION_ROWS), strict=True)
    outputs = torch.cat([model.predict(*pair) for pair in pairs])
    return np.asarray(target.cpu()), np.asarray(outputs.double().cpu())


def save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write the program, whole or not at all, with the same bytes for the same program."""
    archive = io.BytesIO()  # saved to a file, it would hold the temporary file's name
    torch.export.save(program, archive)
    with artifacts.replacing(path) as temporary:
        temporary.write_bytes(archive.getbuffer())


def checkpoint_folder(settings: Settings) -> Path:
    """Return a folder that only a run with the same data, code and `model` and `train` settings shares."""
    key = hashlib.sha256(settings.model.model_dump_json().encode() + settings.train.model_dump_json().encode())
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.SCHEMA, *code.computing(Path(__file__))):
        key.update(artifacts.digest(path).encode())
    return artifacts.CHECKPOINTS / key.hexdigest()[:16]


def main() -> None:
    """Train on the prepared splits; write the model, its decision, the learning curve and the run's address."""
    settings = Settings.load()
    threads.limit(artifacts.TRAIN)
    splits = load_splits(settings)
    folder = checkpoint_folder(settings)
    with tracking.start(settings, folder / "run") as run:
        model, history = fit_model(settings, splits, folder / "checkpoint.pt", run)
        best = min(history, key=lambda entry: entry["val_loss"])
        echo(f"best epoch {best['epoch']} of {len(history)}, validation loss {best['val_loss']:.4f}")
        save(export(model, splits.schema), artifacts.MODEL)
        artifacts.write_json(artifacts.DECISION, model.decision)
        with artifacts.replacing(artifacts.LEARNING_CURVE) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        run.log_epochs(history)
        run.log_model()
        artifacts.write_json(artifacts.RUN, run.address())
    shutil.rmtree(folder)


if __name__ == "__main__":
    artifacts.run(main)
