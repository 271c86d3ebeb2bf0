"""The page of `make explore`, in the environment `explore`: counts, charts, and skrub's report of the table."""

from __future__ import annotations

import html
from pathlib import Path

from tqdm import tqdm

from gitops.core import artifacts
from gitops.core.artifacts import GROUP, ROW
from gitops.core.console import echo
from gitops.exploration import (
    cards,
    columns,
    findings,
    overview,
    profiles,
    redundant,
    repetition,
    table_report,
    targets,
)
from gitops.exploration.context import CONTEXT, PAGE, Context
from gitops.exploration.drift import FALSE_ALARM
from gitops.exploration.layout import page
from gitops.exploration.profiles import Profile
from gitops.exploration.tables import Split
from gitops.exploration.targets import Target
from gitops.tabular import cells

#: Features that have a card, at most: those that say most of the target.
CARDS = 100


def main() -> None:
    """Write the page of what context.json names."""
    context = artifacts.read_json(CONTEXT, "make explore")
    splits = [Split(name, Path(path)) for name, path in context["splits"].items()]
    artifacts.write_text(PAGE, made(context, splits))


def made(context: Context, splits: list[Split]) -> str:
    """Return the page."""
    features = feature_names(context, splits[0])
    echo(f"counting {sum(split.rows for split in splits):,} rows of {len(features)} features")
    target = targets.read(splits[0], context)
    level = FALSE_ALARM / max(1, (len(features) + 1) * (len(splits) - 1))
    found = [
        profiles.of(name, splits, target, level)
        for name in tqdm(features, unit=" columns", desc="explore", leave=False, disable=None)
    ]
    of_target = profiles.of(target.name, splits, None, level) if target else None
    time = profiles.of(context["timestamp"], splits[:1], target, level) if _timed(context, splits[0]) else None
    repeated = repetition.count(splits, features, target.name if target else None) if features else {}
    shown = sorted(found, key=lambda each: -(each.association if each.association is not None else -1.0))[:CARDS]
    echo("drawing the table")
    report = _table(context, splits[0], [each.name for each in shown])
    same = redundant.groups(splits[0], [each.name for each in found if each.dtype == "number" and each.distinct > 2])
    notes = findings.of(found, of_target, repeated, same, context)
    listed = "".join(f"<li>{note}</li>" for note in notes) or "<li>Nothing stands out.</li>"
    sections = {
        "first": ("Look at first", f"<ul>{listed}</ul>"),
        "rows": ("Rows and splits", overview.rows(context, splits, repeated)),
        "target": ("Target", overview.target(of_target, time, target, context)),
        "columns": ("Columns", columns.columns(found, context, splits[0], {each.name for each in shown})),
        "features": ("Features", _cards(found, shown, target, context)),
        "table": ("Table", report),
    }
    if of_target is None:
        del sections["target"]
    return page(f"{context['model']}: the table", sections, overview.head(context, splits))


def _timed(context: Context, split: Split) -> bool:
    """Tell whether there is a time, in a column that could be typed as one."""
    name = context["timestamp"]
    return name in split.names and cells.dtype(split.type(name)) == "datetime"


def feature_names(context: Context, split: Split) -> list[str]:
    """Return the columns that the model sees, or of a table without a schema all that it would be."""
    if context["features"] is not None:
        return [feature["name"] for feature in context["features"]]
    others = {context["target"], context["id"], context["timestamp"], ROW, GROUP, *context["unseen"]}
    return [name for name in split.names if name not in others]


def _cards(found: list[Profile], shown: list[Profile], target: Target | None, context: Context) -> str:
    """Return the cards of features, and what sorts and filters them."""
    limit = context["limits"].get("max_feature_drift") or 0.0
    at = {profile.name: place for place, profile in enumerate(found)}
    tags = {each.name: columns.tags(each.name, context) for each in shown}
    body = "".join(cards.card(each, at[each.name], target, limit, tags[each.name]) for each in shown)
    orders = {
        "association": "what they say of the target",
        "drift": "drift",
        "missing": "missing values",
        "at": "the table",
    }
    options = "".join(f'<option value="{name}">{text}</option>' for name, text in orders.items())
    more = f" The {len(shown)} of {len(found)} features that say most of the target." if len(shown) < len(found) else ""
    return (
        f"<p>{html.escape(overview.explained(target, context))}{more}</p>"
        f'<div class="controls"><label>order by <select id="order">{options}</select></label>'
        f'<input id="find" placeholder="find a column" aria-label="find a column">'
        f"{cards.legend([*context['splits']], target, shown[0] if shown else None)}</div>"
        f'<div class="cards">{body}</div>'
    )


def _table(context: Context, split: Split, features: list[str]) -> str:
    """Return skrub's report of some rows of the first split, with the target first, and which rows these are."""
    first = [name for name in (context["target"], context["id"], context["timestamp"]) if name in split.names]
    names = [*first, *features][: table_report.COLUMNS]
    order = {name: at for at, name in enumerate(split.names)}
    frame = split.sample(sorted(names, key=order.__getitem__), table_report.ROWS)
    rows = (
        f"all {len(frame):,}"
        if len(frame) == split.rows
        else f"{len(frame):,} rows, drawn at random, of {split.rows:,}"
    )
    which = "the table's" if split.name == "table" else f"the {split.name} split's"
    left = len(first) + len(features) - len(names)
    chosen = f" and {len(names)} columns, those that say most of the target" if left > 0 else ""
    note = (
        f"By skrub's TableReport, of {rows} of {which} rows{chosen}. Distributions and associations are of these, "
        "associations of at most 3,000 of them."
    )
    return f'<p class="quiet">{html.escape(note)}</p>{table_report.render(frame)}'


if __name__ == "__main__":
    artifacts.run(main)
