"""Assign rows to the training, validation and test split: stratified and by groups, or chronological."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import chronological, groups, schema
from gitops.tabular.chronological import DUPLICATE, REPEATED_ID, SPLITS
from gitops.tabular.groups import Numbers

#: A class with fewer rows than this cannot be in all three splits; such classes are spread as if they were one.
RARE = 5

#: Quantile bins by which a numeric target is stratified.
BINS = 10

#: Why a row is in no split, as schema.json counts it.
LEFT_OUT = (DUPLICATE, REPEATED_ID)


def assign(frame: pd.DataFrame, data: Data, starts: Sequence[int] = ()) -> tuple[pd.Series[Any], Numbers]:
    """Return for each row its split, or which of LEFT_OUT it is, and the number of its group.

    `frame` has the index 0, 1, ... and the columns of the table and derived features. `starts`: positions at which rows
    were appended to the table. Each appended block is drawn by itself, so that older rows stay in their splits, and a
    model that was trained before can be tested on today's test rows.

    A group is what shares an id (`data.id`) or is equal in all features, unless `data.duplicates` is "keep"; with
    "drop", rows that repeat an earlier one in features and target are left out. Groups are in one split, and rows are
    otherwise drawn at random, with the target's distribution the same in each split. With `data.timestamp`, training
    rows come first, then validation, then test (chronological.py).
    Raises ProjectError for an empty split, where groups or times leave one less than half of its rows, and what
    `chronological.assign` does.
    """
    names: pd.Series[Any] = pd.Series(DUPLICATE, index=frame.index, dtype=object)
    kept = np.flatnonzero(~_repeats(frame, data))
    rows = frame.iloc[kept].reset_index(drop=True)
    links = groups.links(rows, data)
    numbers = groups.connect(links, len(rows))
    if data.timestamp is None:
        found = _draw(rows, data, np.searchsorted(kept, [*starts]).tolist(), links)
    else:
        found = chronological.assign(rows, data)
    if data.task != "regression":
        found = _learnable(found, rows, numbers, data)
    _check_sizes(found, rows, numbers, data)
    names.iloc[kept] = found.to_numpy()
    all_numbers = np.full(len(frame), -1)
    all_numbers[kept] = numbers
    return names, all_numbers


def _repeats(frame: pd.DataFrame, data: Data) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell which rows `data.duplicates: drop` leaves out: those that repeat an earlier one."""
    if data.duplicates != "drop":
        return np.zeros(len(frame), bool)
    first = groups.first_rows(groups.equal(frame[[*schema.feature_names(frame, data), data.target]]))
    return first < np.arange(len(frame))


def _draw(frame: pd.DataFrame, data: Data, starts: Sequence[int], links: list[Numbers]) -> pd.Series[Any]:
    """Draw the splits of all rows, block after block; a row whose group has older rows follows the oldest of them."""
    names = np.empty(len(frame), object)
    firsts = [groups.first_rows(link) for link in links] or [np.arange(len(frame))]
    oldest = np.minimum.reduce(firsts)
    for start, stop in pairwise(sorted({0, *starts, len(frame)})):
        numbers = groups.connect([link[start:stop] for link in links], stop - start)
        leader = pd.Series(oldest[start:stop]).groupby(numbers).transform("min").to_numpy()
        follows = leader < start
        names[start:stop][follows] = names[leader[follows]]
        new = np.flatnonzero(~follows)
        if len(new):
            block = frame.iloc[start + new].reset_index(drop=True)
            names[start + new] = _draw_block(block, numbers[new], data, start, stop)
    return pd.Series(names, index=frame.index)


