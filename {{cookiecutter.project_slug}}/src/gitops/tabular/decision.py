"""The decision of a binary model: from which probability of the positive class on a row is answered as positive.

Stage `train` chooses it and writes model/decision.json. In the schema, as the model archive holds it, it is
`target.threshold`: servers, `make batch` and the project's features.py know nothing else of it.
"""

from __future__ import annotations

import math
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import DECISION, SCHEMA, ProjectError
from gitops.core.console import one_line

KEYS = {"threshold", "metric", "value"}


def schema() -> dict[str, Any]:
    """Return schema.json with the threshold of model/decision.json. Raises ProjectError where that cannot be read."""
    return decided(artifacts.read_json(SCHEMA, "make pipeline"), artifacts.read_json(DECISION, "make pipeline"))


def decided(schema: dict[str, Any], decision: Any) -> dict[str, Any]:
    """Return the schema with the threshold of a decision, the contents of decision.json; without one it stays as it is.

    Raises ProjectError for a decision that `check` refuses.
    """
    check(decision, schema["task"])
    if not decision:
        return schema
    return schema | {"target": schema["target"] | {"threshold": decision["threshold"]}}


def check(decision: Any, task: str) -> None:
    """Raise ProjectError unless this is a decision of a model for `task`: for all but binary an empty one."""
    if decision == {} and task != "binary":
        return
    if not isinstance(decision, dict) or task != "binary" or decision.keys() != KEYS:
        raise ProjectError(f"{DECISION} is not that of a model for task {task!r}: run `make pipeline` again")
    threshold, metric, value = (decision[key] for key in ("threshold", "metric", "value"))
    if not _number(threshold) or not 0 < threshold <= 1:
        raise ProjectError(f"{DECISION}: threshold is {one_line(threshold, 60)!r}, and must be a number in (0, 1]")
    named = isinstance(metric, str) and _number(value)
    if not named and not (metric is None and value is None):
        raise ProjectError(f"{DECISION} must name a metric and its value, or neither of the two")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
