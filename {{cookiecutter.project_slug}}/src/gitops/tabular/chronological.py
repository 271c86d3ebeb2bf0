"""Chronological splits: cut by time alone; then earlier rows of what a later split has too are left out.

An id whose rows went together where its latest row lies would tie a row's split to what happens to the id afterwards:
where an id ends with its event, training would get all the events. So time alone decides, and what would leak into a
later split is taken out of the earlier ones.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import groups
from gitops.tabular.groups import Numbers
from gitops.tabular.keys import Keys

SPLITS = ("train", "val", "test")

#: Where a row is, or why it is in no split, as schema.json counts it; a split's code is the position here.
NAMES = (*SPLITS, "dropped_duplicates", "dropped_repeated_ids")
TRAIN, DUPLICATE, REPEATED_ID = 0, 3, 4

#: int8 [rows].
Codes = NDArray[np.int8]

#: The setting that keeps the rows of each.
SETTINGS = {REPEATED_ID: "data.repeated_ids", DUPLICATE: "data.duplicates"}

#: How much leaving rows out may change the target: relative change of a class's fraction, Kolmogorov-Smirnov statistic.
MAX_CHANGE, MAX_DISTANCE = 0.2, 0.1

#: Probability of a false alarm where the rows left out are like the others.
LEVEL = 0.01


def assign(keys: Keys, data: Data) -> Codes:
    """Return for each row its split, REPEATED_ID or DUPLICATE.

    Rows of the same time are not cut apart. Left out are, with `data.repeated_ids` "drop", rows of an id that a later
    split has too, and, unless `data.duplicates` is "keep", rows that equal one of a later split in all features.
    Raises ProjectError where the target of a split's rows is then distributed otherwise than before.
    """
    codes = _by_time(keys.times, data)
    if keys.ids is not None and data.repeated_ids == "drop":
        codes = _leave_out(codes, REPEATED_ID, groups.numbered(keys.ids), keys, data)
    if data.duplicates != "keep" and keys.features is not None:
        codes = _leave_out(codes, DUPLICATE, groups.numbered(keys.features), keys, data)
    return codes


def _by_time(times: NDArray[Any] | None, data: Data) -> Codes:
    if times is None:
        raise ValueError("there are no times")
    ordered = np.sort(times)
    bounds = [1 - data.val_size - data.test_size, 1 - data.test_size]
    # The fraction of the rows that are earlier than a row decides. It grows with the time, so two times cut.
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    later = np.searchsorted(bounds, first / len(times) + 1e-9)
    at = np.searchsorted(later, [1, 2])
    begins = [ordered[first[place]] if place < len(first) else ordered[-1] + 1 for place in at]
    return np.searchsorted(np.array(begins, ordered.dtype), times, side="right").astype(np.int8)


def told(codes: Codes, data: Data) -> str:
    """Return what was left out, and the settings that keep it; nothing where nothing was."""
    counts = {reason: int((codes == reason).sum()) for reason in SETTINGS}
    found = {
        REPEATED_ID: f"{counts[REPEATED_ID]} rows of a data.id ({data.id!r}) that a later split has too are left out",
        DUPLICATE: f"{counts[DUPLICATE]} rows that equal one of a later split in all features are left out",
    }
    return "; ".join(f"{text}: set {SETTINGS[reason]} to keep" for reason, text in found.items() if counts[reason])


def _leave_out(codes: Codes, reason: int, link: Numbers, keys: Keys, data: Data) -> Codes:
    """Return the codes with `reason` for rows that `link` connects to a row of a later split. Raises ProjectError."""
    level = np.where(codes < len(SPLITS), codes, -1)
    latest = np.full(int(link.max()) + 1, -1, np.int8)
    for split in range(len(SPLITS)):
        latest[link[level == split]] = split
    found = (level >= 0) & (level < latest[link])
    for split in range(len(SPLITS) - 1):
        rows = codes == split
        left_out = found[rows]
        if left_out.any() and not left_out.all():
            change = _change(keys.target[rows], keys.classes, ~left_out, link[rows], data)
            if change:
                raise ProjectError(_unlike(SPLITS[split], reason, int(left_out.sum()), len(left_out), change, data))
    return np.where(found, np.int8(reason), codes)


def _unlike(split: str, reason: int, left_out: int, rows: int, change: str, data: Data) -> str:
    which = f"of a data.id ({data.id!r})" if reason == REPEATED_ID else "with features"
    return (
        f"{left_out} of the {rows} rows of the {split} split are {which} that a later split has too, and what is left "
        f"without them is not like the rest: {change}. Set {SETTINGS[reason]} to keep"
    )


def _change(target: NDArray[Any], names: list[str], kept: NDArray[Any], link: Numbers, data: Data) -> str:
    """Return how the target of the rows `kept` differs from that of all, or nothing where it does not, or by chance."""
    link = groups.numbered(link)
    if data.task == "regression":
        return _distance(target, kept, link, data)
    counts = np.bincount(target, minlength=len(names))
    remaining = np.bincount(target[kept], minlength=len(names)) / kept.sum()
    limit = NormalDist().inv_cdf(1 - LEVEL / 2 / np.count_nonzero(counts))
    for code in np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]:
        before, after = float(counts[code] / len(target)), float(remaining[code])
        if abs(after - before) > MAX_CHANGE * before and _deviation(target == code, before, kept, link) > limit:
            return (
                f"the fraction of {names[code]!r} in data.target {data.target!r} goes from {before:.3g} to {after:.3g}"
            )
    return ""


def _deviation(hits: NDArray[Any], fraction: float, kept: NDArray[Any], link: Numbers) -> float:
    """Return by how many standard deviations the kept rows have more or fewer hits than `fraction` of them.

    Rows of one number of `link` are kept or left out together: of the numbers' excess of hits, those kept are a random
    sample without replacement where they are like the others.
    """
    excess = np.bincount(link, weights=hits - fraction)
    chosen = _by_number(kept, link)
    total, size = len(excess), int(chosen.sum())
    variance = size * (1 - size / total) * float((excess**2).sum()) / max(1, total - 1)
    return abs(float(excess[chosen].sum())) / math.sqrt(variance) if variance else 0.0


def _by_number(kept: NDArray[Any], link: Numbers) -> NDArray[Any]:
    """Return for each number of `link` whether its rows are kept."""
    chosen = np.zeros(int(link.max()) + 1, bool)
    chosen[link] = kept
    return chosen


def _distance(target: NDArray[Any], kept: NDArray[Any], link: Numbers, data: Data) -> str:
    """Return the Kolmogorov-Smirnov statistic of the kept rows and all, if it is large and not by chance."""
    values = np.sort(target)
    every = np.searchsorted(values, values, side="right") / len(values)
    some = np.searchsorted(np.sort(target[kept]), values, side="right") / kept.sum()
    distance = float(np.abs(every - some).max())
    # Against the rows left out it is larger, in proportion; as many values as numbers of `link` are independent.
    between = distance * len(values) / float((~kept).sum())
    chosen = _by_number(kept, link)
    sizes = int(chosen.sum()), int((~chosen).sum())
    critical = math.sqrt(-math.log(LEVEL / 2) / 2 * sum(sizes) / math.prod(sizes))
    if distance <= MAX_DISTANCE or between <= critical:
        return ""
    return (
        f"the median of data.target {data.target!r} goes from {np.median(target):.4g} to {np.median(target[kept]):.4g} "
        f"(Kolmogorov-Smirnov statistic {distance:.3g})"
    )
