"""The monitor's verdict for people, a page and a summary, and for Prometheus."""

from __future__ import annotations

import html
from datetime import datetime
from typing import Any

from gitops.monitoring import monitor_plots
from gitops.rendering.html import STYLE, figure
from gitops.rendering.markdown import code, details, plain, table

SIGNS = {"quiet": "✅ Quiet", "drift": "⚠️ Drift", "too_small": "⏳ Too small to judge"}

#: How Prometheus is told the status.
NUMBERS = {"quiet": 0, "drift": 1, "too_small": 2}

#: What to do first where a check has failed; docs/operate.md says more, under the same name.
ADVICE = {
    "performance": "Are the labels right, and of all kinds of rows? Then `make rollback`, if the release before was "
    "better, or retrain.",
    "missing values": "Find the client: its requests share a time, and most likely other values.",
    "unseen categories": "Find the client. A new value that is to stay needs rows in the table.",
    "out of range": "Is it a unit, or a marker of missing values such as 999? If the values are real, retrain with "
    "them.",
    "feature drift": "Was something changed where the values come from: a unit, a sensor, a client, a campaign? Mend "
    "it there; if the world has changed, retrain with new rows.",
    "prediction drift": "Look at the features first. If none has failed, several have moved a little: retrain with new "
    "rows.",
    "label drift": "The labels come in other shares: retrain with new rows.",
    "refused requests": "The client does not send what the schema asks for. The log's lines hold the errors.",
    "unreadable lines": "The log is damaged, or something else writes there. The monitor sees only a part.",
}

Verdict = dict[str, Any]


def line(verdict: Verdict) -> str:
    """Return the verdict in one line of plain text."""
    named: dict[str, list[str]] = {}
    for check in verdict["checks"]:
        if not check["passed"]:
            named.setdefault(check["check"], []).extend([check["column"]] if check["column"] else [])
    found = [f"{name}: {_some(columns)}" if columns else name for name, columns in named.items()]
    if verdict["performance"] and verdict["performance"]["passed"] is False:
        found.append(f"performance: {verdict['performance']['reason']}")
    rows = f"{verdict['rows']} rows of model {verdict['model_version']}, {verdict['refused']} requests refused"
    return f"{SIGNS[verdict['status']]}: {'; '.join(found) or 'nothing stands out'} ({rows})"


def markdown(verdict: Verdict, facts: dict[str, Any]) -> str:
    """Return the verdict as Markdown: what failed, how far, what to do, notes, and all checks folded away."""
    failed = monitor_plots.failures(verdict)
    title = f"{SIGNS[verdict['status']]}: {plain(facts['model'])} in production"
    parts = [f"## {title}", plain(_window(verdict, facts), 500)]
    if performance := verdict["performance"]:
        sign = {True: "✅", False: "⚠️", None: "⏳"}[performance["passed"]]
        limit = f"; it may be worse by {performance['limit']:.3g}" if performance["passed"] is False else ""
        parts.append(f"{sign} Performance: {plain(performance['reason'])}{limit}")
    if failed:
        parts += [_checks(failed), "A limit is that of `params.yaml`, or what chance makes of so few rows, if more."]
    names = dict.fromkeys(check["check"] for check in failed)
    if performance and performance["passed"] is False:
        names = {"performance": None} | names
    if names:
        steps = "\n".join(f"- **{name}:** {ADVICE[name]}" for name in names)
        parts.append(f"What to do (more in `docs/operate.md`):\n\n{steps}")
    if verdict["notes"]:
        parts.append("Notes:\n\n" + "\n".join(f"- {plain(note)}" for note in verdict["notes"]))
    if verdict["checks"]:
        parts.append(details(f"All {len(verdict['checks'])} checks", _checks(verdict["checks"], 1000)))
    return "\n\n".join(parts) + "\n"


def page(summary: str, verdict: Verdict, facts: dict[str, Any]) -> str:
    """Return the HTML page: the summary, and plots of the predictions and of each column that has failed a check."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(summary)
    figures = "".join(figure(title, draw) for title, draw in monitor_plots.plots(verdict, facts))
    title = html.escape(facts["model"])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}: monitor</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n<h3>Requests beside the reference</h3>\n"
        "<p>Blue: these requests; grey: the test rows of the release. The outermost bars hold what lies "
        f"beyond.</p>\n{figures}\n</body></html>\n"
    )


def metrics(verdict: Verdict, facts: dict[str, Any], now: datetime) -> str:
    """Return the verdict in Prometheus' text format.

    Source: https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    failed: dict[str, float] = {}
    for check in verdict["checks"]:
        failed[check["check"]] = failed.get(check["check"], 0) + (not check["passed"])
    drifts = [check for check in verdict["checks"] if check["check"] == "feature drift"]
    performance = verdict["performance"] or {}
    families: list[tuple[str, str, list[tuple[dict[str, str], float | None]]]] = [
        ("status", "0 quiet, 1 drift, 2 too few rows to judge", [({}, NUMBERS[verdict["status"]])]),
        ("last_run_timestamp_seconds", "When the monitor ran.", [({}, round(now.timestamp()))]),
        ("rows", "Rows since the last judged run.", [({}, verdict["rows"])]),
        ("refused_requests", "Requests refused since the last judged run.", [({}, verdict["refused"])]),
        ("failed_checks", "Checks that failed.", [({"check": name}, count) for name, count in failed.items()]),
        ("drift", "Drift of a feature, 0 to 1.", [({"column": item["column"]}, item["value"]) for item in drifts]),
        (
            "performance",
            "The decisive metric on labelled rows.",
            [({"metric": performance.get("metric", "")}, performance.get("value"))],
        ),
    ]
    lines = []
    for name, help_text, samples in families:
        if known := [(labels, value) for labels, value in samples if value is not None]:
            lines += [f"# HELP model_monitor_{name} {help_text}", f"# TYPE model_monitor_{name} gauge"]
            about = {"model": facts["model"], "version": facts["model_version"]}
            lines += [f"model_monitor_{name}{{{_labels(about | labels)}}} {value!r}" for labels, value in known]
    return "\n".join(lines) + "\n"


def _labels(values: dict[str, str]) -> str:
    escaped = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    return ",".join(f'{name}="{value.translate(escaped)}"' for name, value in values.items())


def _some(columns: list[str], most: int = 5) -> str:
    return ", ".join(columns[:most]) + (f" and {len(columns) - most} more" if len(columns) > most else "")


def _window(verdict: Verdict, facts: dict[str, Any]) -> str:
    first, last = (time and time[:16].replace("T", " ") for time in (verdict["from"], verdict["to"]))
    times = f"From {first} to {last} UTC" if first else "No request"
    beside = {"lines that cannot be read": sum(facts["broken"].values())}
    beside |= {"lines of other models": facts["other_versions"], "lines too old": facts["too_old"]}
    more = "".join(f", {count} {what}" for what, count in beside.items() if count)
    return (
        f"{times}: {verdict['rows']} rows of model {verdict['model_version']} (release {verdict['release'][:12]}), "
        f"{verdict['refused']} of {facts['requests']} requests refused, {facts['labelled']} rows with labels{more}."
    )


def _checks(checks: list[dict[str, Any]], limit: int = 40) -> str:
    rows = [
        [
            "✅" if check["passed"] else "⚠️",
            check["check"],
            code(check["column"], 60) if check["column"] else "",
            *(f"{check[key]:.3g}" if "drift" in check["check"] else f"{check[key]:.1%}" for key in ("value", "limit")),
            plain(check["details"]),
        ]
        for check in checks
    ]
    return table(["", "check", "column", "value", "limit", "details"], rows, limit)
