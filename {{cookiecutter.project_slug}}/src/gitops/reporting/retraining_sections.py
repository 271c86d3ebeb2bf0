"""The report's sections about a retraining: why there is one, on which data, and who sent them."""

from __future__ import annotations

from typing import Any

from gitops.rendering.markdown import code, number, plain, table
from gitops.reporting.context import Context


def review(context: Context) -> str:
    """Why a person must look at the rows of a retraining before it is merged, and who sent them; else nothing."""
    data = context.retraining["data"] if context.retraining else {}
    if not data.get("review"):
        return ""
    rows = [[plain(day), code(name), str(number)] for day, name, number in data["clients"]]
    return (
        f"⚠️ **Do not merge before somebody has looked at the rows that requests brought:** {plain(data['review'])}.\n\n"
        f"{table(['day', 'client', 'rows'], rows)}\n\n"
        "Who may send requests could have sent these: are the clients known, and their numbers as on other days? "
        '`docs/operate.md`, "A retraining is a draft", says how to see the rows themselves.'
    )


def retraining(context: Context) -> str:
    """Why this candidate was retrained, and on which new data; nothing where a person made it."""
    record = context.retraining
    if not record:
        return ""
    data, run = record["data"], f" ([run]({record['run']}))" if record["run"] else ""
    rows = f", {data['rows']} labelled requests appended" if data["kind"] == "requests" else ", imported again"
    if data["rows"]:
        rows += f", from {_time(data['from'])} to {_time(data['to'])}"
    lines = [f"- reason: {plain(record['reason'])}{run}"]
    changed = f"{code(data['before'][:12])} → {code(data['after'][:12])}{rows}"
    lines.append(f"- data: {changed if data['before'] != data['after'] else 'unchanged'}")
    if data.get("clients") and not data["review"]:
        who = len({name for _, name, _ in data["clients"]})
        number_of = f"{data['unreviewed']} of the table's {data['table_rows']} rows"
        lines.append(f"- requests that were in no draft yet: {number_of}; clients: {who}")
    lines += [f"- left out, {count} requests or labels: {plain(why)}" for why, count in data["left_out"].items()]
    if record["tuned"]:
        lines.append(f"- settings, searched anew: {plain(record['tuned'], 500)}")
    parts = ["### Why this retraining", "\n".join(lines)]
    if record["monitor"]:
        parts += _monitor(record["monitor"])
    return "\n\n".join(parts)


def _monitor(result: dict[str, Any]) -> list[str]:
    """Return the monitor's failed checks; those that passed may be hundreds."""
    failed = [check for check in result["checks"] if not check["passed"]]
    shown = [
        ["❌", plain(check["check"]), plain(check["column"] or ""), number(check["value"]), number(check["limit"])]
        for check in failed
    ]
    window = f"{plain(result['rows'])} requests, {_time(result['from'])} to {_time(result['to'])}"
    counts = f"{len(failed)} of {len(result['checks'])} checks failed"
    return [
        f"The monitor reported {plain(result['status'])} ({window}); {counts}:",
        table(["", "check", "column", "value", "limit"], shown, limit=15),
    ]


def _time(text: Any) -> str:
    """Return an ISO 8601 time to the minute."""
    return plain(str(text)[:16].replace("T", " "))
