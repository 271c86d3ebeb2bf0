"""Assign rows to the training, validation and test split: stratified, grouped by id, or chronological."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data

#: A class with fewer rows than this cannot be in all three splits; such classes are spread as if they were one.
RARE = 5

#: Quantile bins by which a numeric target is stratified.
BINS = 10


def assign(frame: pd.DataFrame, data: Data, starts: Sequence[int] = ()) -> pd.Series[Any]:
    """Return "train", "val" or "test" for each row of `frame`, whose index is 0, 1, ...

    `starts`: positions at which rows were appended to the table. Each appended block is drawn by itself, so that older
    rows stay in their splits, and a model that was trained before can be tested on today's test rows.

    With `data.timestamp`, training rows come first, then validation, then test. With `data.id`, all rows of an id stay
    together; in a chronological split an id goes where its latest row belongs, so that training never sees the future
    of a later split. Otherwise rows are drawn at random, with the target's distribution the same in each split.
    Raises ProjectError where a split would be empty.
    """
    groups = _groups(frame, data)
    if data.timestamp is None:
        bounds = sorted({0, *starts, len(frame)})
        blocks = [_draw(frame.iloc[start:stop], data, start) for start, stop in pairwise(bounds)]
        names: pd.Series[Any] = pd.concat(blocks)
    else:
        latest = frame[data.timestamp].groupby(groups).transform("max")
        order = pd.Series(np.lexsort((groups, latest.astype("int64"))))
        names = _cut(groups.iloc[order.to_numpy()], data).reindex(frame.index)
    if data.task != "regression":
        names = _learnable(names, frame, groups, data)
    for name in ("train", "val", "test"):
        if not (names == name).any():
            raise ProjectError(
                f"{len(frame)} rows in {groups.nunique()} groups leave the {name} split empty with data.val_size "
                f"{data.val_size} and data.test_size {data.test_size}: more rows or other sizes are needed"
            )
    return names


def _draw(block: pd.DataFrame, data: Data, start: int) -> pd.Series[Any]:
    """Return the splits of the block of rows that was appended at the position `start`."""
    frame = block.reset_index(drop=True)
    groups = _groups(frame, data)
    order = _stratified_order(groups, _strata(frame, data), np.random.default_rng(data.seed))
    # The first rows of an order are for training, so a few appended rows would all be: draw where the order begins.
    offset = np.random.default_rng([data.seed, start]).random() if start else 0.0
    names = _cut(groups.iloc[order.to_numpy()], data, offset).reindex(frame.index)
    names.index = block.index
    return names


def _learnable(names: pd.Series[Any], frame: pd.DataFrame, groups: pd.Series[Any], data: Data) -> pd.Series[Any]:
    """Move the rows of classes that only other splits have to training: a class must be learned to be scored."""
    target = frame[data.target]
    unseen = ~target.isin(target[names == "train"].unique())
    if unseen.any() and data.timestamp is not None:
        raise ProjectError(
            f"classes {sorted(target[unseen].unique())} of data.target {data.target!r} appear only after the training "
            "period: leave them out of the table, or make data.val_size and data.test_size smaller"
        )
    return names.where(~groups.isin(groups[unseen]), "train")


def _groups(frame: pd.DataFrame, data: Data) -> pd.Series[Any]:
    """Number the groups of rows that stay together; a row without an id is a group by itself."""
    alone = pd.Series(np.arange(len(frame)), index=frame.index)
    if data.id is None:
        return alone
    codes, _ = pd.factorize(frame[data.id])
    return alone.where(codes < 0, codes + len(frame))


def _strata(frame: pd.DataFrame, data: Data) -> pd.Series[Any]:
    target = frame[data.target]
    if data.task == "regression":
        bins = min(BINS, max(1, len(frame) // RARE))
        return pd.qcut(target.rank(method="first"), bins, labels=False) if bins > 1 else target * 0
    sizes = target.map(target.value_counts())
    return target.where(sizes >= RARE, "\0rare")


def _stratified_order(groups: pd.Series[Any], strata: pd.Series[Any], rng: np.random.Generator) -> pd.Series[Any]:
    """Order rows so that any cut of the order holds each stratum in proportion, groups unbroken.

    Each group takes the stratum of its first row. Within a stratum the groups are shuffled and spread evenly over
    [0, 1): the j-th of m stands at (j + u) / m, with one random u for the stratum.
    """
    first = pd.DataFrame({"group": groups, "stratum": strata}).drop_duplicates("group")
    first = first.sample(frac=1, random_state=rng)
    within = first.groupby("stratum").cumcount()
    size = first.groupby("stratum")["group"].transform("size")
    offset = first["stratum"].map({name: rng.random() for name in sorted(first["stratum"].unique())})
    position = pd.Series(((within + offset) / size).to_numpy(), index=first["group"].to_numpy())
    keys = groups.map(position)
    return pd.Series(np.lexsort((groups, keys)))


def _cut(groups: pd.Series[Any], data: Data, offset: float = 0.0) -> pd.Series[Any]:
    """Cut the ordered rows into splits of the wanted sizes, at boundaries between groups.

    `offset`: fraction of the rows by which the order is rotated first.
    """
    position = np.arange(len(groups))
    start = pd.Series(position, index=groups.index).groupby(groups, sort=False).transform("min").to_numpy() / len(
        groups
    )
    start = (start + offset) % 1 if offset else start
    bounds = [1 - data.val_size - data.test_size, 1 - data.test_size]
    return pd.Series(np.array(["train", "val", "test"])[np.searchsorted(bounds, start + 1e-9)], index=groups.index)
