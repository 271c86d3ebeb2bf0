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

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from . import artifacts, params, tracking
from .artifacts import ProjectError
from .features import encode_frame, encode_target
from .model import TabularModel, export
from .params import Params
from .params_sections import Train

#: Rows that go through the network at once where no gradient is kept.
EVALUATION_ROWS = 8192


class Watcher(Protocol):
    """Who is told of each epoch: an MLflow run, or a trial of tuning, which may raise to end the training."""

    def log(self, entry: dict[str, float]) -> None:
        """Take the entry of one epoch: "epoch", "train_loss", "val_loss"."""


class Diverged(ProjectError):
    """The loss became infinite or NaN."""


def load_split(path: Path, schema: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return numbers [rows, N], categories [rows, C] and the target: class index (int64) or value (float32)."""
    frame = artifacts.read_parquet(path)
    target = encode_target(frame, schema)
    return *encode_frame(frame, schema), target.float() if target.is_floating_point() else target


def choose_device(wanted: str) -> torch.device:
    """Return the device that `train.device` names; "auto" takes CUDA where there is a GPU. (Apple's MPS is no choice:
    it lacks the float64 in which the preprocessing computes.)
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ProjectError("train.device is 'cuda', but PyTorch finds no CUDA device here: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def loss_of(model: TabularModel, outputs: Tensor, target: Tensor) -> Tensor:
    """Return the mean loss of all members, [rows, members, outputs] against [rows]: each learns on its own."""
    members = outputs.shape[1]
    if model.classifies:
        return functional.cross_entropy(outputs.flatten(0, 1), target.repeat_interleave(members))
    scaled = (target - model.target_mean) / model.target_scale
    return functional.mse_loss(outputs.squeeze(2), scaled.unsqueeze(1).expand(-1, members))


@torch.no_grad()
def validation_loss(model: TabularModel, rows: tuple[Tensor, Tensor, Tensor]) -> float:
    """Return the loss of the members' averaged answer, which is what is served: log-loss, or MSE in deviations."""
    model.eval()
    total = 0.0
    for numbers, categories, target in zip(*(part.split(EVALUATION_ROWS) for part in rows), strict=True):
        answer = model.predict(numbers, categories)
        if model.classifies:
            total += functional.nll_loss(answer.clamp_min(1e-12).log(), target, reduction="sum").item()
        else:
            total += (((answer - target) / model.target_scale) ** 2).sum().item()
    return total / len(rows[2])


def fit(
    model: TabularModel,
    train: tuple[Tensor, Tensor, Tensor],
    val: tuple[Tensor, Tensor, Tensor],
    settings: Train,
    checkpoint: Path,
    watcher: Watcher,
) -> list[dict[str, float]]:
    """Train `model` in place, leave it with its best weights, and return the learning curve, one entry an epoch.

    Raises Diverged, and whatever `watcher` raises.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    state: dict[str, Any] = {"history": [], "best": math.inf, "best_epoch": 0, "best_weights": model.state_dict()}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=train[0].device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        state = saved["state"]
        print(f"resuming after epoch {len(state['history'])} from {checkpoint}")

    epochs = range(len(state["history"]) + 1, settings.epochs + 1)
    progress = tqdm(epochs, desc="train", unit="epoch", disable=None, leave=None)
    for epoch in progress:
        if epoch - state["best_epoch"] > settings.patience:
            break
        torch.manual_seed(settings.seed + epoch)
        model.train()
        order, total = torch.randperm(len(train[2])), 0.0
        for batch in order.to(train[0].device).split(settings.batch_size):
            numbers, categories, target = (part[batch] for part in train)
            loss = loss_of(model, model(numbers, categories), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)

        entry = {"epoch": epoch, "train_loss": total / len(order), "val_loss": validation_loss(model, val)}
        if not math.isfinite(entry["val_loss"]):
            raise Diverged(f"the loss became {entry['val_loss']} in epoch {epoch}: lower train.learning_rate")
        state["history"].append(entry)
        if entry["val_loss"] < state["best"]:
            weights = copy.deepcopy(model.state_dict())
            state |= {"best": entry["val_loss"], "best_epoch": epoch, "best_weights": weights}
        with artifacts.replacing(checkpoint) as temporary:
            torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": state}, temporary)
        watcher.log(entry)
        progress.set_postfix(val=f"{entry['val_loss']:.4f}", best=f"{state['best']:.4f}@{state['best_epoch']}")

    model.load_state_dict(state["best_weights"])
    return state["history"]  # type: ignore[no-any-return]


def save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write the program, whole or not at all, with the same bytes for the same program."""
    archive = io.BytesIO()  # saved to a file, it would hold the temporary file's name
    torch.export.save(program, archive)
    with artifacts.replacing(path) as temporary:
        temporary.write_bytes(archive.getbuffer())


def checkpoint_folder(settings: Params) -> Path:
    """Return a folder that only a run with the same data, code and `model` and `train` settings shares."""
    key = hashlib.sha256(settings.model.model_dump_json().encode() + settings.train.model_dump_json().encode())
    for path in (
        artifacts.TRAIN,
        artifacts.VAL,
        artifacts.SCHEMA,
        Path(__file__),
        Path(__file__).with_name("model.py"),
    ):
        key.update(artifacts.digest(path).encode())
    return artifacts.CHECKPOINTS / key.hexdigest()[:16]


def main() -> None:
    """Train on the prepared splits; write the model, the learning curve and the run's address."""
    settings = params.load()
    schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
    device = choose_device(settings.train.device)
    cpu_train = load_split(artifacts.TRAIN, schema)
    train = tuple(part.to(device) for part in cpu_train)
    val = tuple(part.to(device) for part in load_split(artifacts.VAL, schema))
    torch.manual_seed(settings.train.seed)
    model = TabularModel(schema, cpu_train[0], cpu_train[2], settings.model).to(device)

    folder = checkpoint_folder(settings)
    with tracking.start(settings, folder / "run") as run:
        history = fit(model, train, val, settings.train, folder / "checkpoint.pt", run)  # type: ignore[arg-type]
        best = min(history, key=lambda entry: entry["val_loss"])
        print(f"best epoch {best['epoch']} of {len(history)}, validation loss {best['val_loss']:.4f}")
        save(export(model, schema), artifacts.MODEL)
        with artifacts.replacing(artifacts.LEARNING_CURVE) as temporary:
            pd.DataFrame(history).to_csv(temporary, index=False)
        run.log_model()
        artifacts.write_json(artifacts.RUN, run.address())
    shutil.rmtree(folder)


if __name__ == "__main__":
    artifacts.run(main)
