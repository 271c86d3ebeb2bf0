"""Training by two processes, and of splits that are not held in memory: the same model, whatever breaks."""

from __future__ import annotations

import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import training_worker
import tuning
import yaml
from breast_cancer import train
from gitops.core import artifacts, params, threads
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


@pytest.mark.parametrize("mode", ["memory", "streamed"])
def test_a_training_that_is_broken_within_an_epoch_resumes_to_the_same_weights(
    room: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, with dropout: each block has another."""
    change("model", dropout=0.5)
    monkeypatch.setattr(load, "MEMORY", 0 if mode == "streamed" else 1 << 30)
    monkeypatch.setattr(epochs, "BLOCK", 100)
    settings = params.load()
    splits = train.load_splits(settings)  # type: ignore[arg-type]
    fit = partial(train.fit_model, settings, splits, callback=None)  # type: ignore[arg-type]
    whole, history = fit(checkpoint=Path("whole.pt"))

    loss_of, steps = train.loss_of, iter(range(1, 1 << 30))

    def break_off(*arguments: Any) -> torch.Tensor:
        if next(steps) == 5 + 4:  # of the second epoch, after three blocks of one step and one in the fourth
            raise KeyboardInterrupt
        return loss_of(*arguments)

    monkeypatch.setattr(train, "loss_of", break_off)
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoint=Path("broken.pt"))
    assert torch.load("broken.pt")["state"]["block"] == 3
    resumed, resumed_history = fit(checkpoint=Path("broken.pt"))
    assert resumed_history == history and next(steps) == 5 + 4 + 2 + 1
    for left, right in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(left, right)


def test_a_streamed_training_is_tuned_judged_and_as_good(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make tune` takes of train.py does the same with a split that is not in memory."""
    losses, held_rows = [], []
    for memory in (1 << 30, 0):
        monkeypatch.setattr(load, "MEMORY", memory)
        change("train", epochs=6, learning_rate=0.01)
        settings = params.load()
        splits = train.load_splits(settings)  # type: ignore[arg-type]
        rest, held = train.hold_out(splits, 0.2, seed=3)
        model, _ = train.fit_model(settings, rest, Path(f"{memory}.pt"), None)  # type: ignore[arg-type]
        actual, outputs, _ = train.predict(model, rest, held)
        losses.append(train.validation_loss(model, held))
        assert len(actual) == len(outputs) == len(held) and len(held) + len(rest.train) == len(splits.train)
        held_rows.append(actual.tolist())
    assert held_rows[0] == held_rows[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.2) and max(losses) < 0.65


def test_a_wide_table_is_scored_in_small_parts(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = params.load()
    splits = train.load_splits(settings)  # type: ignore[arg-type]
    model, _ = train.fit_model(settings, splits, Path("checkpoint.pt"), None)  # type: ignore[arg-type]
    whole, seen, predict = train.validation_loss(model, splits.val), [], model.predict

    def counted(numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        seen.append(len(numbers))
        return predict(numbers, categories)

    monkeypatch.setattr(model, "predict", counted)
    monkeypatch.setattr(train, "EVALUATION_INPUTS", 10 * model.inputs.width)
    assert train.validation_loss(model, splits.val) == pytest.approx(whole)
    assert seen == [10] * 6


def test_another_number_of_processes_than_the_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On several machines torchrun's variables say how many there are."""
    called: list[str] = []
    assert processes.run(lambda: called.append("here"), "module", 1, CPU) == 0 and called == ["here"]
    monkeypatch.setenv("PET_NNODES", "3")
    with pytest.raises(ProjectError, match=r"train\.processes is 4, but 3 processes are started.*set it to 3"):
        processes.run(lambda: None, "module", 4, CPU)
    monkeypatch.setenv("PET_NPROC_PER_NODE", "2")
    with pytest.raises(ProjectError, match=r"train\.processes is 1, but 6 "):
        processes.run(lambda: None, "module", 1, CPU)
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr(threads, "cores", lambda: 6)
    monkeypatch.setattr(processes, "_launch", lambda *arguments: started.append(arguments) or 0)
    for nodes, here, wanted in (("3", "2", 6), ("3", "auto", 6), ("1", "", 6)):
        monkeypatch.setenv("PET_NNODES", nodes)
        monkeypatch.setenv("PET_NPROC_PER_NODE", here)
        assert processes.run(lambda: None, "module", wanted, CPU) == 0
    assert started == [("module", 3, 2), ("module", 3, 2), ("module", 1, 6)]
    assert "processes starts" not in capsys.readouterr().err
    monkeypatch.setenv("PET_NPROC_PER_NODE", "64")
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert processes.run(lambda: None, "module", 64, CPU) == 0
    assert "train.processes starts 64 processes on a machine of 8 cores" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ProjectError, match=r"train\.processes is 1, but 2 "):
        processes.run(lambda: None, "module", 1, CPU)


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
    with sqlite3.connect("mlflow.db") as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)


def test_what_would_stop_each_process_is_said_once_and_starts_none_again(room: Path) -> None:
    change("train", processes=2, learning_rate=1e30)
    said = run("breast_cancer.train", expected=1)
    assert said.stderr.count("error: the loss became") == 1, said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    assert not artifacts.MODEL.exists()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_says_so_once_and_goes_on(number: int, status: int, room: Path) -> None:
    """Ctrl-C reaches each process; what ends a job reaches the first one alone, which ends the others."""
    change("train", processes=2, epochs=5000, patience=5000)
    command = [sys.executable, "-m", "breast_cancer.train"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for _ in range(1200):
        if [*artifacts.CHECKPOINTS.glob("*/checkpoint.pt")] or process.poll() is not None:
            break
        time.sleep(0.1)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == status, said
    assert said.count("interrupted") == (number == signal.SIGINT), said
    assert not re.search("Traceback|SignalException|signal", said), said
    assert [*artifacts.CHECKPOINTS.glob("*/checkpoint.pt")] and not artifacts.MODEL.exists()
