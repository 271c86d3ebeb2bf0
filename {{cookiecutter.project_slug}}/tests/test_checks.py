"""Your checks, run by Deepchecks in its environment: a clean table passes, a leak does not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, prepared, settings, table
from project import evaluate, prepare

from gitops.core import artifacts
from gitops.tabular import table as tables


def run(stage: str) -> dict[str, object]:
    """Run a validation stage in the working directory and return its result, whether it passed or not."""
    command = [ROOT / ".venv/validate/bin/python", "-m", "gitops.validation.stages", stage]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    path = Path(f"reports/validate_{stage}.json")
    assert path.exists(), done.stdout + done.stderr
    result: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    assert done.returncode == (0 if result["passed"] else 1), done.stdout + done.stderr
    return result


def place(splits: dict[str, pd.DataFrame], schema: dict[str, object]) -> None:
    for path in (artifacts.TRAIN, artifacts.VAL, artifacts.TEST):
        artifacts.write_parquet(path, splits[path.stem])
    artifacts.write_json(artifacts.SCHEMA, schema)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    artifacts.write_text(artifacts.PARAMS, yaml.safe_dump(settings("binary").model_dump(mode="json")))


def test_a_clean_table_passes_and_every_check_runs() -> None:
    splits, schema = prepared("binary")
    place(splits, schema)
    outputs = {name: np.where(frame["top"] == "yes", 0.9, 0.1) for name, frame in splits.items()}
    tables = [
        evaluate.prediction_table(splits[name], np.stack([1 - outputs[name], outputs[name]], axis=1), name, schema)
        for name in ("train", "test")
    ]
    artifacts.write_parquet(artifacts.PREDICTIONS, pd.concat(tables, ignore_index=True))
    for stage in ("data", "model"):
        result = run(stage)
        assert result["passed"], result
        assert result["not_run"] == []


@pytest.mark.parametrize("duplicates", ["together", "drop"])
def test_a_table_in_which_rows_are_repeated_passes(duplicates: str) -> None:
    """As they are in public tables of wines and mammograms, where a quarter of the rows and more are."""
    frame = table(600)
    frame.loc[430:] = frame.loc[:169].to_numpy()
    data = settings("binary", data={"duplicates": duplicates}).data
    splits, schema = prepare.prepare(tables.of_frame(frame.convert_dtypes(), data), data, {})
    place(splits, schema)
    assert schema["rows"]["dropped_duplicates"] == (170 if duplicates == "drop" else 0)
    result = run("data")
    assert result["passed"], result


def test_a_feature_that_gives_the_target_away_fails() -> None:
    splits, schema = prepared("binary")
    for frame in splits.values():
        frame["member"] = pd.array(frame["top"] == "yes", dtype="boolean")
    place(splits, schema)
    result = run("data")
    assert not result["passed"]
    assert "member" in json.dumps(result)
