"""What is reported of a model: metrics with intervals, slices, predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import TARGETS, prepared, settings
from project import evaluate, metrics

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError


@pytest.mark.parametrize("task", TARGETS)
def test_metrics_have_intervals_and_slices(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    splits, schema = prepared(task)
    artifacts.write_parquet(artifacts.TEST, splits["test"])
    artifacts.write_text(artifacts.MODEL, "a model")
    classes, rows = schema["target"]["classes"], len(splits["test"])
    rng = np.random.default_rng(0)
    outputs = rng.dirichlet(np.ones(len(classes)), rows) if classes else rng.normal(size=rows)
    chosen = settings(task, data={"slices": ["colour"]})
    result = evaluate.evaluate(chosen, schema, splits["test"], outputs)
    assert [*result["metrics"]] == [*metrics.METRICS[task]]
    for score in result["metrics"].values():
        assert score["low"] <= score["value"] <= score["high"]
    assert sum(part["rows"] for part in result["slices"]["colour"].values()) == rows
    table = evaluate.prediction_table(splits["test"], outputs, "test", schema)
    assert [*table] == ["row", "split", "target", "prediction", *(f"p_{name}" for name in classes)]


def test_a_slice_by_a_number_is_refused() -> None:
    splits, schema = prepared("regression")
    outputs = np.zeros(len(splits["test"]))
    with pytest.raises(ProjectError, match=r"evaluate\.slices names 'size'"):
        evaluate.slice_metrics(splits["test"], outputs, outputs, schema, ["size"])
