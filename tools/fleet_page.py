"""The fleet's view (fleet.py) as Markdown and as one HTML file that loads nothing; what repositories say is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import datetime

from fleet_project import STATUSES, Project
from gitops.rendering.amounts import amount
from gitops.rendering.markdown import plain, table

UNKNOWN = "not known"
HEADER = [
    "project",
    "needs attention",
    "template",
    "release",
    "in production for",
    "debt score",
    "drift",
    "value a month",
]
ABOUT = (
    "Sorted by what needs attention. In production for: since the newest commit of env/production. Debt score: the "
    "lowest of its four sections, as the release recorded it. Drift and value: the monitor's last run; value with its "
    "95 % interval."
)
CELL = 300  # characters

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #8884; padding: .3rem .6rem; text-align: left; vertical-align: top; }
td:nth-child(2), td:nth-child(4) { overflow-wrap: anywhere; min-width: 12rem; }
th { background: #8881; }
td:nth-child(2) { max-width: 24rem; }
.urgent td:nth-child(2) { border-left: 4px solid #d9730d; }
"""


def cells(project: Project, newest: str, now: datetime) -> list[str]:
    """Return a project's row as plain text, in the order of HEADER."""
    reasons = "; ".join(reason for _, reason in project.attention(newest, now))
    none = UNKNOWN if project.problems else "never monitored"
    drift = none if project.status is None else STATUSES[project.status]
    if project.monitored:
        drift += f", {_age(project.monitored, now)} ago"
    if project.monitored_model and project.model_version not in (None, project.monitored_model):
        drift += ", of another model than the release"
    release = f"{project.model} {project.model_version}" if project.model else UNKNOWN if project.problems else "none"
    since = _age(project.since, now) if project.since else "" if release == "none" else UNKNOWN
    debt = f"{project.debt[0]:g} ({project.debt[1]})" if project.debt else UNKNOWN
    value = UNKNOWN
    if project.worth:
        middle, low, high, unit = project.worth
        value = f"{amount(middle)} {unit} ({amount(low)} to {amount(high)})"
    row = [project.name, reasons, project.version or UNKNOWN, release, since, debt, drift, value]
    return [cell if len(cell) <= CELL else cell[: CELL - 1] + "…" for cell in row]


def markdown(projects: Sequence[Project], newest: str, now: datetime) -> str:
    """Return the table as GitHub shows it."""
    rows = [[plain(cell, CELL) for cell in cells(project, newest, now)] for project in projects]
    text: str = table(HEADER, rows, len(rows))
    return f"# The fleet\n\n{_summary(projects, newest, now)}\n\n{text}\n\n{ABOUT}\n"


def page(projects: Sequence[Project], newest: str, now: datetime) -> str:
    """Return the HTML page."""
    head = "".join(f"<th>{name}</th>" for name in HEADER)
    rows = []
    for project in projects:
        name, *others = (html.escape(cell) for cell in cells(project, newest, now))
        if project.link:
            name = f'<a href="{html.escape(project.link)}" rel="noreferrer">{name}</a>'
        style = ' class="urgent"' if project.attention(newest, now) else ""
        rows.append(f"<tr{style}>" + "".join(f"<td>{cell}</td>" for cell in (name, *others)) + "</tr>")
    body = "\n".join(rows)
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">\n'
        """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">\n"""
        f"<title>The fleet</title>\n<style>{STYLE}</style>\n<h1>The fleet</h1>\n"
        f"<p>{html.escape(_summary(projects, newest, now))}</p>\n"
        f"<table>\n<tr>{head}</tr>\n{body}\n</table>\n<p>{html.escape(ABOUT)}</p>\n</html>\n"
    )


def _summary(projects: Sequence[Project], newest: str, now: datetime) -> str:
    waiting = sum(bool(project.attention(newest, now)) for project in projects)
    return f"Projects: {len(projects)}, needing attention: {waiting}. {now:%Y-%m-%d %H:%M} UTC, template {newest}."


def _age(time: datetime, now: datetime) -> str:
    hours = max(0, int((now - time).total_seconds() // 3600))
    amount, unit = (hours, "hour") if hours < 48 else (hours // 24, "day")
    return f"{amount} {unit}{'' if amount == 1 else 's'}"
