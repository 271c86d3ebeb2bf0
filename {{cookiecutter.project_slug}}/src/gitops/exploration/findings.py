"""What to look at first: the page's own reading of its counts, each with what it may mean and what can be done."""

from __future__ import annotations

import html
from typing import Any

from gitops.exploration.profiles import Profile, number
from gitops.exploration.redundant import ROWS, SAME
from gitops.exploration.repetition import Repetition

#: A feature that alone takes away so much of the target's uncertainty is most likely a leak.
LEAK = 0.8

#: Fraction of missing values, of rows with one value, and of rows with a text of their own, that is worth a look.
MISSING, CONSTANT, UNIQUE = 0.5, 0.99, 0.9

#: Fraction of the rows of the rarest class that is called rare.
RARE = 0.05

#: Values that people write for missing numbers, where they stand apart at one end.
MARKERS = (-1, -9, -99, -999, -9999, 9, 99, 999, 9999, 99999)

#: Columns that one finding names.
NAMED = 8


def names(columns: list[str]) -> str:
    """Return names of columns as HTML, of many the first."""
    shown = ", ".join(f"<code>{html.escape(name)}</code>" for name in columns[:NAMED])
    return shown + (f" and {len(columns) - NAMED} more" if len(columns) > NAMED else "")


def of(
    features: list[Profile],
    target: Profile | None,
    repetition: dict[str, Repetition],
    same: list[list[str]],
    context: dict[str, Any],
) -> list[str]:
    """Return findings as HTML, the most serious first; none where nothing stands out."""
    found = [*_leaks(features), *_target(target, context), *_splits(features, target, context)]
    return [*found, *_repeated(repetition, target, context), *_columns(features), *map(_same, same)]


def _leaks(features: list[Profile]) -> list[str]:
    leaks = [each for each in features if (each.association or 0) >= LEAK]
    if not leaks:
        return []
    return [
        f"{names([each.name for each in leaks])}: alone almost decide the target. Is that known when the decision "
        "has to be made? If not it is a leak: <code>data.drop</code>."
    ]


def _target(target: Profile | None, context: dict[str, Any]) -> list[str]:
    if target is None or context["task"] == "regression" or not target.labels:
        return []
    counts = target.counts[target.main]
    rarest = min(range(len(counts)), key=counts.__getitem__)
    fraction = counts[rarest] / max(1, sum(counts))
    if fraction >= RARE:
        return []
    label = html.escape(target.labels[rarest])
    return [
        f"The class <code>{label}</code> has {counts[rarest]:,} rows, {fraction:.2%}: accuracy says little here. "
        "Consider <code>pr_auc</code> or <code>f1</code> as the primary metric, and "
        "<code>train.class_weights: balanced</code>."
    ]


def _splits(features: list[Profile], target: Profile | None, context: dict[str, Any]) -> list[str]:
    found, limit = [], context["limits"].get("max_feature_drift") or 0.0
    if others := sorted(
        (each for each in features if drifted(each, limit)), key=lambda each: -max(each.drift.values())
    ):
        found.append(
            f"{names([each.name for each in others])}: distributed otherwise in another split, beyond the limit of "
            f"<code>validate_data.max_feature_drift</code> ({limit:g}) and beyond chance."
        )
    if target is not None and drifted(target, context["limits"].get("max_label_drift") or 0.0):
        found.append(
            "The target is distributed otherwise in another split (<code>validate_data.max_label_drift</code>)."
        )
    if new := [each.name for each in features if sum(each.new.values())]:
        found.append(f"{names(new)}: other splits have categories that the training rows lack.")
    return found


def drifted(profile: Profile, limit: float) -> list[str]:
    """Return the splits in which a column is distributed otherwise, by more than the limit and than chance explains."""
    return [split for split, value in profile.drift.items() if value > max(limit, profile.chance[split])]


def _repeated(repetition: dict[str, Repetition], target: Profile | None, context: dict[str, Any]) -> list[str]:
    found = []
    conflicting = sum(each.conflicting for each in repetition.values())
    if conflicting and target is not None:
        what = "another target" if context["task"] == "regression" else "another class"
        found.append(
            f"{conflicting:,} rows are equal in all features to a row of {what}: no model can tell them apart."
        )
    if repeated := sum(each.repeated for each in repetition.values()):
        found.append(
            f"{repeated:,} rows repeat an earlier one in all features. <code>data.duplicates</code> is "
            f"<code>{html.escape(context['duplicates'])}</code>; if they come of a join, correct that."
        )
    if shared := sum(each.shared or 0 for each in repetition.values()):
        found.append(f"{shared:,} rows of other splits have all the features of a training row: the score flatters.")
    return found


def _same(columns: list[str]) -> str:
    return (
        f"{names(columns)}: order the rows almost alike (rank correlation of {SAME} or more with the first, in a "
        f"sample of at most {ROWS:,} rows): one of them may do."
    )


def _columns(features: list[Profile]) -> list[str]:
    kinds: list[tuple[str, list[str]]] = [
        (
            "one value in almost every row; they teach a model little",
            [each.name for each in features if _constant(each)],
        ),
        (
            "missing in more than half of the rows; is that itself a sign (see them against the target)?",
            [each.name for each in features if each.fraction_missing(each.main) > MISSING],
        ),
        (
            "a different text in almost every row: an id, or free text? <code>data.drop</code>, <code>data.id</code>",
            [each.name for each in features if _unique(each)],
        ),
        (
            "one end is what people write where a number is missing; if it means that: <code>data.missing</code>",
            [f"{each.name} ({number(value)})" for each in features if (value := _marker(each)) is not None],
        ),
    ]
    return [f"{names(columns)}: {text}." for text, columns in kinds if columns]


def _constant(profile: Profile) -> bool:
    counts = profile.counts.get(profile.main, [])
    single = profile.distinct <= 10 or profile.dtype in ("category", "boolean")  # else a bar has several values
    return profile.distinct <= 1 or (single and max(counts, default=0) >= CONSTANT * max(1, sum(counts)))


def _unique(profile: Profile) -> bool:
    rows = profile.rows[profile.main]
    return profile.dtype == "category" and rows > 20 and profile.distinct > UNIQUE * rows


def _marker(profile: Profile) -> float | None:
    """Return the smallest or largest value where it is one of MARKERS and far from all others."""
    if profile.dtype != "number" or len(profile.labels) < 3:
        return None
    values = profile.statistics
    spread = values["q75"] - values["q25"]
    for end, gap in (("min", values["q25"] - values["min"]), ("max", values["max"] - values["q75"])):
        if values[end] in MARKERS and spread > 0 and gap > 5 * spread:
            return values[end]
    return None
