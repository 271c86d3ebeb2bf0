"""The training and validation rows, and parts of them that are held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.tabular import arrow, numbers
from gitops.tabular.columns import given
from gitops.training import load
from gitops.training.rows import Batch, Rows

from .features import encode, encode_target
from .settings import Settings


@dataclass(frozen=True)
class Splits:
    """The training and validation rows, held in memory or read as they are needed, whichever their size allows, and
    statistics of all training rows' numbers.
    """

    schema: dict[str, Any]
    numbers: numbers.Numbers
    train: Rows
    val: Rows


def load_splits(settings: Settings) -> Splits:
    """Return the prepared splits. Raises ProjectError where one is missing, or there is no such device."""
    schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
    device, target = choose_device(settings.train.device), schema["target"]["name"]
    columns, width = [*(feature["name"] for feature in given(schema)), target], len(schema["features"]) + 1

    def encoded(frame: pd.DataFrame) -> Batch:
        values = encode_target(frame[target], schema)
        inputs = encode(arrow.from_frame(frame, schema), schema)
        return Batch(*inputs, values.float() if values.is_floating_point() else values)

    train, val = (load.rows(path, columns, encoded, width, device) for path in (artifacts.TRAIN, artifacts.VAL))
    return Splits(schema, numbers.read(), train, val)


def hold_out(splits: Splits, fraction: float, seed: int) -> tuple[Splits, Rows]:
    """Return the splits without about `fraction` of the training rows, and these rows, drawn at random by `seed`.

    Groups stay whole. The target's distribution is about the same in both parts: of groups that follow each other when
    they are ordered by their mean target, one of 1 / fraction is drawn. Raises ProjectError where there are too few.
    """
    target, generator = splits.train.target.double().numpy(), np.random.default_rng(seed)
    _, group = np.unique(splits.train.groups, return_inverse=True)
    means = np.bincount(group, weights=target) / np.bincount(group)
    block = round(1 / fraction)
    if len(means) < 2 * block:
        raise ProjectError(f"{len(means)} groups of training rows are too few to hold {fraction:.0%} of them out")
    order = np.lexsort((generator.random(len(means)), means))
    starts = np.arange(0, len(means), block)
    drawn = starts + generator.integers(0, block, len(starts))
    held = np.isin(group, order[drawn[drawn < len(means)]])
    return replace(splits, train=splits.train.chosen(~held)), splits.train.chosen(held)


def choose_device(wanted: str) -> torch.device:
    """Return the device that `train.device` names; "auto" takes CUDA where there is a GPU. (Apple's MPS is no choice:
    it lacks the float64 in which the preprocessing computes.)
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ProjectError("train.device is 'cuda', but PyTorch finds no CUDA device here: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
