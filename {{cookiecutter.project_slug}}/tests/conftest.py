"""Tests of what you edit. They import your package as `project`, so that they need no change when it is renamed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from gitops.core import params
from gitops.tabular import arrow, numbers

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / params.package()

spec = importlib.util.spec_from_file_location(
    "project", SOURCE / "__init__.py", submodule_search_locations=[str(SOURCE)]
)
assert spec is not None and spec.loader is not None
sys.modules["project"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["project"])

#: What the table's answers are worth, for each task: `value` of params.yaml.
VALUES: dict[str, dict[str, Any]] = {
    task: {"unit": "EUR", "decisions": 100, "running_cost": 50.0, "answers": None, "error": None} | changes
    for task, changes in {
        "binary": {
            "answers": {"yes": {"yes": 5.0, "no": -20.0}, "no": {"yes": -1.0, "no": 0.0}},
            "today": {"column": "size", "at_least": 1.0, "answer": "yes", "otherwise": "no"},
        },
        "multiclass": {
            "answers": {
                "low": {"low": 0.0, "middle": -1.0, "high": -9.0},
                "middle": {"low": -1.0, "middle": 2.0, "high": -1.0},
                "high": {"low": -9.0, "middle": 1.0, "high": 4.0},
            },
            "today": {"answer": "middle"},
        },
        "regression": {"error": {"over": 1.0, "under": 3.0}, "today": {"answer": 1.0}},
    }.items()
}

#: The table's target for each task.
TARGETS = {"regression": "value", "multiclass": "grade", "binary": "top"}


def table(rows: int = 400) -> pd.DataFrame:
    """Return a table with a column of each dtype, missing values, and a target for each task that depends on them."""
    rng = np.random.default_rng(0)
    size, colour = rng.normal(size=rows), rng.choice(["red", "green", "blue"], rows)
    since = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 7 * 24, rows), unit="h")
    value = size + (colour == "red") + np.sin(2 * np.pi * since.hour / 24) + rng.normal(size=rows) / 10
    frame = pd.DataFrame({"size": size, "colour": colour, "since": since, "value": value})
    frame["member"] = pd.array(rng.random(rows) < 0.5, dtype="boolean")
    frame["grade"] = np.select([value < 0.5, value < 1.5], ["low", "middle"], "high")
    frame["top"] = np.where(value > 1, "yes", "no")
    frame.loc[::40, ["size", "colour"]] = None
    return frame


def settings(task: str, **sections: dict[str, Any]) -> Any:
    """Return the project's settings for the table above, with changes by section."""
    from project.metrics import METRICS
    from project.settings import Settings

    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values.pop("feature_store", None)
    metric = next(iter(METRICS[task]))
    others = [name for name in TARGETS.values() if name != TARGETS[task]]
    data = {"path": "table.parquet", "query": None, "target": TARGETS[task], "task": task, "drop": others}
    data |= {"positive": "yes" if task == "binary" else None, "id": None, "timestamp": None, "categorical": []}
    data |= {"slices": []}
    values["data"] |= data
    values["gate"] = {"primary_metric": metric, "thresholds": {metric: 0.5}}
    values["evaluate"] |= {"bootstrap": 1000}
    values["train"] |= {"device": "cpu", "threshold": "f1"}
    values["value"] = None
    values["tune"] = {}
    for section, changes in sections.items():
        values[section] = (values[section] or {}) | changes
    return Settings.model_validate(values)


def prepared(task: str, rows: int = 400, **changes: Any) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the splits of the table above and their schema, without your derived features.

    `changes` are of settings of `data`.
    """
    from project import prepare

    from gitops.tabular import table as tables

    data = settings(task, data=changes).data
    return prepare.prepare(tables.of_frame(table(rows), data), data, {})


def statistics(train: pd.DataFrame, schema: dict[str, Any]) -> numbers.Numbers:
    """Return what `prepare` writes to numbers.parquet for these training rows."""
    from project import features

    columns, _ = features.encode(arrow.from_frame(train, schema), schema)
    names = [feature["name"] for feature in features.number_features(schema)]
    found = dict(zip(names, columns.T.numpy(), strict=True))
    if not schema["target"]["classes"]:
        found[schema["target"]["name"]] = train[schema["target"]["name"]].to_numpy("float64")
    return numbers.describe(found.items())
