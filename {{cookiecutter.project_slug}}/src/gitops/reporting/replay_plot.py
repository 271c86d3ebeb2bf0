"""The picture of the replay in report.html: how many rows' answers change by how much."""

from __future__ import annotations

from typing import Any

from gitops.rendering.html import BLUE, GREY
from gitops.reporting.context import Context


def plots(context: Context) -> list[tuple[str, Any]]:
    """Return title and drawing function; nothing where no requests were replayed."""
    found = context.replay
    if not found or found["status"] != "ok":
        return []
    return [("Replay: changes of the answers", lambda axes: _histogram(axes, found))]


def _histogram(axes: Any, found: dict[str, Any]) -> None:
    """Draw the changes on a logarithmic scale: most rows hardly change, and the few that do are what counts."""
    edges, counts = found["sizes"]["histogram"]["edges"], found["sizes"]["histogram"]["counts"]
    axes.bar(edges[:-1], counts, width=edges[1] - edges[0], align="edge", color=BLUE, edgecolor="white", linewidth=0.5)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.5)
    if edges[0] < 0:
        axes.axvline(0, color=GREY, linestyle=":")
    axes.set(xlabel=_unit(found), ylabel="rows")


def _unit(found: dict[str, Any]) -> str:
    """Return what the changes are measured in."""
    if found["tolerance"] is not None:
        return "candidate less production, standard deviations of the target"
    return {"binary": "change of the positive class's probability"}.get(found["task"], "total variation distance")
