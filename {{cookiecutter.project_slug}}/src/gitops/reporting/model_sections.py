"""The report's sections about the model's results: metrics, validations, learning curve, confusion and slices."""

from __future__ import annotations

from typing import Any

from gitops.core.figures import number, signed
from gitops.rendering.markdown import code, coloured, interval, line_chart, measured, plain, table
from gitops.reporting.context import Context


def metrics(context: Context) -> str:
    """Candidate, production and the change of each metric."""
    if not context.metrics:
        return ""
    old = context.production.record.comparable(context.settings.value) if context.production else {}
    rows = []
    for name, direction in context.settings.better.items():
        if (now := context.metrics["metrics"].get(name)) is None:  # measured with other settings
            continue
        arrow = "↑" if direction == "higher" else "↓"
        unit = context.settings.unit(name)
        row = [f"{name} ({plain(unit)}) {arrow}" if unit else f"{name} {arrow}", measured(now), "–", "–"]
        if name in old:
            row[2] = interval(old[name].value, old[name].low, old[name].high)
            row[3] = _change(now["value"] - old[name].value, direction, context.gate, name)
        rows.append(row)
    note = f"{context.metrics['rows']} test rows{_groups(context.metrics)}; ↑ higher, ↓ lower is better. "
    note += "95 % intervals, and ⚪ for a change that may be none, are about the choice of test rows, not of seeds."
    if any("coverage" in score for score in context.metrics["metrics"].values()):
        note += " Measured: how often such intervals held the true value in simulations (docs/statistics.md)."
    if context.production and context.production.record.test_md5 != context.metrics["test_md5"]:
        note += " **The test rows are not those that production was measured on.**"
    return "### Metrics\n\n" + table(["metric", "candidate", "production", "change"], rows) + f"\n\n{note}"


def decision(context: Context) -> str:
    """From which probability on a row is positive, and how far the probabilities are from what is observed."""
    if not context.metrics or "calibration" not in context.metrics:
        return ""
    parts = []
    if context.decision:
        positive, threshold = context.metrics["confusion"]["classes"][-1], context.decision["threshold"]
        why = "train.threshold is null"
        if name := context.decision["metric"]:
            why = f"the best {plain(name)} on the validation split, {number(context.decision['value'])} there"
        old = context.production.record.threshold if context.production else None
        before = f"; in production from {old:.4g} on" if old is not None else ""
        parts.append(f"A row is {plain(positive)} from a probability of {threshold:.4g} on ({why}){before}.")
    found = context.metrics["calibration"]
    parts.append(
        "Probabilities differ from observed fractions by "
        f"{found['error_after']:.4f} (expected calibration error on the test rows); without the temperature, which is "
        f"{found['temperature']:.4g}, by {found['error_before']:.4f}."
    )
    return "### Decision\n\n" + " ".join(parts)


def _groups(metrics: dict[str, Any]) -> str:
    return f" in {metrics['groups']} groups" if metrics["groups"] < metrics["rows"] else ""


def _change(change: float, direction: str, gate: dict[str, Any] | None, name: str) -> str:
    """Return the change with the interval that the gate computed for it."""
    if change == 0:
        return "same"
    better = (change > 0) == (direction == "higher")
    found = (gate or {}).get("differences", {}).get(name)
    if not found:
        return f"{signed(change, '+.4g')} {'🟢' if better else '🔴'}"
    # In the gate's differences, above 0 is better.
    low, high = (found["low"], found["high"]) if direction == "higher" else (-found["high"], -found["low"])
    sign = "⚪" if found["low"] <= 0 <= found["high"] else "🟢" if better else "🔴"
    change_, low_, high_ = (signed(value, "+.4g") for value in (change, low, high))
    return f"{change_} ({low_} to {high_}) {sign}"


def validation(context: Context) -> str:
    """Deepchecks: one line a suite, then each failed condition and each check that did not run."""
    if not context.validations:
        return ""
    parts = ["### Deepchecks"]
    for name, result in context.validations.items():
        counts = dict.fromkeys(("passed", "warned", "failed"), 0)
        for condition in result["conditions"]:
            counts[condition["status"]] += 1
        absent = [check for check in result["not_run"] if not check["allowed"]]
        sign = "✅" if result["passed"] else "❌"
        summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        parts.append(f"{sign} {name}: {summary}" + (f", {len(absent)} not run" if absent else ""))
        if "sample" in result:
            exact = sorted({plain(item["check"]) for item in result["conditions"] if item["all_rows"]})
            parts.append(f"Run {plain(result['sample'])}; on all rows: {', '.join(exact) or 'nothing'}.")
        rows = [
            [
                plain(condition["check"]),
                plain(condition["condition"]),
                plain(condition["details"], 400),
                code(condition.get("setting", "")),
            ]
            for condition in result["conditions"]
            if condition["status"] == "failed"
        ]
        rows += [
            [plain(check["check"]), "must run", plain(check["reason"], 400), code(check.get("setting", ""))]
            for check in absent
        ]
        if rows:
            parts.append(table(["check", "condition", "found", "setting"], rows))
    return "\n\n".join(parts)


def learning_curve(context: Context) -> str:
    """Training and validation loss by epoch."""
    if not context.curve:
        return ""
    lines = [[row[name] for row in context.curve] for name in ("train_loss", "val_loss")]
    best = min(context.curve, key=lambda row: row["val_loss"])
    title = f"Loss: {coloured(('training', 'validation'))}"
    chart = line_chart(title, "epoch", [row["epoch"] for row in context.curve], lines)
    note = f"Best epoch {best['epoch']:.0f} of {len(context.curve)}, validation loss {best['val_loss']:.4g}."
    return f"### Learning curve\n\n{chart}\n\n{note}"


def confusion(context: Context) -> str:
    """Rows are the actual classes, columns the predicted ones."""
    if not context.metrics or "confusion" not in context.metrics:
        return ""
    classes, counts = context.metrics["confusion"]["classes"], context.metrics["confusion"]["counts"]
    if len(classes) > 12:
        return f"### Confusion\n\n{len(classes)} classes are too many for this table: see report.html."
    rows = [
        [plain(name), *(f"**{count}**" if index == column else str(count) for column, count in enumerate(line))]
        for index, (name, line) in enumerate(zip(classes, counts, strict=True))
    ]
    return "### Confusion\n\n" + table(["actual \\ predicted", *map(plain, classes)], rows)


def slices(context: Context) -> str:
    """The primary metric in each slice with its interval, worst first; then the slices that are too small."""
    if not context.metrics or not context.metrics["slices"]:
        return ""
    name, least = context.settings.gate.primary_metric, context.settings.evaluate.min_slice_rows
    sign = context.settings.sign(name)
    parts = ["### Slices"]
    for column, values in context.metrics["slices"].items():
        scores = {value: (cell["metrics"] or {}).get(name) for value, cell in values.items()}
        known = sorted((score["value"] * sign, value) for value, score in scores.items() if score)
        rows = [
            [plain(value), str(values[value]["rows"]), measured(values[value]["metrics"][name])] for _, value in known
        ]
        rows += [[plain(value), str(values[value]["rows"]), "–"] for value, score in scores.items() if not score]
        parts.append(table([plain(column), "rows", name], rows, limit=20))
        if len(known) < len(rows):
            parts.append(f"–: not defined, or fewer than {least} rows (`evaluate.min_slice_rows`).")
    return "\n\n".join(parts)
