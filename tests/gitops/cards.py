"""Shared by the tests of the model card: what one is written from, of any task, and the form of its metadata.

The form is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md, the patterns are those by which the
Hub refuses a card (embeddings-benchmark/mteb#1111), the block is found as huggingface_hub finds it.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from breast_cancer.settings import Settings
from conftest import SETTINGS
from defaults import complete
from gitops.design.card_inputs import Inputs
from gitops.design.questions import Question
from gitops.releases.record import Training

#: How huggingface_hub finds the metadata (repocard.py).
BLOCK = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))")

#: A dataset's name, with or without its owner.
DATASET = r"(?:[\w-]+/)?[\w.-]+"

#: Text as an attacker would put it into a column's name.
HOSTILE = (
    "x|y`\n---\n<!-- hidden --><img src=x onerror=alert(1)> @everyone #1 [click](https://evil.example) **Missing:** \\"
)

NUMBERS = {"mean": 1.0, "std": 1.0, "median": 1.0, "missing": 0.0}


def score(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def settings(task: str, **data: Any) -> Settings:
    """Return settings of a task; `data` changes that section."""
    metric = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "rmse"}[task]
    gate = {"primary_metric": metric, "thresholds": {metric: 0.5}}
    found = complete(SETTINGS | {"data": SETTINGS["data"] | {"task": task} | data, "gate": gate})
    found["train"] = found["train"] | {"threshold": "f1" if task == "binary" else None}
    return Settings.model_validate(found)


def inputs(task: str = "binary", name: str = "size", table: dict[str, Any] | None = None, **changes: Any) -> Inputs:
    """Return what a whole card is written from; `name` is that of a column, a class, a slice and so on."""
    chosen = settings(task, **(table or {}))
    classes = {"binary": ["no", name], "multiclass": ["a", "b", name], "regression": []}[task]
    metrics = {metric: score(0.75) for metric in Settings.metrics[task]}
    part = {"rows": 40, "metrics": metrics}
    evaluated: dict[str, Any] = {
        "task": task,
        "rows": 100,
        "groups": 90,
        "test_md5": "e" * 32,
        "metrics": metrics,
        "slices": {name: {name: part, "rare": {"rows": 2, "metrics": None}}},
        "value": {
            "unit": "EUR",
            "decisions": 400,
            "running_cost": 500,
            "model": {"value": -1234.5, "low": -2000, "high": -1000},
            "today": {"name": name, "value": -50_000, "low": -60_000, "high": -40_000},
            "gain": {"value": 48_765.5, "low": 40_000, "high": 55_000},
        },
    }
    if classes:
        evaluated["calibration"] = {"temperature": 1.25, "error_before": 0.04, "error_after": 0.02}
    condition = {"check": name, "condition": name, "status": "warned", "details": "", "setting": ""}
    given: dict[str, Any] = {
        "commit": "a" * 40,
        "answers": [Question("Use", "What is it for?", f"To show it. {name}"), Question("Use", "And not?", None)],
        "business": [Question("Problem", "What is the problem?", f"It hurts. {name}")],
        "data_licence": "CC BY 4.0",
        "licence": "MIT",
        "data": {"data/raw.csv": "1" * 32},
        "schema": {
            "target": {"name": "diagnosis", "classes": classes},
            "features": [
                {"name": name, "dtype": "number", "min": 6.981, "max": 28.11, **NUMBERS},
                {"name": "colour", "dtype": "category", "categories": {"mauve": 0.5, "teal": 0.5}, "missing": 0.25},
                {
                    "name": "when",
                    "dtype": "datetime",
                    "min": "2021-03-14T15:09:26",
                    "max": "2022-12-31",
                    "missing": 0.0,
                },
                {"name": "old", "dtype": "boolean", "mean": 0.5, "missing": 0.0},
            ],
            "rows": {
                "raw": 500,
                "dropped_missing_target": 3,
                "dropped_duplicates": 0,
                "train": 300,
                "val": 97,
                "test": 100,
            },
        },
        "run": {"run_id": "f" * 32},
        "decision": {"threshold": 0.3125, "metric": "f1", "value": 0.875} if task == "binary" else {},
        "epochs": 37,
        "pytorch": "2.13.0+cpu",
        "packages": "2" * 64,
        "sha256": "3" * 64,
        "metrics": evaluated,
        "explanations": {
            "rows": 100,
            "metric": "roc_auc",
            "features": [{"name": name, "importance": 0.2, "low": 0.1, "high": 0.3}],
        },
        "validations": {part: {"passed": True, "conditions": [condition], "not_run": []} for part in ("data", "model")},
        "gate": {
            "accepted": True,
            "reason": f"Accepted: {name}.",
            "mode": "paired",
            "release": "9" * 40,
            "rules": [{"rule": "one", "passed": True}],
        },
        "training": Training(trained_on="branch", inputs="4" * 64),
    }
    return Inputs(chosen, **(given | changes))


def metadata(card: str) -> dict[str, Any]:
    """Return a card's metadata as huggingface_hub reads it, after checking that it has the Hub's form."""
    found = BLOCK.search(card)
    assert found
    values = yaml.safe_load(found[2])
    assert {*values} <= {
        *("license", "license_name", "license_link", "library_name", "pipeline_tag", "tags", "datasets", "metrics"),
        "model-index",
    }
    assert values["pipeline_tag"] in ("tabular-classification", "tabular-regression")
    assert ("license_name" in values) == (values["license"] == "other")
    assert re.fullmatch(r"[a-z0-9.-]+", values.get("license_name", "x"))
    assert values.get("license_link", "LICENSE") == "LICENSE"
    assert all(isinstance(tag, str) and tag for tag in values["tags"])
    assert all(re.fullmatch(DATASET, name) for name in values["datasets"])
    for model in values.get("model-index", []):
        assert isinstance(model["name"], str) and model["results"]
        for result in model["results"]:
            assert result["task"]["type"] == values["pipeline_tag"]
            assert re.fullmatch(DATASET, result["dataset"]["type"]) and isinstance(result["dataset"]["name"], str)
            assert {metric["type"] for metric in result["metrics"]} == {*values["metrics"]}
            assert all(isinstance(one["value"], float) and math.isfinite(one["value"]) for one in result["metrics"])
    return dict(values)