def _draw_block(
    block: pd.DataFrame, numbers: Numbers, data: Data, start: int, stop: int
) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Return the splits of rows that were appended at the position `start`, up to the table's row `stop`.

    A group that is larger than half of the smaller of the validation and test split would unbalance these: it is for
    training.
    """
    names = np.full(len(block), "train", object)
    sizes = np.bincount(numbers)[numbers]
    drawn = np.flatnonzero((sizes == 1) | (sizes <= min(data.val_size, data.test_size) * stop / 2))
    if not len(drawn):
        return names
    rows = block.iloc[drawn].reset_index(drop=True)
    order = _stratified_order(numbers[drawn], _strata(rows, data), np.random.default_rng(data.seed))
    # The first rows of an order are for training, so a few appended rows would all be: draw where the order begins.
    offset = np.random.default_rng([data.seed, start]).random() if start else 0.0
    share = min(len(block) / len(drawn), 1 / (data.val_size + data.test_size))
    names[drawn[order]] = _cut(numbers[drawn][order], data, offset, share)
    return names


def _learnable(names: pd.Series[Any], frame: pd.DataFrame, numbers: Numbers, data: Data) -> pd.Series[Any]:
    """Move the rows of classes that only other splits have to training: a class must be learned to be scored."""
    target = frame[data.target]
    learned = target[names == "train"].unique()
    if not len(learned):
        return names
    unseen = names.isin(SPLITS) & ~target.isin(learned)
    if unseen.any() and data.timestamp is not None:
        raise ProjectError(
            f"classes {sorted(target[unseen].unique())} of data.target {data.target!r} appear only after the training "
            "period: leave them out of the table, or make data.val_size and data.test_size smaller"
        )
    return names.where(~np.isin(numbers, numbers[unseen]), "train")


def _strata(frame: pd.DataFrame, data: Data) -> pd.Series[Any]:
    target = frame[data.target]
    if data.task == "regression":
        bins = min(BINS, max(1, len(frame) // RARE))
        return pd.qcut(target.rank(method="first"), bins, labels=False) if bins > 1 else target * 0
    sizes = target.map(target.value_counts())
    return target.where(sizes >= RARE, "\0rare")


def _stratified_order(numbers: Numbers, strata: pd.Series[Any], rng: np.random.Generator) -> Numbers:
    """Order rows so that any cut of the order holds each stratum in proportion, groups unbroken.

    Each group takes the stratum of its first row. Within a stratum the groups are shuffled and spread evenly over
    [0, 1): a group before which m of the stratum's n rows come stands at (m + u) / n, with one random u for the
    stratum.
    """
    first = pd.DataFrame({"group": numbers, "stratum": strata, "rows": np.bincount(numbers)[numbers]})
    first = first.drop_duplicates("group").sample(frac=1, random_state=rng)
    rows = first.groupby("stratum")["rows"]
    before, size = rows.cumsum() - first["rows"], rows.transform("sum")
    offset = first["stratum"].map({name: rng.random() for name in sorted(first["stratum"].unique())})
    position = np.zeros(numbers.max() + 1)
    position[first["group"]] = (before + offset) / size
    return np.lexsort((numbers, position[numbers]))


def _cut(ordered: Numbers, data: Data, offset: float, share: float) -> np.ndarray[Any, np.dtype[np.object_]]:
    """Cut rows, given the group of each in their order, into splits at boundaries between groups.

    `offset`: fraction of the rows by which the order is rotated first. `share`: by how much the fractions of the
    validation and test split are larger than in the table.
    """
    start = groups.first_rows(groups.connect([ordered], len(ordered))) / len(ordered)
    start = (start + offset) % 1 if offset else start
    bounds = [1 - (data.val_size + data.test_size) * share, 1 - data.test_size * share]
    return np.array(SPLITS, object)[np.searchsorted(bounds, start + 1e-9)]


def _check_sizes(names: pd.Series[Any], frame: pd.DataFrame, numbers: Numbers, data: Data) -> None:
    """Raise ProjectError for an empty split, and where groups or times leave one less than half of its rows."""
    wanted = {"train": 1 - data.val_size - data.test_size, "val": data.val_size, "test": data.test_size}
    for name, fraction in wanted.items():
        rows = int((names == name).sum())
        if rows and 2 * rows >= fraction * len(names):
            continue
        cause = _cause(names, frame, numbers, data)
        if rows and not cause:  # a few rows of a small table, as of rare classes, which training needs
            continue
        raise ProjectError(
            f"the {name} split {f'has {rows} rows' if rows else 'is empty'}, where data.val_size {data.val_size} and "
            f"data.test_size {data.test_size} want {round(fraction * len(names))} of {len(names)}: "
            f"{cause}more rows or other sizes are needed"
        )


def _cause(names: pd.Series[Any], frame: pd.DataFrame, numbers: Numbers, data: Data) -> str:
    """Return why a split has too few rows and what to set, to be followed by what helps besides; or nothing."""
    if left_out := chronological.told(names, data):
        return f"{left_out}, or "
    if data.timestamp is not None:
        times = int(frame[data.timestamp].value_counts().max())
        return f"up to {times} rows of the same data.timestamp are not cut apart: " if times > 1 else ""
    largest = int(np.bincount(numbers).max())
    if largest == 1:
        return ""
    links = [f"share data.id {data.id!r}"] if data.id is not None else []
    links += ["are equal in all features"] if data.duplicates != "keep" else []
    remedy = "set data.duplicates to keep, or " if data.duplicates != "keep" else ""
    return f"rows that {' or '.join(links)} stay together, up to {largest} of them: {remedy}"
