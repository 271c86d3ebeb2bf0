"""The pictures of explanations: importance with intervals, and what the model answers over the values of a column."""

from __future__ import annotations

from typing import Any

from gitops.rendering.html import BLUE, GREY
from gitops.reporting.context import Context
from gitops.reporting.explanations_section import SHOWN, comparable

#: Characters of a name.
NAME = 32

#: Panels, panels in a row, and names below one, at most.
PANELS, COLUMNS, NAMES = 6, 2, 8


def plots(context: Context) -> list[tuple[str, Any]]:
    """Return title and drawing function of each plot for which there are results."""
    found = context.explanations
    if not found or not found["features"]:
        return []
    old = comparable(context)
    drawn: list[tuple[str, Any]] = [("Importance of columns", lambda axes: _importance(axes, found, old))]
    if found["dependence"]:
        what = "probability of " if context.metrics and "confusion" in context.metrics else ""
        drawn.append(("Answers over the values of columns", lambda axes: _dependence(axes, found, old, what)))
    return drawn


def _importance(axes: Any, found: dict[str, Any], old: dict[str, Any] | None) -> None:
    """Draw a bar with its interval for each column, production's below the candidate's."""
    shown = found["features"][:SHOWN][::-1]
    before = {feature["name"]: feature for feature in old["features"]} if old else {}
    for height, feature in enumerate(shown):
        pairs = ((feature, 0.2, BLUE), (before.get(feature["name"]), -0.2, GREY))
        for its, offset, colour in ((its, offset if before else 0.0, colour) for its, offset, colour in pairs if its):
            axes.barh(height + offset, its["importance"], 0.35 if before else 0.6, color=colour)
            axes.plot([its["low"], its["high"]], [height + offset] * 2, color="black", linewidth=1)
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.set_yticks(range(len(shown)), [_name(feature["name"]) for feature in shown], parse_math=False)
    axes.locator_params(axis="x", nbins=5)  # small numbers are long
    legend = "\nblue: candidate, grey: production" if before else ""
    axes.set_xlabel(f"loss of {found['metric']} when shuffled, 95 % intervals{legend}")


def _dependence(axes: Any, found: dict[str, Any], old: dict[str, Any] | None, what: str) -> None:
    """Draw a panel for each of the most important columns, all to one scale; `what` begins the name of its answers.

    Marks below a curve are quantiles of the training rows.
    """
    curves, before = dict([*found["dependence"].items()][:PANELS]), old["dependence"] if old else {}
    pairs = {name: [curve] for name, curve in curves.items()}
    for name, curve in curves.items():
        if (other := before.get(name)) and other["of"] == curve["of"]:
            pairs[name].append(other)
    low, high = (end(end(curve["y"]) for pair in pairs.values() for curve in pair) for end in (min, max))
    margin = 0.15 * (high - low) or 0.1
    figure, rows = axes.figure, -(-len(curves) // COLUMNS)
    figure.set_size_inches(5, 0.8 + 1.5 * rows)
    figure.suptitle(axes.get_title())
    axes.set_title("")
    axes.set_axis_off()
    grid = axes.get_subplotspec().subgridspec(rows, COLUMNS)
    for place, (name, pair) in enumerate(pairs.items()):
        panel = figure.add_subplot(grid[place // COLUMNS, place % COLUMNS])
        panel.set_title(_name(name), fontsize=8, parse_math=False)
        panel.tick_params(labelsize=6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_ylim(low - margin, high + margin)
        panel.set_ylabel(_name(f"{what}{pair[0]['of']}"), fontsize=6, parse_math=False)
        for curve, colour in reversed([*zip(pair, (BLUE, GREY), strict=False)]):
            _curve(panel, curve, pair[0], colour)
        if _numeric(pair[0]):
            panel.plot(pair[0]["x"], [low - margin / 2] * len(pair[0]["x"]), "|", color=GREY, markersize=5)
    legend = "blue: candidate, grey: production; " if before else ""
    figure.supxlabel(f"{legend}marks: quantiles of the training rows", fontsize=6)


def _curve(panel: Any, curve: dict[str, Any], candidate: dict[str, Any], colour: str) -> None:
    """Draw a line over numbers, points over what has names: the candidate's categories, booleans and dates."""
    if _numeric(curve) and _numeric(candidate):
        panel.plot(curve["x"], curve["y"], color=colour, linewidth=1.2)
        return
    places = {str(x): place for place, x in enumerate(candidate["x"])}
    known = [(places[str(x)], y) for x, y in zip(curve["x"], curve["y"], strict=True) if str(x) in places]
    if known:
        panel.plot(*zip(*known, strict=True), "o", color=colour, markersize=3)
    few = [*places][:: -(-len(places) // NAMES)]
    panel.set_xticks([places[text] for text in few], [_name(text)[:12] for text in few], rotation=30, parse_math=False)
    panel.margins(x=0.1)


def _numeric(curve: dict[str, Any]) -> bool:
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in curve["x"])


def _name(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= NAME else line[: NAME - 1] + "…"
