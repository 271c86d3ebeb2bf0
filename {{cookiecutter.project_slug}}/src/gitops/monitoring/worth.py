"""What the last month's answers were worth, as far as labels have come, beside what the release promised."""

from __future__ import annotations

from typing import Any

import pandas as pd

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.core.value import Value
from gitops.monitoring import performance
from gitops.monitoring.log_window import RULE
from gitops.value import measured, summary, today


def evaluate(settings: Params, context: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the labelled rows say of value, by the amounts of params.yaml; None without amounts or labels.

    All a month, each with `value`, `low` and `high`: `model`, by what was answered, whatever the threshold was then;
    `promised`, the same of the release's test rows; `today` with its `name`, and `gain`, the model's over it, both None
    where the log has not what today's way decides by, and `reason` says so. With fewer than `monitor.min_rows` labelled
    rows all of them are None. `unit`, `decisions`, `running_cost`, `rows` and `days` are there in any case.
    """
    labelled = artifacts.read_parquet(artifacts.MONITOR_LABELLED)
    value, schema = settings.value, context["schema"]
    if value is None or labelled.empty:
        return None
    classes = schema["target"]["classes"]
    rows = labelled[labelled["target"].isin(classes)] if classes else labelled
    found: dict[str, Any] = {"unit": value.unit, "decisions": value.decisions, "running_cost": value.running_cost}
    found |= {"rows": len(rows), "days": settings.monitor.days}
    found |= dict.fromkeys(("model", "promised", "today", "gain", "reason"))
    if len(rows) < settings.monitor.min_rows:
        return found | {"reason": f"{len(rows)} labelled rows, and {settings.monitor.min_rows} are needed"}
    reference = artifacts.read_parquet(artifacts.MONITOR_REFERENCE_OUTPUTS)
    try:
        for name, outputs in (("model", rows), ("promised", reference)):
            arrays, groups = performance.as_arrays(outputs, classes), performance.group_numbers(outputs)
            found[name] = measured.score(value, classes, arrays, groups, settings.evaluate)
    except ProjectError as error:  # amounts for other classes than the release's
        return found | {"model": None, "reason": str(error)}
    return found | _beside_today(settings, value, schema, rows, found["model"])


def _beside_today(
    settings: Params, value: Value, schema: dict[str, Any], rows: pd.DataFrame, model: dict[str, float]
) -> dict[str, Any]:
    """Return `today` and `gain`, or the reason why today's way is not known for these rows."""
    column, frame = value.today.column, rows[[]]
    if column is not None:
        if RULE not in rows:
            return {"reason": f"today's way decides by {column!r}, which is not in the log"}
        frame = rows[[RULE]].set_axis([column], axis=1)
    try:
        without = today.answers(value, frame, {"slices": [], **schema})
        actual, _, predicted = performance.as_arrays(rows, schema["target"]["classes"])
        compared = (actual, predicted, without)
        found = summary.of(value, schema, compared, model, performance.group_numbers(rows), settings.evaluate)
    except ProjectError as error:
        return {"reason": str(error)}
    return {name: found[name] for name in ("today", "gain")}
