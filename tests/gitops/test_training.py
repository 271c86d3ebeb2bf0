"""Training in two processes, by torchrun, and of splits that are not held in memory: the same model, whatever breaks."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import training_worker
import tuning
import yaml
from breast_cancer import train
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.training import epochs, load, processes

CPU = torch.device("cpu")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root with params.yaml and the prepared splits, in row groups of 20 rows."""
    monkeypatch.chdir(tmp_path)
    for name in ("MEMORY", "BLOCK"):
        module = load if name == "MEMORY" else epochs
        monkeypatch.setattr(module, name, getattr(module, name))
    tuning.make_room()
    change("model", dropout=0.0)
    change("train", epochs=2, patience=5)
    for path in (artifacts.TRAIN, artifacts.VAL):
        pq.write_table(pq.read_table(path), path, row_group_size=20)
    return tmp_path


def change(section: str, **settings: Any) -> None:
    """Change settings of params.yaml."""
    values = yaml.safe_load(artifacts.PARAMS.read_text())
    values[section] |= settings
    artifacts.PARAMS.write_text(yaml.safe_dump(values))


def run(module: str, work: str = "", expected: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a module of the project or of these tests that starts two processes."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    variables = {"WORK": work, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module], env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done


def assert_equal(left: dict[str, Any], right: dict[str, Any], tolerance: float = 0.0) -> None:
    """Hold that two trainings have the same weights and losses."""
    assert left["weights"].keys() == right["weights"].keys()
    for name, weights in left["weights"].items():
        torch.testing.assert_close(weights, right["weights"][name], rtol=tolerance, atol=tolerance, msg=name)
    for one, other in zip(left["history"], right["history"], strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=0)


def test_two_processes_make_the_model_of_one_and_a_killed_one_resumes_to_its_bytes(room: Path) -> None:
    """In memory and streamed. The batches are the same, and the gradients but for the order of their additions."""
    run("training_worker", "memory+streamed")
    for mode in ("memory", "streamed"):
        Path(f"{mode}-checkpoint.pt").unlink()
        first, second = (torch.load(f"{mode}-{rank}-of-2.pt") for rank in range(2))
        assert_equal(first, second)
        assert_equal(first, training_worker.fit(mode), tolerance=1e-4)
        Path(f"{mode}-checkpoint.pt").unlink()
    unbroken = torch.load("streamed-0-of-2.pt")
    # In the second epoch, after a block of it.
    steps = math.ceil(artifacts.read_json(artifacts.SCHEMA, "")["rows"]["train"] / 64)
    said = run("training_worker", f"streamed 1 {steps + 3}").stdout
    assert Path("killed").exists() and said.count("resuming after epoch 1") == 1
    for rank in range(2):
        assert_equal(torch.load(f"streamed-{rank}-of-2.pt"), unbroken)


def test_the_first_process_alone_writes_logs_and_prints(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    change("train", processes=2)
    before = {path for path in room.rglob("*") if path.is_file()}
    said = run("breast_cancer.train")
    assert said.stdout.count("best epoch") == 1
    assert artifacts.MODEL.exists() and artifacts.LEARNING_CURVE.read_text().count("\n") == 3
    assert not [*artifacts.CHECKPOINTS.iterdir()]
    made = {path.relative_to(room).parts[0] for path in room.rglob("*") if path.is_file() and path not in before}
    assert made <= {"model", "mlflow.db", "mlartifacts", "mlruns"}, made
    import sqlite3

    with sqlite3.connect("mlflow.db") as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)


def test_what_would_stop_each_process_is_said_once_and_starts_none_again(room: Path) -> None:
    change("train", processes=2, learning_rate=1e30)
    said = run("breast_cancer.train", expected=1)
    assert said.stderr.count("error: the loss became") == 1, said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    assert not artifacts.MODEL.exists()
