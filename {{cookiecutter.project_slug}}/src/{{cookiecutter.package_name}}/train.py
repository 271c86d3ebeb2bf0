"""Stage `train`: fit the network with early stopping, keep the best weights, export them, log the run to MLflow.

Each block of an epoch seeds itself, and a checkpoint holds all that the next one needs. A run that was killed and
started again therefore ends with the very weights of an unbroken one.

With `train.processes` above 1, all of this runs in each of them, on its rows of every batch. They have the same weights
and the same losses, so they decide the same; the first alone writes, logs and prints.
"""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from gitops.core import artifacts, threads
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.integrations import tracking
from gitops.tabular import decision
from gitops.training import epochs, processes, program
from gitops.training.rows import Rows, Step
from gitops.value import today

from . import calibration, metrics
from .features import decide
from .model import TabularModel, export
from .settings import Settings, Train
from .splits import Splits, choose_device
from .splits import hold_out as hold_out
from .splits import load_splits as load_splits

#: Rows that go through the network at once where no gradient is kept, and how many inputs of it they have at most.
EVALUATION_ROWS, EVALUATION_INPUTS = 8192, 1 << 23


Entry = dict[str, float]


class Callback(Protocol):
    """Who is told of each epoch: an MLflow run, or a trial of tuning, which may raise to end the training."""

    def log(self, entry: Entry) -> None:
        """Take the entry of one epoch: "epoch", "train_loss", "val_loss"."""


class Diverged(ProjectError):
    """The loss became infinite or NaN."""


def loss_of(model: TabularModel, outputs: Tensor, target: Tensor, rows: float | None = None) -> Tensor:
    """Return the ensemble's mean loss, [rows, ensemble size, outputs] against [rows]: each network learns alone.

    `rows`: what the sum over these rows is divided by, if not by their number.
    """
    size = outputs.shape[1]
    count = (len(target) if rows is None else rows) * size
    if model.classifies:
        classes = target.repeat_interleave(size)
        return functional.cross_entropy(outputs.flatten(0, 1), classes, model.class_weights, reduction="sum") / count
    scaled = (target - model.target_mean) / model.target_scale
    return functional.mse_loss(outputs.squeeze(2), scaled.unsqueeze(1).expand(-1, size), reduction="sum") / count


@torch.no_grad()
def validation_loss(model: TabularModel, rows: Rows) -> float:
    """Return the loss of the ensemble's answer, which is what is served: log-loss, or MSE in standard deviations."""
    model.eval()
    total = 0.0
    for numbers, categories, target in rows.parts(_rows_at_once(model), shared=True):
        answer = model.predict(numbers, categories)
        if model.classifies:
            total += functional.nll_loss(answer.clamp_min(1e-12).log(), target, reduction="sum").item()
        else:
            total += (((answer - target) / model.target_scale) ** 2).sum().item()
    return processes.total(total, rows.device) / len(rows)


