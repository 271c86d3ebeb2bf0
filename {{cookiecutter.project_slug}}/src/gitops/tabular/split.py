"""Assign rows to the training, validation and test split: stratified and by groups, or chronological."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import chronological, groups, strata
from gitops.tabular.chronological import DUPLICATE, NAMES, REPEATED_ID, SPLITS, TRAIN, Codes
from gitops.tabular.groups import Numbers
from gitops.tabular.keys import Keys


def assign(keys: Keys, data: Data, starts: Sequence[int] = ()) -> tuple[Codes, Numbers]:
    """Return for each row its split, or why it is left out, as a position in NAMES (int8), and the number of its group.

    `starts`: positions at which rows were appended to the table. Each appended block is drawn by itself, so that older
    rows stay in their splits, and a model that was trained before can be tested on today's test rows.

    A group is what shares an id (`data.id`) or is equal in all features, unless `data.duplicates` is "keep"; with
    "drop", rows that repeat an earlier one in features and target are left out. Groups are in one split, and rows are
    otherwise drawn at random, with the target's distribution the same in each split. With `data.timestamp`, training
    rows come first, then validation, then test (chronological.py).
    Raises ProjectError for an empty split, where groups or times leave one less than half of its rows, and what
    `chronological.assign` does.
    """
    kept = _kept(keys, data)
    rows = keys if kept is None else keys.take(kept)
    links = groups.links(rows, data)
    numbers = groups.connect(links, len(rows))
    if data.timestamp is None:
        blocks = starts if kept is None else np.searchsorted(kept, [*starts]).tolist()
        found = _draw(rows, data, blocks, links, numbers)
    else:
        found = chronological.assign(rows, data)
    if data.task != "regression":
        found = _learnable(found, rows, numbers, data)
    _check_sizes(found, rows, numbers, data)
    if kept is None:
        return found, numbers
    codes, all_numbers = np.full(len(keys), DUPLICATE, np.int8), np.full(len(keys), -1)
    codes[kept], all_numbers[kept] = found, numbers
    return codes, all_numbers


def counts(codes: Codes) -> dict[str, int]:
    """Return how many rows are left out, by the reason, and how many are in each split."""
    found = np.bincount(codes, minlength=len(NAMES)).tolist()
    return {NAMES[code]: found[code] for code in (DUPLICATE, REPEATED_ID, *range(len(SPLITS)))}


def _kept(keys: Keys, data: Data) -> Numbers | None:
    """Return the rows that `data.duplicates: drop` does not leave out, those that repeat no earlier one; None: all."""
    if data.duplicates != "drop" or keys.features is None:
        return None
    first = groups.first_rows(groups.numbered(groups.joined(keys.features, keys.target)))
    return np.flatnonzero(first == np.arange(len(first)))


def _draw(keys: Keys, data: Data, starts: Sequence[int], links: list[Numbers], numbers: Numbers) -> Codes:
    """Draw the splits of all rows, block after block; a row whose group has older rows follows the oldest of them.

    `numbers`: the groups that the links make in the whole table.
    """
    first, *others = [*pairwise(sorted({0, *starts, len(keys)}))]
    if not others:
        return _draw_block(keys, numbers, data, *first)
    codes = np.empty(len(keys), np.int8)
    firsts = [groups.first_rows(link) for link in links] or [np.arange(len(keys))]
    oldest = np.minimum.reduce(firsts)
    for start, stop in (first, *others):
        numbers = groups.connect([groups.numbered(link[start:stop]) for link in links], stop - start)
        leaders = np.full(int(numbers.max()) + 1, stop)
        np.minimum.at(leaders, numbers, oldest[start:stop])
        leader = leaders[numbers]
        follows = leader < start
        codes[start:stop][follows] = codes[leader[follows]]
        new = np.flatnonzero(~follows)
        if len(new):
            codes[start + new] = _draw_block(keys.take(start + new), numbers[new], data, start, stop)
    return codes


def _draw_block(keys: Keys, numbers: Numbers, data: Data, start: int, stop: int) -> Codes:
    """Return the splits of rows that were appended at the position `start`, up to the table's row `stop`.

    A group that is larger than half of the smaller of the validation and test split would unbalance these: it is for
    training.
    """
    codes = np.full(len(keys), TRAIN, np.int8)
    target = keys.target
    sizes = np.bincount(numbers)[numbers]
    drawn = np.flatnonzero((sizes == 1) | (sizes <= min(data.val_size, data.test_size) * stop / 2))
    del sizes
    if not len(drawn):
        return codes
    if len(drawn) < len(keys):
        numbers, target = numbers[drawn], target[drawn]
    found = strata.of(target, keys.classes, data)
    order = strata.order(numbers, found, np.random.default_rng(data.seed))
    # The first rows of an order are for training, so a few appended rows would all be: draw where the order begins.
    offset = np.random.default_rng([data.seed, start]).random() if start else 0.0
    share = min(len(keys) / len(drawn), 1 / (data.val_size + data.test_size))
    codes[drawn[order]] = strata.cut(numbers[order], data, offset, share)
    return codes


def _learnable(codes: Codes, keys: Keys, numbers: Numbers, data: Data) -> Codes:
    """Move the rows of classes that only other splits have to training: a class must be learned to be scored."""
    learned = np.bincount(keys.target[codes == TRAIN], minlength=len(keys.classes)) > 0
    if not learned.any():
        return codes
    unseen = (codes < len(SPLITS)) & ~learned[keys.target]
    if not unseen.any():
        return codes
    if data.timestamp is not None:
        classes = [keys.classes[code] for code in np.unique(keys.target[unseen])]
        raise ProjectError(
            f"classes {classes} of data.target {data.target!r} appear only after the training "
            "period: leave them out of the table, or make data.val_size and data.test_size smaller"
        )
    return np.where(np.isin(numbers, numbers[unseen]), np.int8(TRAIN), codes)


def _check_sizes(codes: Codes, keys: Keys, numbers: Numbers, data: Data) -> None:
    """Raise ProjectError for an empty split, and where groups or times leave one less than half of its rows."""
    wanted = {"train": 1 - data.val_size - data.test_size, "val": data.val_size, "test": data.test_size}
    found = counts(codes)
    for name, fraction in wanted.items():
        rows = found[name]
        if rows and 2 * rows >= fraction * len(codes):
            continue
        cause = _cause(codes, keys, numbers, data)
        if rows and not cause:  # a few rows of a small table, as of rare classes, which training needs
            continue
        raise ProjectError(
            f"the {name} split {f'has {rows} rows' if rows else 'is empty'}, where data.val_size {data.val_size} and "
            f"data.test_size {data.test_size} want {round(fraction * len(codes))} of {len(codes)}: "
            f"{cause}more rows or other sizes are needed"
        )


def _cause(codes: Codes, keys: Keys, numbers: Numbers, data: Data) -> str:
    """Return why a split has too few rows and what to set, to be followed by what helps besides; or nothing."""
    if left_out := chronological.told(codes, data):
        return f"{left_out}, or "
    if keys.times is not None:
        times = int(np.bincount(groups.numbered(keys.times)).max())
        return f"up to {times} rows of the same data.timestamp are not cut apart: " if times > 1 else ""
    largest = int(np.bincount(numbers).max())
    if largest == 1:
        return ""
    links = [f"share data.id {data.id!r}"] if data.id is not None else []
    links += ["are equal in all features"] if data.duplicates != "keep" else []
    remedy = "set data.duplicates to keep, or " if data.duplicates != "keep" else ""
    return f"rows that {' or '.join(links)} stay together, up to {largest} of them: {remedy}"
