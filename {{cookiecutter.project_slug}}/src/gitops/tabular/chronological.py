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
import pandas as pd

from gitops.core.artifacts import ProjectError
from gitops.core.sections import Data
from gitops.tabular import groups, schema
from gitops.tabular.groups import Numbers

SPLITS = ("train", "val", "test")

#: Why a row is in no split, as schema.json counts it.
DUPLICATE, REPEATED_ID = "dropped_duplicates", "dropped_repeated_ids"

#: The setting that keeps the rows of each.
SETTINGS = {REPEATED_ID: "data.repeated_ids", DUPLICATE: "data.duplicates"}

#: How much leaving rows out may change the target: relative change of a class's fraction, Kolmogorov-Smirnov statistic.
MAX_CHANGE, MAX_DISTANCE = 0.2, 0.1

#: Probability of a false alarm where the rows left out are like the others.
LEVEL = 0.01


def assign(frame: pd.DataFrame, data: Data) -> pd.Series[Any]:
    """Return for each row its split, REPEATED_ID or DUPLICATE.

    Rows of the same time are not cut apart. Left out are, with `data.repeated_ids` "drop", rows of an id that a later
    split has too, and, unless `data.duplicates` is "keep", rows that equal one of a later split in all features.
    Raises ProjectError where the target of a split's rows is then distributed otherwise than before.
    """
    start = (frame[data.timestamp].rank(method="min") - 1) / len(frame)
    bounds = [1 - data.val_size - data.test_size, 1 - data.test_size]
    names = pd.Series(np.array(SPLITS, object)[np.searchsorted(bounds, start + 1e-9)], index=frame.index)
    if data.id is not None and data.repeated_ids == "drop":
        names = _leave_out(names, REPEATED_ID, groups.by_id(frame, data.id), frame, data)
    if data.duplicates != "keep":
        link = groups.equal(frame[schema.feature_names(frame, data)])
        names = _leave_out(names, DUPLICATE, link, frame, data)
    return names


def told(names: pd.Series[Any], data: Data) -> str:
    """Return what was left out, and the settings that keep it; nothing where nothing was."""
    counts = {reason: int((names == reason).sum()) for reason in SETTINGS}
    found = {
        REPEATED_ID: f"{counts[REPEATED_ID]} rows of a data.id ({data.id!r}) that a later split has too are left out",
        DUPLICATE: f"{counts[DUPLICATE]} rows that equal one of a later split in all features are left out",
    }
    return "; ".join(f"{text}: set {SETTINGS[reason]} to keep" for reason, text in found.items() if counts[reason])


def _leave_out(names: pd.Series[Any], reason: str, link: Numbers, frame: pd.DataFrame, data: Data) -> pd.Series[Any]:
    """Return the names with `reason` for rows that `link` connects to a row of a later split. Raises ProjectError."""
    level = names.map({name: index for index, name in enumerate(SPLITS)}).fillna(-1)
    found = (level >= 0) & (level < level.groupby(link).transform("max"))
    for split in ("train", "val"):
        rows = names == split
        if (rows & found).any() and (rows & ~found).any():
            change = _change(frame.loc[rows, data.target], ~found[rows], link[rows], data)
            if change:
                raise ProjectError(_unlike(split, reason, int((rows & found).sum()), int(rows.sum()), change, data))
    return names.mask(found, reason)


def _unlike(split: str, reason: str, left_out: int, rows: int, change: str, data: Data) -> str:
    which = f"of a data.id ({data.id!r})" if reason == REPEATED_ID else "with features"
    return (
        f"{left_out} of the {rows} rows of the {split} split are {which} that a later split has too, and what is left "
        f"without them is not like the rest: {change}. Set {SETTINGS[reason]} to keep"
    )


def _change(target: pd.Series[Any], kept: pd.Series[Any], link: Numbers, data: Data) -> str:
    """Return how the target of the rows `kept` differs from that of all, or nothing where it does not, or by chance."""
    if data.task == "regression":
        return _distance(target, kept, link, data)
    classes = target.value_counts(normalize=True)
    limit = NormalDist().inv_cdf(1 - LEVEL / 2 / len(classes))
    for name, before in classes.items():
        after = float((target[kept] == name).mean())
        if abs(after - before) > MAX_CHANGE * before and _deviation(target == name, before, kept, link) > limit:
            return f"the fraction of {name!r} in data.target {data.target!r} goes from {before:.3g} to {after:.3g}"
    return ""


def _deviation(hits: pd.Series[bool], fraction: float, kept: pd.Series[Any], link: Numbers) -> float:
    """Return by how many standard deviations the kept rows have more or fewer hits than `fraction` of them.

    Rows of one number of `link` are kept or left out together: of the numbers' excess of hits, those kept are a random
    sample without replacement where they are like the others.
    """
    excess = (hits - fraction).groupby(link).sum()
    chosen = kept.groupby(link).first().to_numpy(bool)
    total, size = len(excess), int(chosen.sum())
    variance = size * (1 - size / total) * float((excess**2).sum()) / max(1, total - 1)
    return abs(float(excess[chosen].sum())) / math.sqrt(variance) if variance else 0.0


def _distance(target: pd.Series[Any], kept: pd.Series[Any], link: Numbers, data: Data) -> str:
    """Return the Kolmogorov-Smirnov statistic of the kept rows and all, if it is large and not by chance."""
    values = np.sort(target.to_numpy(float))
    every = np.searchsorted(values, values, side="right") / len(values)
    some = np.searchsorted(np.sort(target[kept].to_numpy(float)), values, side="right") / kept.sum()
    distance = float(np.abs(every - some).max())
    # Against the rows left out it is larger, in proportion; as many values as numbers of `link` are independent.
    between = distance * len(values) / float((~kept).sum())
    chosen = kept.groupby(link).first()
    sizes = int(chosen.sum()), int((~chosen).sum())
    critical = math.sqrt(-math.log(LEVEL / 2) / 2 * sum(sizes) / math.prod(sizes))
    if distance <= MAX_DISTANCE or between <= critical:
        return ""
    return (
        f"the median of data.target {data.target!r} goes from {target.median():.4g} to {target[kept].median():.4g} "
        f"(Kolmogorov-Smirnov statistic {distance:.3g})"
    )
