"""Models that are logged in MLflow: they predict wherever they are loaded, with the code that they were logged with."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SETTINGS
from defaults import ROOT
from gitops.core import artifacts, code, params
from gitops.core.artifacts import ProjectError
from gitops.integrations import logged_model, mlflow_run, tracking

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


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow without runs: to make its tables takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        tracking.load().search_experiments()
    return path


@pytest.fixture
def source(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of src/, from which models are logged in a new MLflow."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(database, tmp_path / "mlflow.db")
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
        return f"models:/{logged_model.log(mlflow, *export(folder, schema), archived=archived)}"


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


def test_files_that_dvc_has_linked_to_its_cache_are_logged(source: Path, tmp_path: Path) -> None:
    """`dvc config cache.type symlink`, which DVC advises for large files."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for number, path in enumerate(export(tmp_path, SCHEMA)):
        (cache / f"object{number}").write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(cache / f"object{number}")
    mlflow = tracking.load()
    mlflow.set_experiment("toy")
    with mlflow.start_run() as opened:
        model = logged_model.log(mlflow, tmp_path / "model.pt2", tmp_path / "schema.json")
        mlflow_run.Run(mlflow, opened.info.run_id, "toy").log_files(tmp_path / "schema.json")
    assert predict(f"models:/{model}", {"a": [1.5], "plan": [None]}) == [1.5]
    logged = {path.name: path for path in tmp_path.glob("mlruns/**/artifacts/**/*") if path.is_file()}
    assert logged.keys() >= {"model.pt2", "schema.json"} and not any(path.is_symlink() for path in logged.values())


@pytest.fixture
def settings(source: Path) -> params.Params:
    """A project's settings, with its files."""
    import breast_cancer.settings

    for path in (artifacts.PARAMS, Path("data/raw.csv")):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    return breast_cancer.settings.Settings.model_validate(SETTINGS)


def test_a_deleted_experiment_is_restored(settings: params.Params, capsys: pytest.CaptureFixture[str]) -> None:
    mlflow, name = tracking.connect(settings)
    experiment = mlflow.get_experiment_by_name(name).experiment_id
    mlflow.delete_experiment(experiment)
    tracking.connect(settings)
    assert mlflow.get_experiment(experiment).lifecycle_stage == "active"
    assert "the experiment tumour was deleted in MLflow at sqlite:" in capsys.readouterr().out


@pytest.mark.parametrize("lost", ["deleted", "unknown", "another experiment's"])
def test_a_run_that_cannot_be_continued_is_a_new_one(settings: params.Params, lost: str) -> None:
    resume_from = Path("checkpoints/run")
    with mlflow_run.start(settings, resume_from) as first:
        pass
    with mlflow_run.start(settings, resume_from) as again:
        assert again.run_id == first.run_id
    mlflow = tracking.load()
    if lost == "deleted":
        mlflow.delete_run(first.run_id)
    elif lost == "unknown":
        resume_from.write_text("0" * 32)
    else:
        mlflow.set_experiment("other")
        with mlflow.start_run() as other:
            resume_from.write_text(other.info.run_id)
    before = resume_from.read_text()
    with mlflow_run.start(settings, resume_from) as second:
        assert second.run_id != before and resume_from.read_text() == second.run_id
    run = mlflow.get_run(second.run_id)
    assert run.info.status == "FINISHED" and run.data.params["data.target"] == "diagnosis"


def test_a_place_for_artifacts_that_is_gone_is_an_error_before_the_training(
    settings: params.Params, tmp_path: Path
) -> None:
    mlflow = tracking.load()
    (tmp_path / "gone").write_text("a file, where a folder should be")
    mlflow.create_experiment(settings.package.model_name, artifact_location=f"file://{tmp_path}/gone/artifacts")
    failed = pytest.raises(ProjectError, match=r"MLFLOW_TRACKING_URI\): request failed: .*gone")
    with failed, mlflow_run.start(settings, Path("run")):
        pytest.fail("the training would begin")
    assert not Path("run").exists()