def _rows_at_once(model: TabularModel) -> int:
    return max(1, min(EVALUATION_ROWS, EVALUATION_INPUTS // max(1, model.inputs.width)))


def fit_model(
    settings: Settings, splits: Splits, checkpoint: Path, callback: Callback | None
) -> tuple[TabularModel, list[Entry]]:
    """Return a network fitted to the splits, with its best weights and calibrated, and the learning curve by epoch.

    Of several processes the first alone calibrates, and uses `checkpoint`. Raises Diverged, and whatever `callback`
    raises.
    """
    classes = splits.schema["target"]["classes"]
    known = metrics.of(splits.schema["task"], classes, settings.value)
    torch.manual_seed(settings.train.seed)
    model = TabularModel(splits.schema, splits.numbers, settings.model)
    if model.classifies and settings.train.class_weights:
        model.class_weights = calibration.class_weights(splits.train.target, len(classes))
    history = _fit(model.to(splits.train.device), splits, settings.train, checkpoint, callback)
    if model.classifies and processes.first():
        _calibrate(model, splits, settings.train, known)
    return model, history


def _fit(model: TabularModel, splits: Splits, settings: Train, path: Path, callback: Callback | None) -> list[Entry]:
    """Train `model` in place; a run that finds its checkpoint goes on from there."""
    train, first = splits.train, processes.first()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    state: dict[str, Any] = {"history": [], "best": math.inf, "best_epoch": 0, "best_weights": model.state_dict()}
    state |= {"block": 0, "loss": 0.0}  # of the epoch that is under way: its blocks that are done, and their loss
    checkpoint = epochs.Checkpoint(path, model, optimiser)
    if saved := checkpoint.load(train.device):
        state = saved
        if first:
            echo(f"resuming after epoch {len(state['history'])} from {path}")

    network, blocks = processes.parallel(model), epochs.blocks(train, settings.batch_size)
    numbers = range(len(state["history"]) + 1, settings.epochs + 1)
    progress = tqdm(numbers, desc="train", unit="epoch", disable=None if first else True, leave=None)
    for epoch in progress:
        if epoch - state["best_epoch"] > settings.patience:
            break
        for steps in epochs.epoch(train, settings.batch_size, settings.seed, epoch, state["block"]):
            loss = processes.total(_learn(model, network, optimiser, steps), train.device)
            state |= {"block": state["block"] + 1, "loss": state["loss"] + loss}
            if state["block"] < blocks:
                checkpoint.save(state)
        processes.align(model)
        train_loss, val_loss = state["loss"] / len(train), validation_loss(model, splits.val)
        if not math.isfinite(val_loss):
            raise Diverged(f"the loss became {val_loss} in epoch {epoch}: lower train.learning_rate")
        entry = {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss}
        state |= {"history": [*state["history"], entry], "block": 0, "loss": 0.0}
        if val_loss < state["best"]:
            weights = copy.deepcopy(model.state_dict())
            state |= {"best": val_loss, "best_epoch": epoch, "best_weights": weights}
        checkpoint.save(state)
        if callback:
            callback.log(entry)
        progress.set_postfix(val=f"{val_loss:.4f}", best=f"{state['best']:.4f}@{state['best_epoch']}")

    model.load_state_dict(state["best_weights"])
    return state["history"]  # type: ignore[no-any-return]


def _learn(model: TabularModel, network: nn.Module, optimiser: torch.optim.Optimizer, steps: Iterator[Step]) -> Tensor:
    """Take the steps, and return the sum of the loss over this process's rows, a float64 scalar."""
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=model.class_weights.device)
    for (numbers, categories, target), rows in steps:
        loss = loss_of(model, network(numbers, categories), target, rows)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        total += loss.detach().double() * rows
    return total


def _calibrate(model: TabularModel, splits: Splits, settings: Train, known: metrics.Metrics) -> None:
    """Choose the temperature and then, of a binary model, the decision threshold, on the validation split."""
    if settings.calibration:
        model.temperature.fill_(calibration.best_temperature(*_outputs(model, splits.val)))
    if splits.schema["task"] == "binary":
        model.decision = calibration.choose_threshold(settings.threshold, known, *_outputs(model, splits.val))


def predict(model: TabularModel, splits: Splits, rows: Rows) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return actual values, outputs and predictions of `splits.val` or of a held-out part, as metrics.py takes them."""
    actual, outputs = _outputs(model, rows)
    return actual, outputs, decide(outputs, decision.decided(splits.schema, model.decision))


@torch.no_grad()
def _outputs(model: TabularModel, rows: Rows) -> tuple[NDArray[Any], NDArray[Any]]:
    model.eval()
    parts = rows.parts(_rows_at_once(model))
    found = [(target.cpu(), model.predict(numbers, categories).cpu()) for numbers, categories, target in parts]
    actual, outputs = map(torch.cat, zip(*found, strict=True))
    return np.asarray(actual), np.asarray(outputs.double())


def main() -> int:
    """Train on the prepared splits; write the model, its decision, the learning curve and the run's address."""
    settings = Settings.load()
    device, module = choose_device(settings.train.device), f"{__package__}.train"
    return processes.run(lambda: _train(settings), module, settings.train.processes, device)


def _train(settings: Settings) -> None:
    threads.limit(artifacts.TRAIN)
    splits = load_splits(settings)
    today.check(settings.value, splits.schema)  # that `evaluate` needs it is known before hours of training
    if not processes.first():
        fit_model(settings, splits, Path(), None)
        return
    folder = epochs.folder(Path(__file__), settings.model, settings.train)
    with tracking.start(settings, folder / "run") as run:
        model, history = fit_model(settings, splits, folder / "checkpoint.pt", run)
        best = min(history, key=lambda entry: entry["val_loss"])
        echo(f"best epoch {best['epoch']} of {len(history)}, validation loss {best['val_loss']:.4f}")
        program.save(export(model, splits.schema), artifacts.MODEL)
        artifacts.write_json(artifacts.DECISION, model.decision)
        with artifacts.replacing(artifacts.LEARNING_CURVE) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        run.log_epochs(history)
        run.log_model()
        artifacts.write_json(artifacts.RUN, run.address())
    shutil.rmtree(folder)


if __name__ == "__main__":
    artifacts.run(main)
