"""One epoch for scale.py, in a project's environment: `python scale_training.py KIND`, and its seconds as JSON.

KIND is epoch, as the project trains it, or bare: the same steps and validation in a plain loop of PyTorch, over
the same batches as tensors that lie in memory beforehand. `cuda` behind it has the GPU do it, `compile` and `bfloat16`
change the plain loop.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from gitops.core import params, threads
from gitops.core.artifacts import TRAIN


class Clock:
    """Takes the place of an MLflow run, and tells when the epoch and its validation had ended."""

    ended = 0.0

    def log(self, entry: dict[str, float]) -> None:
        """Look at the time."""
        self.ended = time.perf_counter()


def main() -> None:
    """Print {"seconds": ...}."""
    kind, options = sys.argv[1], {*sys.argv[2:]}
    settings = params.load()
    device = "cuda" if "cuda" in options else "cpu"
    settings = settings.model_copy(
        update={"train": settings.train.model_copy(update={"epochs": 1, "device": device, "processes": 1})}
    )
    threads.limit(TRAIN)
    train = import_module(f"{params.package()}.train")
    splits = train.load_splits(settings)
    seconds = epoch(train, settings, splits) if kind == "epoch" else bare(train, settings, splits, options)
    print(json.dumps({"seconds": seconds}))


def epoch(train: Any, settings: Any, splits: Any) -> float:
    """Return the seconds of an epoch and its validation; the calibration that follows counts for the memory alone."""
    with tempfile.TemporaryDirectory() as folder:
        clock, begin = Clock(), time.perf_counter()
        train.fit_model(settings, splits, Path(folder, "checkpoint.pt"), clock)
        return clock.ended - begin


def bare(train: Any, settings: Any, splits: Any, options: set[str]) -> float:
    """Return the seconds of the plain loop."""
    size = settings.train.batch_size
    batches = [step.batch for step in splits.train.steps(size, settings.train.seed)]
    held = [*splits.val.parts(train.EVALUATION_ROWS)]
    torch.manual_seed(settings.train.seed)
    model = train.TabularModel(splits.schema, splits.numbers, settings.model).to(splits.train.device)
    network = torch.compile(model) if "compile" in options else model
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.train.learning_rate)
    begin = time.perf_counter()
    for numbers, categories, target in batches:
        with torch.autocast(splits.train.device.type, torch.bfloat16, enabled="bfloat16" in options):
            outputs = network(numbers, categories)
        loss = train.loss_of(model, outputs.float(), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        total = sum(train.functional.nll_loss(model.predict(*part[:2]).log(), part[2]).item() for part in held)
    print(f"loss {total / len(held):.4f}", file=sys.stderr)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
