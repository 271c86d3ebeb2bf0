"""Models that are logged in MLflow: they predict wherever they are loaded, with the code that they were logged with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from defaults import ROOT
from gitops.core import code
from gitops.integrations import tracking

SCHEMA: dict[str, Any] = {
    "task": "regression",
    "target": {"name": "y", "classes": []},
    "features": [{"name": "a", "dtype": "number"}, {"name": "plan", "dtype": "category"}],
    "missing_markers": [],
}

DERIVED = 'DERIVED = {"ratio": Derived(("a", "b"), lambda a, b: a / b)}'

WITH_RATIO = SCHEMA | {
    "features": [
        {"name": "a", "dtype": "number"},
        {"name": "b", "dtype": "number"},
        {"name": "ratio", "dtype": "number", "derived": ["a", "b"]},
    ]
}

#: Loads a model and prints its predictions and where it found the packages, in a process that has no src/ on its path.
LOAD = """
import json, sys
sys.path = [path for path in sys.path if not path.endswith("/src")]
import mlflow, pandas as pd
frame = pd.DataFrame(json.loads(sys.argv[2]))
found = list(mlflow.pyfunc.load_model(sys.argv[1]).predict(frame))
import breast_cancer, gitops
print(json.dumps([found, gitops.__file__, breast_cancer.__file__]))
"""


class Sum(torch.nn.Module):
    """The sum of the numbers, where missing ones are 0, and 1000 for a category that is known."""

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        return numbers.nan_to_num().sum(1) + 1000 * (categories != 0).sum(1)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of src/, from which models are logged in a new MLflow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    copy = tmp_path.resolve() / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "SOURCE", copy)
    return copy


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def derive(source: Path) -> None:
    edit(source / "breast_cancer/features.py", "DERIVED: dict[str, Derived] = {}", DERIVED)


def export(folder: Path, schema: dict[str, Any]) -> tuple[Path, Path]:
    """Write the model and its schema, and return both paths."""
    categories = sum(feature["dtype"] == "category" for feature in schema["features"])
    shapes = (len(schema["features"]) - categories, categories)
    example = (torch.zeros(2, shapes[0], dtype=torch.float64), torch.zeros(2, shapes[1], dtype=torch.int64))
    rows = {0: torch.export.Dim.DYNAMIC}
    model, path = folder / "model.pt2", folder / "schema.json"
    torch.export.save(torch.export.export(Sum(), example, dynamic_shapes=(rows, rows)), model)
    path.write_text(json.dumps(schema))
    return model, path


def log(folder: Path, schema: dict[str, Any], archived: Path | None = None) -> str:
    mlflow = tracking.load()
    mlflow.set_experiment("toy")
    with mlflow.start_run():
        return f"models:/{tracking.log_model(mlflow, *export(folder, schema), archived=archived)}"


def predict(model: str, frame: dict[str, list[Any]]) -> list[float]:
    """Return the predictions of a logged model in another process and folder."""
    Path("elsewhere").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, model, json.dumps(frame)],
        cwd="elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, *packages = json.loads(done.stdout.splitlines()[-1])
    for path in packages:
        assert "/code/" in path and not Path(path).is_relative_to(ROOT)
    return found  # type: ignore[no-any-return]


def test_a_logged_model_predicts_without_the_project(source: Path, tmp_path: Path) -> None:
    model = log(tmp_path, SCHEMA)
    shutil.rmtree(source)
    assert predict(model, {"a": [1.5, None], "plan": [None, "basic"], "other": [0, 0]}) == [1.5, 1000]


def test_a_derived_feature_is_computed_from_the_raw_columns(source: Path, tmp_path: Path) -> None:
    derive(source)
    assert predict(log(tmp_path, WITH_RATIO), {"a": [3.0, None], "b": [2.0, 4.0]}) == [3 + 2 + 1.5, 4]


def test_a_model_from_an_archive_keeps_the_archives_code(source: Path, tmp_path: Path) -> None:
    """The workspace has changed since: its features.py derives nothing any more."""
    archived = tmp_path / "archived"
    for name in ("breast_cancer/__init__.py", "breast_cancer/features.py", "gitops/__init__.py"):
        (archived / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, archived / name)
    shutil.copytree(source / "gitops/tabular", archived / "gitops/tabular")
    derive(archived)
    (archived / "breast_cancer/ratios.py").write_text("")  # a module that the workspace no longer has
    for name in ("handler.py", "MAR-INF/MANIFEST.json"):
        (archived / name).parent.mkdir(exist_ok=True)
        (archived / name).write_text("raise SystemExit")
    model = log(archived, WITH_RATIO, archived)
    assert predict(model, {"a": [3.0], "b": [2.0]}) == [6.5]
    logged = {path.name for path in tmp_path.glob("mlruns/**/code/**/*") if path.suffix}
    assert {"features.py", "arrow.py", "ratios.py"} <= logged
    assert not logged & {"handler.py", "MANIFEST.json", "model.pt2", "schema.json"}
