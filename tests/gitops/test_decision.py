"""The decision of a model, model/decision.json: what is taken for one, and what the schema has of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_model
from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.tabular import columns, decision

GOOD = {"threshold": 0.25, "metric": "f1", "value": 0.5}


def test_the_schema_has_the_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    artifacts.write_json(artifacts.SCHEMA, tiny_model.SCHEMA)
    with pytest.raises(ProjectError, match=r"model/decision\.json is missing: run `make pipeline` first"):
        decision.schema()
    artifacts.write_json(artifacts.DECISION, GOOD)
    found = decision.schema()
    assert found["target"] == {"name": "left", "classes": ["no", "yes"], "threshold": 0.25}
    assert columns.threshold(found) == {"threshold": 0.25} and columns.threshold(tiny_model.SCHEMA) == {}


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks_have_none(task: str) -> None:
    schema = tiny_model.SCHEMA | {"task": task}
    assert decision.decided(schema, {}) == schema
    with pytest.raises(ProjectError, match=f"not that of a model for task '{task}'"):
        decision.decided(schema, GOOD)


@pytest.mark.parametrize("good", [GOOD, GOOD | {"metric": None, "value": None}, GOOD | {"threshold": 1}])
def test_a_decision_is_accepted(good: dict[str, Any]) -> None:
    decision.check(good, "binary")


@pytest.mark.parametrize(
    "bad",
    [
        {},
        [],
        None,
        0.5,
        {"threshold": 0.5},
        GOOD | {"label": "yes"},
        *(GOOD | {"threshold": value} for value in (0, -0.1, 1.1, True, "0.5", None, [0.5], math.nan, math.inf)),
        *(GOOD | {"metric": value} for value in (None, 1, ["f1"])),
        *(GOOD | {"value": value} for value in (None, "0.5", math.nan)),
    ],
    ids=repr,
)
def test_anything_else_is_refused(bad: Any) -> None:
    with pytest.raises(ProjectError, match=r"model/decision\.json"):
        decision.check(json.loads(json.dumps(bad)), "binary")