@pytest.mark.parametrize("back", ["before the end", "after the end"])
def test_a_training_outlives_its_mlflow(
    settings: params.Params, back: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its epochs are all logged in the end, by this process or by the next one, and one line says so."""
    from mlflow.exceptions import MlflowException

    mlflow = tracking.load()
    log_metrics, away = mlflow.log_metrics, [False]

    def flaky(*arguments: Any, **options: Any) -> None:
        if away[0]:
            raise MlflowException("Connection refused")
        log_metrics(*arguments, **options)

    monkeypatch.setattr(mlflow, "log_metrics", flaky)

    def history(last: int) -> list[dict[str, float]]:
        return [{"epoch": epoch, "val_loss": epoch / 10} for epoch in range(1, last)]

    def train(first: int, last: int) -> str:
        with mlflow_run.start(settings, Path("folder/run")) as run:
            for epoch in range(first, last):
                away[0] = away[0] or epoch == 3
                run.log({"epoch": epoch, "val_loss": epoch / 10})
            away[0] = away[0] and back == "after the end"
            run.log_epochs(history(last))
        return run.run_id

    if back == "after the end":
        with pytest.raises(ProjectError, match="goes on from there once MLflow answers"):
            train(1, 6)
        assert mlflow.get_run(Path("folder/run").read_text()).info.status == "FAILED"
        away[0] = False
        run_id = train(6, 6)
    else:
        run_id = train(1, 6)
    logged = mlflow.MlflowClient().get_metric_history(run_id, "val_loss")
    assert sorted((metric.step, metric.value) for metric in logged) == [(n, n / 10) for n in range(1, 6)]
    assert mlflow.get_run(run_id).info.status == "FINISHED"
    assert capsys.readouterr().err.count("warning: MLflow at") == 1


def test_a_failing_training_is_no_failure_of_mlflow(settings: params.Params) -> None:
    with pytest.raises(OSError, match="disk"), mlflow_run.start(settings, Path("run")):
        raise OSError("disk")
    assert tracking.load().get_run(Path("run").read_text()).info.status == "FAILED"


@pytest.fixture
def project(settings: params.Params, database: Path, tmp_path: Path) -> params.Params:
    """A trained project: the process that logs a run reads what a stage has written."""
    model, schema = export(tmp_path, SCHEMA)
    for found, wanted in ((model, artifacts.MODEL), (schema, artifacts.SCHEMA)):
        wanted.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(found, wanted)
    artifacts.write_json(artifacts.DECISION, {})
    return settings


def statuses() -> dict[str, str]:
    """Return the status of each run in MLflow by its id."""
    mlflow = tracking.load()
    found = mlflow.MlflowClient().search_runs([one.experiment_id for one in mlflow.search_experiments()])
    return {run.info.run_id: run.info.status for run in found}


def test_a_stage_logs_through_a_process_of_its_own(project: params.Params) -> None:
    """The stage itself imports no MLflow, and does not wait for it while it trains; evaluation adds to the same run."""
    with tracking.start(project, Path("folder/run")) as run:
        begun = time.monotonic()
        history = [{"epoch": epoch, "val_loss": epoch / 10} for epoch in range(1, 4)]
        for entry in history:
            run.log(entry)
        assert time.monotonic() - begun < 0.5
        run.log_epochs(history)
        run.log_model()
        artifacts.write_json(artifacts.RUN, run.address())
    run_id = artifacts.read_json(artifacts.RUN, "make pipeline")["run_id"]
    assert Path("folder/run").read_text() == run_id
    with tracking.resume(project) as again:
        again.log_metrics({"test_r2": 0.5})
        again.log_files(artifacts.SCHEMA)
        assert again.address()["run_id"] == run_id
    client = tracking.load().MlflowClient()
    assert statuses() == {run_id: "FINISHED"}
    assert [metric.step for metric in client.get_metric_history(run_id, "val_loss")] == [1, 2, 3]
    assert client.get_run(run_id).data.metrics["test_r2"] == 0.5
    assert {one.path for one in client.list_artifacts(run_id)} >= {"params.yaml", "schema.json"}


def test_a_model_is_logged_with_its_decision(project: params.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow loads answers as servers do."""
    target = {"name": "y", "classes": ["no", "yes"]}
    artifacts.write_json(artifacts.SCHEMA, SCHEMA | {"task": "binary", "target": target})
    artifacts.write_json(artifacts.DECISION, {"threshold": 0.25, "metric": "f1", "value": 0.5})
    logged: list[dict[str, Any]] = []
    monkeypatch.setattr(logged_model, "log", lambda _, model, schema: logged.append(json.loads(schema.read_text())))
    mlflow_run.Run(None, "0" * 32, "toy").log_model()
    assert [schema["target"] for schema in logged] == [target | {"threshold": 0.25}]


def test_what_fails_in_mlflows_process_fails_the_stage(project: params.Params, tmp_path: Path) -> None:
    """Epochs need not wait for an answer, so the first ones may pass; the training does not end well."""
    mlflow = tracking.load()
    (tmp_path / "gone").write_text("a file, where a folder should be")
    mlflow.create_experiment(project.package.model_name, artifact_location=f"file://{tmp_path}/gone/artifacts")
    failed = pytest.raises(ProjectError, match=r"MLFLOW_TRACKING_URI\): request failed: .*gone")
    with failed, tracking.start(project, Path("run")) as run:
        for epoch in range(1, 600):
            run.log({"epoch": epoch, "val_loss": 0.1})
            time.sleep(0.1)
        pytest.fail("a training of a minute would not have noticed")
    assert [*statuses().values()] == ["FAILED"] and not Path("run").exists()


def test_a_stage_that_fails_leaves_a_failed_run_and_no_process(
    project: params.Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(tracking.subprocess, "Popen", noted)

    def interrupted(run: tracking.Run) -> None:
        run.address()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), tracking.start(project, Path("run")) as run:
        interrupted(run)
    assert [*statuses().values()] == ["FAILED"]
    with pytest.raises(OSError, match="disk"), tracking.resume(project):
        raise OSError("disk")  # before anything could be logged: a run of a good training stays finished
    assert [*statuses().values()] == ["FAILED"]
    assert len(started) == 2 and all(process.returncode is not None for process in started)


def test_mlflows_process_ends_with_a_stage_that_is_killed(project: params.Params, tmp_path: Path) -> None:
    program = """
import os, pickle, signal, sys
from pathlib import Path
from gitops.integrations import tracking
with tracking.start(pickle.loads(Path("settings").read_bytes()), Path("run")) as run:
    run.address()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    Path("settings").write_bytes(pickle.dumps(project))
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert done.returncode == -9
    for _ in range(100):
        if [*statuses().values()] == ["FAILED"]:
            return
        time.sleep(0.1)
    pytest.fail(f"the run is {statuses()}")
