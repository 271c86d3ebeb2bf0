"""The page's first sections: what was read, rows and splits, the target, and what the schema makes of each column."""

from __future__ import annotations

import html
from typing import Any

import pyarrow.compute as pc

from gitops.exploration import cards
from gitops.exploration.context import Context
from gitops.exploration.findings import drifts
from gitops.exploration.layout import cell, key, table
from gitops.exploration.profiles import Profile
from gitops.exploration.repetition import Repetition
from gitops.exploration.svg import SPLITS
from gitops.exploration.tables import Split
from gitops.exploration.targets import Target

#: The reasons in schema.json's `rows`, and the setting that decides each.
LEFT_OUT = {
    "dropped_missing_target": ("without a target", "data.max_lost"),
    "dropped_duplicates": ("equal to another row", "data.duplicates"),
    "dropped_repeated_ids": ("of an id that a later split has", "data.repeated_ids"),
}


def code(text: object) -> str:
    """Return a text as HTML code."""
    return f"<code>{html.escape(str(text))}</code>"


def head(context: Context, splits: list[Split]) -> str:
    """Return the page's title, what is on it, and the error where prepare refuses the table."""
    rows, read = context["rows"]["raw"], context["rows"].get("read")
    what = f"{rows:,} rows of {code(context['path'])}; task {code(context['task'])}, target {code(context['target'])}."
    counted = "Counts are of all rows"
    if read is not None and read < rows:
        counted = f"Counts are of the first {read:,} rows, as many as are read of a large table that prepare refuses"
    error = ""
    if context["error"] is not None:
        error = (
            f'<div class="error"><strong>prepare refuses this table.</strong><pre>{html.escape(context["error"])}</pre>'
            "Below is the table as it is, before splits.</div>"
        )
    seen = "" if len(splits) < 2 else (
        " What is set against the target is of the training rows alone: what one has seen of the test rows' target, one "
        "has fitted to."
    )
    return (
        f"<h1>{html.escape(context['model'])}: the table</h1><p>{what}</p>{error}"
        f'<p class="quiet">{counted}; where a sample is shown, it says so.{seen} This page shows values of the table: it is '
        "as confidential as the table.</p>"
    )


def rows(context: Context, splits: list[Split], repeated: dict[str, Repetition]) -> str:
    """Return how many rows there are, which were left out, and the splits side by side."""
    counts = context["rows"]
    left = [
        f"{counts[name]:,} {what} ({code(setting)})" for name, (what, setting) in LEFT_OUT.items() if counts.get(name)
    ]
    said = f"<p>The table has {counts['raw']:,} rows. Left out: {', '.join(left) or 'none'}.</p>"
    time, identity = (context[key_] if context[key_] in splits[0].names else None for key_ in ("timestamp", "id"))
    header = ["split", "rows", "fraction"] + (["from", "to"] if time else []) + (["ids"] if identity else [])
    header += ["equal to an earlier row", "equal, with another target"] + (["also in train"] if len(splits) > 1 else [])
    total, lines = sum(split.rows for split in splits) or 1, []
    for split in splits:
        line = [code(split.name), cell(split.rows, f"{split.rows:,}"), cell(None, f"{split.rows / total:.1%}")]
        line += _period(split, time) if time else []
        line += [cell(None, f"{pc.count_distinct(split.column(identity)).as_py():,}")] if identity else []
        again = repeated.get(split.name, Repetition(0, 0, None))
        line += [cell(None, f"{again.repeated:,}"), cell(None, f"{again.conflicting:,}", bool(again.conflicting))]
        if len(splits) > 1:
            line.append(cell(None, "–" if again.shared is None else f"{again.shared:,}", bool(again.shared)))
        lines.append(line)
    how = "" if len(splits) < 2 else (
        f"<p class='quiet'>{'Cut by time: ' + code(time) if time else 'Drawn at random, groups of rows together'}. "
        "Equal: in all features.</p>"
    )
    return said + table(header, lines) + how


def _period(split: Split, time: str) -> list[str]:
    ends = pc.min_max(split.column(time)).as_py()
    return [cell(None, "–" if each is None else str(each)[:16]) for each in ends.values()]


