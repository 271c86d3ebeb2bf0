"""Columns that are named as the code's own: each is right from the table to the request log and back into the table."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from breast_cancer import evaluate, features, prepare
from defaults import complete
from gitops.core.artifacts import GROUP, ROW, ProjectError
from gitops.core.sections import Data
from gitops.inference import batch
from gitops.inference.model import Model
from gitops.inference.source import Source
from gitops.monitoring import tables
from gitops.serving import package
from gitops.serving.server import request_log
from gitops.tabular import columns, request_rows, table
from gitops.tabular.columns import Derived
from releases import isolate
from retraining_bench import Bench

NUMBERS = ["row", "split", "count", "prediction", "p_yes", "group", "label", "instance", "rows", "level_0", "0"]
TEXTS = ["model_version", "request_id", "time", "inputs", "client", "errors", "status", "p_no", "rejected_reason"]


def frame(rows: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    found = {name: rng.normal(size=rows).round(3) for name in NUMBERS}
    found |= {name: rng.choice([f"{name}-a", f"{name}-b"], rows) for name in TEXTS}
    found["index"] = [f"i{number}" for number in rng.integers(0, 150, rows)]
    return pd.DataFrame(found | {"target": np.where(found["row"] + found["count"] > 0, "yes", "no")})


def data_of(path: Path, **settings: Any) -> Data:
    named = {"path": str(path), "target": "target", "positive": "yes", "id": "index"}
    return Data(**complete({"data": {"task": "binary", **named, **settings}})["data"])


class Sum(torch.nn.Module):
    """Probability of "yes": it grows with each number."""

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        yes = torch.sigmoid(numbers.sum(dim=1) + categories.sum(dim=1) * 0)
        return torch.stack([1 - yes, yes], dim=1)


def test_a_column_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = frame()
    raw.to_csv("raw.csv", index=False)
    data = data_of(tmp_path / "raw.csv")
    splits, schema = prepare.prepare(table.read(data), data, {})
    assert [feature["name"] for feature in schema["features"]] == [*NUMBERS, *TEXTS]
    for part in splits.values():
        pd.testing.assert_frame_equal(part.set_index(ROW)[[*raw]], raw.loc[part[ROW]], check_names=False)

    test, program = splits["test"], Sum()
    outputs = evaluate.predict(program, test, schema)
    predicted = evaluate.prediction_table(test, outputs, "test", schema)
    assert predicted["row"].tolist() == test[ROW].tolist()
    assert set(predicted["prediction"]) == {"no", "yes"}
    np.testing.assert_array_equal(predicted[["p_no", "p_yes"]], outputs)

    # A request, its line in the log, and what the monitor reads there.
    rows = [request_rows.check_row(0, row | {"index": 7}, schema) for row in package.instances(test, schema)]
    encoded = features.encode(columns.from_rows(rows, schema), schema)
    np.testing.assert_array_equal(program(*encoded).double().numpy(), outputs)
    answers = features.answer(torch.from_numpy(outputs), schema)
    lines = request_log.lines(request_log.Entry("r", rows, answers), "v", ["client"])
    logged = [json.loads(line) for line in lines]
    assert {line["model_version"] for line in logged} == {"v"}
    valid = tables.valid(logged, schema, {"client"}, Counter())
    current = tables.current_features(valid, schema, {"client"})
    reference = tables.reference_features(test, schema)
    pd.testing.assert_frame_equal(
        current.drop(columns="client"), reference.drop(columns="client"), check_dtype=False, check_index_type=False
    )

    # A batch of the table itself: its columns that are no features are carried along.
    raw.to_csv("in.csv", index=False)
    model = Model(program, schema, "v")
    assert batch.predict(Source("in.csv"), "out.parquet", model) == (200, 0)
    found = pd.read_parquet("out.parquet")
    assert found.columns.tolist() == ["row", "index", "target", "prediction", "p_no", "p_yes", "model_version"]
    np.testing.assert_allclose(found.loc[test[ROW], ["p_no", "p_yes"]], outputs)


def test_the_names_of_the_splits_own_columns_are_refused(tmp_path: Path) -> None:
    for name in (ROW, GROUP):
        frame().rename(columns={"row": name}).to_csv(tmp_path / "raw.csv", index=False)
        with pytest.raises(ProjectError, match=f"has a column '{name}', a name that the splits use"):
            table.read(data_of(tmp_path / "raw.csv"))
        frame().to_csv(tmp_path / "raw.csv", index=False)
        data = data_of(tmp_path / "raw.csv")
        with pytest.raises(ProjectError, match="has a column of this name"):
            prepare.prepare(table.read(data), data, {name: Derived(("row",), torch.abs)})


def test_requests_with_such_columns_are_appended(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    bench = Bench(origin, tmp_path, monkeypatch)
    text = frame(60).to_csv(index=False)
    bench.commit(text.encode(), target="target", positive="yes", id="index")
    inputs = dict.fromkeys(NUMBERS, 1.5) | {name: f"{name}-a" for name in TEXTS} | {"index": "i7"}
    line = {"time": "2026-11-01T12:00:00Z", "request_id": "r", "instance": 0, "client": "team-a", "inputs": inputs}
    bench.log(json.dumps(line | {"model_version": "v", "prediction": {}}))
    bench.label("r", "yes")
    assert bench.run() == 0
    added = bench.appended()
    assert added == ",".join(str(({"target": "yes"} | inputs)[name]) for name in frame(1).columns) + "\n"
