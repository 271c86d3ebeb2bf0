"""The sections of the report, one function each, from facts that were gathered once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.integrations.tracking import flatten
from gitops.releases import release
from gitops.rendering.markdown import code, details, fenced, line_chart, plain, table
from gitops.reporting.report_facts import Facts
from gitops.reporting.report_retraining import number, retraining


def verdict(facts: Facts) -> str:
    """The answer first: may this be merged?"""
    if facts.gate:
        mark = "✅ Accepted" if facts.gate["accepted"] else "❌ Refused"
        return f"## {mark}: {plain(facts.settings.package.model_name)}\n\n{plain(facts.gate['reason'], 1000)}"
    failed = [name for name, result in facts.verdicts.items() if not result["passed"]]
    if failed:
        why = "The failed conditions stand below; nothing after them was run."
        return f"## ❌ Stopped: validation of the {failed[0]} failed\n\n{why}"
    if facts.failure:
        return f"## ❌ Stopped: {code(facts.failure.stage)} failed\n\nNothing after it was run."
    if facts.stale:
        stage = code(facts.stale[0])
        return f"## ❌ Not complete: stage {stage} has no result for this commit\n\n`make pipeline` makes it."
    return "## ❌ Not judged\n\nThe gate has not been run for this model: `make gate`."


def failure(facts: Facts) -> str:
    """The last lines of the stage that failed."""
    if not facts.failure:
        return ""
    return f"### Last lines of {code(facts.failure.stage)}\n\n" + fenced("\n".join(facts.failure.lines), "text")


def metrics(facts: Facts) -> str:
    """Candidate, production and the change of each metric."""
    if not facts.metrics:
        return ""
    old = facts.production.record.metrics if facts.production else {}
    rows = []
    for name, direction in facts.settings.metrics[facts.metrics["task"]].items():
        now = facts.metrics["metrics"][name]
        row = [
            f"{name} {'↑' if direction == 'higher' else '↓'}",
            interval(now["value"], now["low"], now["high"]),
            "–",
            "–",
        ]
        if name in old:
            row[2] = interval(old[name].value, old[name].low, old[name].high)
            row[3] = _change(now["value"] - old[name].value, direction, facts.gate, name)
        rows.append(row)
    note = f"{facts.metrics['rows']} test rows; 95 % bootstrap intervals; ↑ higher, ↓ lower is better; ⚪ within noise."
    if facts.production and facts.production.record.test_md5 != facts.metrics["test_md5"]:
        note += " **The test rows are not those that production was measured on.**"
    return "### Metrics\n\n" + table(["metric", "candidate", "production", "change"], rows) + f"\n\n{note}"


def _change(change: float, direction: str, gate: dict[str, Any] | None, name: str) -> str:
    """Return the change with the interval that the gate has found for it."""
    if change == 0:
        return "same"
    better = (change > 0) == (direction == "higher")
    found = (gate or {}).get("differences", {}).get(name)
    if not found:
        return f"{change:+.4g} {'🟢' if better else '🔴'}"
    # The gate counts what is better as more.
    ends = (found["low"], found["high"]) if direction == "higher" else (-found["high"], -found["low"])
    noise = "⚪" if found["low"] <= 0 <= found["high"] else "🟢" if better else "🔴"
    return f"{change:+.4g} ({ends[0]:+.4g} to {ends[1]:+.4g}) {noise}"


def interval(value: float, low: float, high: float) -> str:
    """Return a metric with its 95 % interval."""
    return f"**{value:.4g}** ({low:.4g} to {high:.4g})"


def gate(facts: Facts) -> str:
    """Every rule of the gate, with what it compared."""
    if not facts.gate:
        return ""
    rows = [
        ["✅" if rule["passed"] else "❌", plain(rule["rule"]), number(rule["value"]), number(rule["limit"])]
        for rule in facts.gate["rules"]
    ]
    return f"### Gate ({plain(facts.gate['mode'])})\n\n" + table(["", "rule", "value", "limit"], rows)


def changes(facts: Facts) -> str:
    """Parameters and data, against production."""
    if not facts.production:
        return "### Changes\n\nNothing is in production yet: this would be the first release."
    record = facts.production.record
    rows = differences(facts.settings.model_dump(mode="json"), record.params)
    rows += _data_changes(facts, record)
    if not rows:
        return "### Changes\n\nParameters and data are those of production."
    return "### Changes\n\n" + table(["", "production", "candidate"], rows)


def differences(new: dict[str, Any], old: dict[str, Any]) -> list[list[str]]:
    """Return a row for each parameter that differs: its name, the old value, the new one."""
    new, old = flatten(new), flatten(old)
    return [
        [code(key), code(old.get(key, "–")), code(new.get(key, "–"))]
        for key in sorted({*new, *old})
        if new.get(key) != old.get(key)
    ]


def _data_changes(facts: Facts, record: release.Release) -> list[list[str]]:
    rows = []
    md5 = artifacts.tracked_md5(Path(facts.settings.data.path))
    if md5 != record.data.md5:
        rows.append([plain(facts.settings.data.path), f"md5 {code(record.data.md5[:12])}", f"md5 {code(md5[:12])}"])
    if facts.schema:
        now = facts.schema["rows"]
        rows += [
            [f"rows: {plain(key.replace('_', ' '))}", str(record.rows.get(key, "–")), str(now[key])]
            for key in now
            if now[key] != record.rows.get(key)
        ]
        dtypes = {feature["name"]: feature["dtype"] for feature in facts.schema["features"]}
        rows += [
            [f"column {code(name)}", plain(record.columns.get(name, "–")), plain(dtypes.get(name, "–"))]
            for name in [*dtypes, *(name for name in record.columns if name not in dtypes)]
            if dtypes.get(name) != record.columns.get(name)
        ]
    return rows


def validation(facts: Facts) -> str:
    """Deepchecks: one line a suite, then each failed condition and each check that could not run."""
    if not facts.verdicts:
        return ""
    parts = ["### Deepchecks"]
    for name, result in facts.verdicts.items():
        counts = dict.fromkeys(("passed", "warned", "failed"), 0)
        for condition in result["conditions"]:
            counts[condition["status"]] += 1
        absent = [check for check in result["not_run"] if not check["allowed"]]
        mark = "✅" if result["passed"] else "❌"
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        parts.append(f"{mark} {name}: {told}" + (f", {len(absent)} not run" if absent else ""))
        rows = [
            [plain(condition["check"]), plain(condition["condition"]), plain(condition["details"], 400)]
            for condition in result["conditions"]
            if condition["status"] == "failed"
        ]
        rows += [[plain(check["check"]), "must run", plain(check["reason"], 400)] for check in absent]
        if rows:
            parts.append(table(["check", "condition", "found"], rows))
    return "\n\n".join(parts)


def learning_curve(facts: Facts) -> str:
    """Training and validation loss by epoch."""
    if not facts.curve:
        return ""
    lines = [[row[name] for row in facts.curve] for name in ("train_loss", "val_loss")]
    best = min(facts.curve, key=lambda row: row["val_loss"])
    chart = line_chart("Loss: training, validation", "epoch", [row["epoch"] for row in facts.curve], lines)
    told = f"Best epoch {best['epoch']:.0f} of {len(facts.curve)}, validation loss {best['val_loss']:.4g}."
    return f"### Learning curve\n\n{chart}\n\n{told}"


def confusion(facts: Facts) -> str:
    """Rows are the actual classes, columns the predicted ones."""
    if not facts.metrics or "confusion" not in facts.metrics:
        return ""
    classes, counts = facts.metrics["confusion"]["classes"], facts.metrics["confusion"]["counts"]
    if len(classes) > 12:
        return f"### Confusion\n\n{len(classes)} classes are too many to read here: see report.html."
    rows = [
        [plain(name), *(f"**{count}**" if place == column else str(count) for column, count in enumerate(line))]
        for place, (name, line) in enumerate(zip(classes, counts, strict=True))
    ]
    return "### Confusion\n\n" + table(["actual \\ predicted", *map(plain, classes)], rows)


def slices(facts: Facts) -> str:
    """The primary metric in each slice, worst first."""
    if not facts.metrics or not facts.metrics["slices"]:
        return ""
    name = facts.settings.gate.primary_metric
    worst_first = facts.settings.metrics[facts.metrics["task"]][name] == "higher"
    parts = ["### Slices"]
    for column, values in facts.metrics["slices"].items():
        known = [(value, cell) for value, cell in values.items() if cell["metrics"][name] is not None]
        known.sort(key=lambda pair: pair[1]["metrics"][name], reverse=not worst_first)
        known += [(value, cell) for value, cell in values.items() if cell["metrics"][name] is None]
        rows = [[plain(value), str(cell["rows"]), number(cell["metrics"][name]) or "–"] for value, cell in known]
        parts.append(table([plain(column), "rows", name], rows, limit=20))
    return "\n\n".join(parts)


def deployment(facts: Facts) -> str:
    """What merging would change in the cluster."""
    if not facts.deployment:
        return "" if not facts.curve else "### Deployment\n\nMerging changes no manifest."
    return "### Deployment\n\n" + details(
        "What merging would change in the manifests", fenced(facts.deployment, "diff")
    )


def lineage(facts: Facts) -> str:
    """Where all this came from, in one line."""
    known = [
        f"commit {code(facts.commit[:12])}",
        f"data {code(artifacts.tracked_md5(Path(facts.settings.data.path))[:12])}",
    ]
    if facts.metrics:
        known.append(f"model {code(facts.metrics['model_sha256'][:12])}")
    if facts.run:
        known.append(f"MLflow run {code(facts.run['run_id'])}")
    if facts.production:
        known.append(f"compared with release {code(facts.production.commit[:12])}")
    return "---\n" + " · ".join(known)


ORDER = (
    verdict,
    retraining,
    failure,
    metrics,
    gate,
    changes,
    validation,
    learning_curve,
    confusion,
    slices,
    deployment,
    lineage,
)

#: Left out of a report that is too long, in this order.
EXPENDABLE = (
    "deployment",
    "slices",
    "confusion",
    "validation",
    "changes",
    "gate",
    "learning_curve",
    "metrics",
    "failure",
)
