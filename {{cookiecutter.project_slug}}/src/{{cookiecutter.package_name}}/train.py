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
from dataclasses import dataclass
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
from gitops.tabular import arrow

from .features import decide, encode, encode_target
from .model import TabularModel, export
from .settings import Settings, Train

#: Rows that go through the network at once where no gradient is kept.
EVALUATION_ROWS = 8192


Entry = dict[str, float]

#: Numbers [rows, N], categories [rows, C], and the target [rows]: class index (int64) or value (float32).
Rows = tuple[Tensor, Tensor, Tensor]


class Callback(Protocol):
    """Who is told of each epoch: an MLflow run, or a trial of tuning, which may raise to end the training."""

    def log(self, entry: Entry) -> None:
        """Take the entry of one epoch: "epoch", "train_loss", "val_loss"."""


class Diverged(ProjectError):
    """The loss became infinite or NaN."""


@dataclass(frozen=True)
class Splits:
    """The training and validation rows, on the device that trains."""

    schema: dict[str, Any]
    train: Rows
    val: Rows


def load_splits(settings: Settings) -> Splits:
    """Return the prepared splits. Raises ProjectError where one is missing, or there is no such device."""
    schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
    device = choose_device(settings.train.device)
    train, val = (_load(path, schema, device) for path in (artifacts.TRAIN, artifacts.VAL))
    return Splits(schema, train, val)


def _load(path: Path, schema: dict[str, Any], device: torch.device) -> Rows:
    frame = artifacts.read_parquet(path)
    numbers, categories = encode(arrow.from_frame(frame, schema), schema)
    target = encode_target(frame[schema["target"]["name"]], schema)
    target = target.float() if target.is_floating_point() else target
    return numbers.to(device), categories.to(device), target.to(device)


def choose_device(wanted: str) -> torch.device:
    """Return the device that `train.device` names; "auto" takes CUDA where there is a GPU. (Apple's MPS is no choice:
    it lacks the float64 in which the preprocessing computes.)
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ProjectError("train.device is 'cuda', but PyTorch finds no CUDA device here: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def loss_of(model: TabularModel, outputs: Tensor, target: Tensor) -> Tensor:
    """Return the ensemble's mean loss, [rows, ensemble size, outputs] against [rows]: each network learns alone."""
    size = outputs.shape[1]
    if model.classifies:
        return functional.cross_entropy(outputs.flatten(0, 1), target.repeat_interleave(size))
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
    """Return a network fitted to the splits, with its best weights, and the learning curve, one entry an epoch.

    Raises Diverged, and whatever `callback` raises.
    """
    torch.manual_seed(settings.train.seed)
    numbers, _, target = (part.cpu() for part in splits.train)
    device = splits.train[0].device
    model = TabularModel(splits.schema, numbers, target, settings.model).to(device)
    return model, _fit(model, splits, settings.train, checkpoint, callback)


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


@torch.no_grad()
def predict_validation(model: TabularModel, splits: Splits) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return actual values, outputs and predictions of the validation split, as metrics.py takes them."""
    model.eval()
    numbers, categories, target = splits.val
    pairs = zip(numbers.split(EVALUATION_ROWS), categories.split(EVALUATION_ROWS), strict=True)
    outputs = np.asarray(torch.cat([model.predict(*pair) for pair in pairs]).double().cpu())
    return np.asarray(target.cpu()), outputs, decide(outputs, splits.schema)


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
    """Train on the prepared splits; write the model, the learning curve and the run's address."""
    settings = Settings.load()
    threads.limit(artifacts.TRAIN)
    splits = load_splits(settings)
    folder = checkpoint_folder(settings)
    with tracking.start(settings, folder / "run") as run:
        model, history = fit_model(settings, splits, folder / "checkpoint.pt", run)
        best = min(history, key=lambda entry: entry["val_loss"])
        echo(f"best epoch {best['epoch']} of {len(history)}, validation loss {best['val_loss']:.4f}")
        save(export(model, splits.schema), artifacts.MODEL)
        with artifacts.replacing(artifacts.LEARNING_CURVE) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        run.log_epochs(history)
        run.log_model()
        artifacts.write_json(artifacts.RUN, run.address())
    shutil.rmtree(folder)


if __name__ == "__main__":
    artifacts.run(main)
