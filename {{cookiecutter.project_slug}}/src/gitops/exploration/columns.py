"""The table of the columns: what params.yaml and the schema make of each, and its counts."""

from __future__ import annotations

import html
from typing import Any

from gitops.exploration.context import Context
from gitops.exploration.findings import drifted
from gitops.exploration.layout import cell, code, table
from gitops.exploration.profiles import Profile
from gitops.exploration.tables import Split
from gitops.tabular import cells


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
        lines.append(
            [
                cell(at, str(at + 1)),
                link + _problem(profile.name, context),
                marks,
                profile.dtype,
                cell(profile.fraction_missing(profile.main), f"{profile.fraction_missing(profile.main):.2%}"),
                cell(profile.distinct, f"{profile.distinct:,}"),
                cell(profile.association, "–" if profile.association is None else f"{profile.association:.1%}"),
                *(_drift(profile, name, limit) for name in others),
            ]
        )
    for name, role, kind in _others(context, split):
        at = len(lines)
        blank = [cell(None, "")] * (len(header) - 4)
        lines.append([cell(at, str(at + 1)), code(name) + _problem(name, context), html.escape(role), kind, *blank])
    return (
        '<p class="quiet">Click a heading to sort. Explains: which fraction of the target (of its entropy, of a number '
        "its variance) a feature explains by itself. Drift: from train, 0 to 1.</p>" + table(header, lines, sort=True)
    )


def _drift(profile: Profile, split: str, limit: float) -> str:
    value = profile.drift.get(split)
    if value is None:
        return cell(None, "–")
    return cell(value, f"{value:.3f}", split in drifted(profile, limit))


def _problem(name: str, context: Context) -> str:
    problem = context["problems"].get(name)
    return f'<div class="warn">{html.escape(problem)}</div>' if problem else ""


def _others(context: Context, split: Split) -> list[tuple[str, str, str]]:
    """Return name, role and dtype of the columns that are no features."""
    roles: list[tuple[Any, str]] = [
        (context["target"], "target"),
        (context["id"], "id: rows that share it belong together (data.id)"),
        (context["timestamp"], "timestamp: splits are chronological (data.timestamp)"),
        *((name, "slice, not seen by the model (data.slices, data.drop)") for name in context["unseen"]),
    ]
    found = [(name, role, cells.dtype(split.type(name)) or "") for name, role in roles if name in split.names]
    return found + [(name, "left out (data.drop)", "") for name in context["dropped"]]