def target(profile: Profile | None, context: Context) -> str:
    """Return the target's distribution in each split."""
    if profile is None:
        return ""
    limit = context["limits"].get("max_label_drift") or 0.0
    drift = ", ".join(f"{html.escape(split)} {value:.3f}" for split, value in profile.drift.items())
    mark = " class='warn'" if drifts(profile, limit) else ""
    said = f"<p>{html.escape(cards.summary(profile))}.{f' Drift: <span{mark}>{drift}</span>.' if drift else ''}</p>"
    names = [*profile.counts]
    if profile.statistics:
        body = f'<div style="max-width: 34rem">{cards.distribution(profile)}</div>'
    else:
        totals = {name: sum(counts) or 1 for name, counts in profile.counts.items()}
        lines = []
        for at, label in enumerate(profile.labels):
            counts = [(profile.counts[name][at], totals[name]) for name in names]
            lines.append([code(label), *(cell(rows, f"{rows:,} ({rows / total:.2%})") for rows, total in counts)])
        body = table(["class", *names], lines)
    return said + body + (key([*zip(SPLITS, names, strict=False)]) if profile.statistics and len(names) > 1 else "")


def tags(name: str, context: Context) -> list[str]:
    """Return what params.yaml says of a feature besides."""
    derived = {feature["name"]: feature.get("derived") for feature in context["features"] or []}
    found = [f"derived from {', '.join(derived[name])}"] if derived.get(name) else []
    found += ["slice"] if name in context["slices"] else []
    return found + (["not logged"] if name in context["redacted"] else [])


def columns(found: list[Profile], context: Context, split: Split, shown: set[str]) -> str:
    """Return what the schema makes of each column of the table, with its counts."""
    others = [name for name in found[0].rows if name != found[0].main] if found else []
    header = ["", "column", "is", "dtype", "missing", "different", "explains", *(f"drift {name}" for name in others)]
    limit, lines = context["limits"].get("max_feature_drift") or 0.0, []
    for at, profile in enumerate(found):
        name = code(profile.name)
        link = f'<a href="#c{at}">{name}</a>' if profile.name in shown else name
        marks = ", ".join(map(html.escape, ["feature", *tags(profile.name, context)]))
        lines.append([
            cell(at, str(at + 1)), link + _problem(profile.name, context), marks, profile.dtype,
            cell(profile.fraction_missing(profile.main), f"{profile.fraction_missing(profile.main):.2%}"),
            cell(profile.distinct, f"{profile.distinct:,}"),
            cell(profile.association, "–" if profile.association is None else f"{profile.association:.1%}"),
            *(_drift(profile, name, limit) for name in others),
        ])
    for name, role, kind in _others(context, split):
        at = len(lines)
        blank = [cell(None, "")] * (len(header) - 4)
        lines.append([cell(at, str(at + 1)), code(name) + _problem(name, context), html.escape(role), kind, *blank])
    return (
        '<p class="quiet">Click a heading to sort. "Explains": which fraction of the target\'s uncertainty (of a number\'s '
        'variance) a feature takes away by itself. "Drift": from train, 0 to 1.</p>' + table(header, lines, sort=True)
    )


def _drift(profile: Profile, split: str, limit: float) -> str:
    value = profile.drift.get(split)
    if value is None:
        return cell(None, "–")
    return cell(value, f"{value:.3f}", value > max(limit, profile.chance[split]))


def _problem(name: str, context: Context) -> str:
    problem = context["problems"].get(name)
    return f'<div class="warn">{html.escape(problem)}</div>' if problem else ""


def _others(context: Context, split: Split) -> list[tuple[str, str, str]]:
    """Return name, role and type of the columns that are no features."""
    roles: list[tuple[Any, str]] = [
        (context["target"], "target"),
        (context["id"], "id: rows that share it belong together (data.id)"),
        (context["timestamp"], "timestamp: splits are chronological (data.timestamp)"),
        *((name, "slice, not seen by the model (data.slices, data.drop)") for name in context["unseen"]),
    ]
    found = [(name, role, html.escape(str(split.type(name)))) for name, role in roles if name in split.names]
    return found + [(name, "left out (data.drop)", "") for name in context["dropped"]]


def explained(target: Target | None, context: Context) -> str:
    """Return how to read the cards."""
    splits = "" if len(context["splits"]) < 2 else (
        "Left: the known values in each split, and the drift from train, 0 to 1 (Kolmogorov-Smirnov for numbers and dates, "
        "Cramér's V for categories). "
    )
    if target is None:
        return f"{splits}There is no target to set them against."
    what = "its quartiles" if target.values is not None else "fractions of its classes"
    interval = ", with 95 % intervals" if len(target.classes) == 2 else ""
    return (
        f"{splits}{'Right: the' if splits else 'The'} target over tenths of the rows, or the most frequent values: the grey "
        f"bar is how many rows, the rest {what}{interval}; the dashed line is all rows. \"Explains\": which fraction of the "
        "target's uncertainty the feature takes away by itself, less what chance explains."
    )
