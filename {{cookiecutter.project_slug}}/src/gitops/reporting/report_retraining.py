"""The report's section on why a candidate was retrained."""

from __future__ import annotations

from typing import Any

from gitops.rendering.markdown import code, plain, table
from gitops.reporting.report_facts import Facts


def retraining(facts: Facts) -> str:
    """Why this candidate was made, and from what new data; nothing where a person has made it."""
    told = facts.retraining
    if not told:
        return ""
    data, source = told["data"], f" ([run]({told['run']}))" if told["run"] else ""
    rows = f", {data['rows']} labelled requests appended" if data["kind"] == "requests" else ", imported anew"
    if data["rows"]:
        rows += f", of {_time(data['from'])} to {_time(data['to'])}"
    lines = [f"- reason: {plain(told['reason'])}{source}"]
    changed = f"{code(data['before'][:12])} → {code(data['after'][:12])}{rows}"
    lines.append(f"- data: {changed if data['before'] != data['after'] else 'as before'}")
    lines += [f"- left out, {count} requests or labels: {plain(why)}" for why, count in data["left_out"].items()]
    if told["tuned"]:
        lines.append(f"- settings, searched anew: {plain(told['tuned'], 500)}")
    parts = ["### Why this retraining", "\n".join(lines)]
    if told["monitor"]:
        parts += _monitor(told["monitor"])
    return "\n\n".join(parts)


def _monitor(verdict: dict[str, Any]) -> list[str]:
    """Return what the monitor has found, its failed checks alone: of the others there may be hundreds."""
    failed = [check for check in verdict["checks"] if not check["passed"]]
    shown = [
        ["❌", plain(check["check"]), plain(check["column"] or ""), number(check["value"]), number(check["limit"])]
        for check in failed
    ]
    seen = f"{plain(verdict['rows'])} requests, {_time(verdict['from'])} to {_time(verdict['to'])}"
    counted = f"{len(failed)} of {len(verdict['checks'])} checks failed"
    return [
        f"The monitor said {plain(verdict['status'])} of {seen}; {counted}:",
        table(["", "check", "column", "value", "limit"], shown, limit=15),
    ]


def _time(text: Any) -> str:
    """Return an ISO 8601 time to the minute."""
    return plain(str(text)[:16].replace("T", " "))


def number(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else plain("" if value is None else value)
    )
