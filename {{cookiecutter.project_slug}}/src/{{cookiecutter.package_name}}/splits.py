"""The training and validation rows as tensors, and parts of them that are held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.tabular import arrow
from gitops.tabular import numbers as statistics

from .features import encode, encode_target
from .settings import Settings

#: Numbers [rows, N], categories [rows, C], and the target [rows]: class index (int64) or value (float32).
Rows = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Splits:
    """The training and validation rows, on the device that trains, statistics of the training rows' numbers, and the
    group of each training row, [rows] (int64): rows that share one belong together.
    """

    schema: dict[str, Any]
    numbers: statistics.Numbers
    train: Rows
    val: Rows
    groups: NDArray[Any]


def load_splits(settings: Settings) -> Splits:
    """Return the prepared splits. Raises ProjectError where one is missing, or there is no such device."""
    schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
    device = choose_device(settings.train.device)
    train, val = (artifacts.read_parquet(path) for path in (artifacts.TRAIN, artifacts.VAL))
    groups = train[artifacts.GROUP].to_numpy("int64")
    return Splits(schema, statistics.read(), _encoded(train, schema, device), _encoded(val, schema, device), groups)


def _encoded(frame: pd.DataFrame, schema: dict[str, Any], device: torch.device) -> Rows:
    numbers, categories = encode(arrow.from_frame(frame, schema), schema)
    target = encode_target(frame[schema["target"]["name"]], schema)
    target = target.float() if target.is_floating_point() else target
    return numbers.to(device), categories.to(device), target.to(device)


def hold_out(splits: Splits, fraction: float, seed: int) -> tuple[Splits, Rows]:
    """Return the splits without about `fraction` of the training rows, and these rows, drawn at random by `seed`.

    Groups stay whole. The target's distribution is about the same in both parts: of groups that follow each other when
    they are ordered by their mean target, one of 1 / fraction is drawn. Raises ProjectError where there are too few.
    """
    target, generator = splits.train[2].cpu().double().numpy(), np.random.default_rng(seed)
    _, group = np.unique(splits.groups, return_inverse=True)
    means = np.bincount(group, weights=target) / np.bincount(group)
    block = round(1 / fraction)
    if len(means) < 2 * block:
        raise ProjectError(f"{len(means)} groups of training rows are too few to hold {fraction:.0%} of them out")
    order = np.lexsort((generator.random(len(means)), means))
    starts = np.arange(0, len(means), block)
    drawn = starts + generator.integers(0, block, len(starts))
    held = np.isin(group, order[drawn[drawn < len(means)]])
    return replace(splits, train=_part(splits.train, ~held), groups=splits.groups[~held]), _part(splits.train, held)


def _part(rows: Rows, chosen: NDArray[Any]) -> Rows:
    """Return those rows for which `chosen` [rows] is true."""
    numbers, categories, target = rows
    places = torch.from_numpy(np.flatnonzero(chosen)).to(target.device)
    return numbers[places], categories[places], target[places]


def choose_device(wanted: str) -> torch.device:
    """Return the device that `train.device` names; "auto" takes CUDA where there is a GPU. (Apple's MPS is no choice:
    it lacks the float64 in which the preprocessing computes.)
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ProjectError("train.device is 'cuda', but PyTorch finds no CUDA device here: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
