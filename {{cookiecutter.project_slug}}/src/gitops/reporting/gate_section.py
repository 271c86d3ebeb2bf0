"""The report's section about the gate: its rules, and the releases that the candidate was compared with."""

from __future__ import annotations

from typing import Any

from gitops.rendering.markdown import details, interval, number, plain, table
from gitops.reporting.context import Context


def gate(context: Context) -> str:
    """Every rule of the gate, with its value and limit, then the releases."""
    if not context.gate:
        return ""
    found = context.gate
    compared = any(rule["bound"] is not None for rule in found["rules"])
    header = ["", "rule", "value", "limit", *(("95 % bound", "decided by") if compared else ())]
    rows = []
    for rule in found["rules"]:
        row = ["✅" if rule["passed"] else "❌", plain(rule["rule"]), number(rule["value"]), number(rule["limit"])]
        rows.append([*row, *((number(rule["bound"]), plain(rule["release"] or "")) if compared else ())])
    parts = [f"### Gate ({plain(found['mode'])})", table(header, rows), _releases(found), _left_out(found["left_out"])]
    return "\n\n".join(filter(None, parts))


def _releases(found: dict[str, Any]) -> str:
    """Return a folded table of the releases, the best one marked; nothing where there is production alone."""
    releases, best = found["releases"], (found["best"] or {}).get("commit")
    if len(releases) < 2:
        return ""
    rows = []
    for one in releases:
        name = plain(one["title"]) + (" (production)" if one["deployed"] else "")
        name += " **best**" if one["release"] == best else ""
        difference = one["difference"]
        cells = ["–", "–"]
        if difference:
            bound = difference["lower" if found["decision"] == "not_worse" else "upper"]
            cells = [interval(*(difference[key] for key in ("value", "low", "high"))), number(bound)]
        rows.append([name, number(one["value"]), *cells, plain(one["basis"], 400)])
    metric = plain(found["metric"])
    header = ["release", metric, "candidate's difference, above 0 is better", "95 % bound", "compared"]
    return details(f"{len(releases)} releases that it was compared with", table(header, rows))


def _left_out(left_out: dict[str, str]) -> str:
    """Return a folded list of the releases that could not be compared, with the reasons."""
    if not left_out:
        return ""
    rows = [[plain(title), plain(reason, 400)] for title, reason in left_out.items()]
    return details(f"{len(rows)} releases that could not be compared", table(["release", "why"], rows))
