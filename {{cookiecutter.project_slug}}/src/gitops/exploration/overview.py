"""The page's first sections: what was read, rows and splits, the target; and how to read the cards."""

from __future__ import annotations

import html
from datetime import UTC, datetime

import pyarrow.compute as pc

from gitops.exploration import cards
from gitops.exploration.context import Context
from gitops.exploration.layout import cell, code, key, table
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


def head(context: Context, splits: list[Split]) -> str:
    """Return the page's title, what is on it, and the error where prepare refuses the table."""
    rows, read = context["rows"]["raw"], context["rows"].get("read")
    what = f"{rows:,} rows of {code(context['path'])}; task {code(context['task'])}, target {code(context['target'])}."
    what += f" Made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    counted = "Counts are of all rows"
    if read is not None and read < rows:
        counted = f"Counts are of the first {read:,} rows, as many as are read of a large table that prepare refuses"
    error = ""
    if context["error"] is not None:
        error = (
            f'<div class="error"><strong>prepare refuses this table.</strong><pre>{html.escape(context["error"])}</pre>'
            "Below is the table as it is, before splits.</div>"
        )
    seen = (
        " Only training rows are set against the target: who has looked at the test rows' target has fitted to it."
        if len(splits) > 1
        else ""
    )
    return (
        f"<h1>{html.escape(context['model'])}: the table</h1><p>{what}</p>{error}"
        f'<p class="quiet">{counted}; where a sample is shown, it says so.{seen} This page shows values of the table: '
        "it is as confidential as the table.</p>"
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
    how = f"Cut by time: {code(time)}" if time else "Drawn at random, groups of rows together"
    how = f"{how}. Equal: in all features." if len(splits) > 1 else "Equal: in all features."
    return f'{said}{table(header, lines)}<p class="quiet">{how}</p>'


def _period(split: Split, time: str) -> list[str]:
    ends = pc.min_max(split.column(time)).as_py()
    return [cell(None, "–" if each is None else str(each)[:16]) for each in ends.values()]


def target(profile: Profile | None, time: Profile | None, values: Target | None, context: Context) -> str:
    """Return the target's distribution in each split and, where there is a `time`, the target over it."""
    if profile is None or values is None:
        return ""
    drift = cards.drifts(profile, context["limits"].get("max_label_drift") or 0.0)
    said = f"<p>{html.escape(cards.summary(profile))}.{f' Drift: {drift}.' if drift else ''}</p>"
    body = _distribution(profile)
    if time is not None and time.bins:
        title = f"over {code(time.name)}, in tenths of the training rows: {cards.against_title(values)}"
        body += f'<h4 class="quiet">{title}</h4><div class="chart">{cards.against(time, values)}</div>'
    return said + body


def _distribution(profile: Profile) -> str:
    names = [*profile.counts]
    if profile.statistics:
        legend = key([*zip(SPLITS, names, strict=False)]) if len(names) > 1 else ""
        return f'<div class="chart">{cards.distribution(profile)}</div>{legend}'
    totals = {name: sum(counts) or 1 for name, counts in profile.counts.items()}
    lines = []
    for at, label in enumerate(profile.labels):
        counts = [(profile.counts[name][at], totals[name]) for name in names]
        lines.append([code(label), *(cell(rows, f"{rows:,} ({rows / total:.2%})") for rows, total in counts)])
    return table(["class", *names], lines)


def explained(target: Target | None, context: Context) -> str:
    """Return how to read the cards."""
    splits = ""
    if len(context["splits"]) > 1:
        splits = (
            "Left: the known values in each split, and their drift from train, 0 to 1 (Kolmogorov-Smirnov for numbers "
            "and dates, Cramér's V for categories). "
        )
    if target is None:
        return f"{splits}There is no target to set them against."
    what = "its quartiles" if target.values is not None else "fractions of its classes"
    interval = ", with 95 % intervals" if len(target.classes) == 2 else ""
    return (
        f"{splits}{'Right: the' if splits else 'The'} target over tenths of the rows, or the most frequent values: the "
        f"grey bar is how many rows, the rest {what}{interval}; the dashed line is that of all rows. Explains: which "
        "fraction of the target (its entropy or variance) the feature explains by itself, less what chance does."
    )
