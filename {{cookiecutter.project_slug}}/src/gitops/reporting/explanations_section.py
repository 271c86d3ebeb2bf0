"""The report's section about which columns decide: candidate beside production. explanations_plots.py draws them."""

from __future__ import annotations

from typing import Any

from gitops.rendering.markdown import code, interval, plain, table
from gitops.reporting.context import Context

#: Columns that are shown.
SHOWN = 10


def explanations(context: Context) -> str:
    """The importance of the deciding columns with intervals, most important first."""
    found = context.explanations
    if not found or not found["features"]:
        return ""
    old = comparable(context)
    before = {feature["name"]: feature for feature in old["features"]} if old else {}
    rows = [
        [code(feature["name"], 60), _shown(feature), _shown(before.get(feature["name"]))]
        for feature in found["features"][:SHOWN]
    ]
    parts = [table(["column", "candidate", "production"], rows)]
    if more := len(found["features"]) - len(rows):
        parts.append(f"… and {more} more in evaluation/explanations.json.")
    parts.append(_note(found))
    if why := _not_shown(context, old):
        parts.append(why)
    return "### Explanations\n\n" + "\n\n".join(parts)


def comparable(context: Context) -> dict[str, Any] | None:
    """Return production's explanations if they are by the candidate's metric."""
    old, new = context.production_explanations, context.explanations
    return old if old and new and old["metric"] == new["metric"] else None


def _shown(feature: dict[str, Any] | None) -> str:
    return interval(feature["importance"], feature["low"], feature["high"]) if feature else "–"


def _note(found: dict[str, Any]) -> str:
    """Return what the numbers are, of which rows, and what they do not say."""
    rows = f"{found['of_rows']} test rows"
    if found["rows"] < found["of_rows"]:
        rows = f"a sample of {found['rows']} of {rows}"
    columns = ""
    if len(found["features"]) < found["of_columns"]:
        columns = f" Of {found['of_columns']} columns those were tried that tell most by themselves."
    return (
        f"How much worse {plain(found['metric'])} is when a column's values are shuffled (permutation importance, 95 % "
        f"intervals), on {rows}.{columns} Columns that say the same share their importance, so a small one means that "
        "the model does without this column, not that it tells nothing."
    )


def _not_shown(context: Context, old: dict[str, Any] | None) -> str:
    """Return what is to be said of production's numbers."""
    if not context.production:
        return ""
    if old:
        same = not context.metrics or context.production.record.test_md5 == context.metrics["test_md5"]
        return "" if same else "Production's are those of its release, on the test rows of then."
    if context.production_explanations:
        return f"Production's are by {plain(context.production_explanations['metric'])}, and not shown."
    return "Production's release has none, or they cannot be fetched any more."
