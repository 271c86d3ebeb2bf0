"""The metadata store, MLflow: one run a training, to which evaluation adds its metrics.

Where it lies: `MLFLOW_TRACKING_URI`, or `sqlite:///mlflow.db` in the repository. This module and versions.py, which has
the registered model, alone know MLflow.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gitops.core import artifacts, code, params
from gitops.core.params import Params

DEFAULT_URI = "sqlite:///mlflow.db"
MODEL_CODE = Path(__file__).with_name("mlflow_model.py")

#: Makes typed columns of the frames that MLflow's models take.
FRAMES = code.SOURCE / "gitops/tabular/arrow.py"


class Run:
    """An open MLflow run."""

    def __init__(self, client: Any, run_id: str, experiment: str) -> None:
        self._mlflow = client
        self.run_id = run_id
        self.experiment = experiment

    def log(self, entry: dict[str, float]) -> None:
        """Log one epoch of the learning curve: `entry` holds "epoch" and losses."""
        losses = {name: value for name, value in entry.items() if name != "epoch"}
        self._mlflow.log_metrics(losses, step=int(entry["epoch"]))

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Log final metrics by name."""
        self._mlflow.log_metrics(metrics)

    def log_files(self, *paths: Path) -> None:
        """Attach files to the run."""
        for path in paths:
            self._mlflow.log_artifact(str(path))

    def log_model(self) -> None:
        """Log model.pt2 with its schema, such that `mlflow.pyfunc.load_model` predicts from a frame of raw columns."""
        log_model(self._mlflow, artifacts.MODEL, artifacts.SCHEMA)

    def address(self) -> dict[str, str]:
        """Return what finds the run again."""
        return {"run_id": self.run_id, "experiment": self.experiment, "tracking_uri": self._mlflow.get_tracking_uri()}


@contextmanager
def start(settings: Params, resume_from: Path) -> Iterator[Run]:
    """Open a new run with the parameters and the code's and the data's versions, or the one that `resume_from` names.

    The file is written when a run is opened, so that an interrupted training goes on in the same run.
    """
    mlflow, experiment = connect(settings)
    run_id = resume_from.read_text().strip() if resume_from.exists() else None
    with _open(mlflow, run_id) as run:
        if run.info.run_id != run_id:
            artifacts.write_text(resume_from, run.info.run_id)
            mlflow.log_params(flatten(settings.model_dump(include={"data", "model", "train"})))
            mlflow.set_tags(_versions(settings))
        yield Run(mlflow, run.info.run_id, experiment)


@contextmanager
def resume(settings: Params) -> Iterator[Run]:
    """Open the run that trained the present model. Where the store lacks it (the model came from DVC's run cache,
    trained on another machine), a new run is opened and tagged with the other's id.
    """
    mlflow, experiment = connect(settings)
    trained = artifacts.read_json(artifacts.RUN, "make pipeline")["run_id"]
    with _open(mlflow, trained) as run:
        if run.info.run_id != trained:
            mlflow.set_tags({**_versions(settings), "trained_in_run": trained})
        yield Run(mlflow, run.info.run_id, experiment)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def log_model(mlflow: Any, model: Path, schema: Path, archived: Path | None = None) -> str:
    """Log a model and its schema, with the code that encodes rows, as one model of the open run; return its id.

    `archived` is the folder of an unpacked model archive, whose own code then takes the place of the workspace's.
    """
    features = code.SOURCE / params.package() / "features.py"
    with tempfile.TemporaryDirectory(prefix="model-code-") as folder:
        for path in {*code.imported(features), *code.imported(FRAMES)}:
            copy = folder / path.relative_to(code.SOURCE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        if archived is not None:
            shutil.copytree(archived, folder, ignore=_not_code, dirs_exist_ok=True)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(MODEL_CODE),
            artifacts={"model": str(model), "schema": str(schema)},
            model_config={"package": params.package()},
            code_paths=[str(path) for path in sorted(Path(folder).iterdir())],
            pip_requirements=["torch", "pandas", "pyarrow"],
        )
    return str(logged.model_id)


def _not_code(folder: str, names: list[str]) -> list[str]:
    """Name what is neither a package nor in one."""
    inside = any(name == "__init__.py" for name in names)
    return [
        name
        for name in names
        if not Path(folder, name, "__init__.py").exists() and not (inside and name.endswith(".py"))
    ]


def address() -> str:
    """Return where MLflow is, without the name and password that an address may hold."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    return re.sub(r"//[^/@]*@", "//", uri)


def connect(settings: Params) -> tuple[Any, str]:
    """Return MLflow and the name of the project's experiment, which is there from now on."""
    mlflow = load()
    mlflow.set_experiment(settings.package.model_name)
    return mlflow, settings.package.model_name


def load() -> Any:
    """Return MLflow, set to its address. It takes three seconds; nothing is asked of it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    # Environments made by uv hold no pip, which MLflow warns about at every model.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)
    return mlflow


def _open(mlflow: Any, run_id: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return mlflow.start_run(run_id=run_id)
    except MlflowException:
        if run_id is None:
            raise
        return mlflow.start_run()


def _versions(settings: Params) -> dict[str, str]:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return {
        "git_commit": os.environ.get("COMMIT") or git("rev-parse", "HEAD") or "none",
        "git_dirty": str(bool(git("status", "--porcelain", "--", "src", "params.yaml", "dvc.yaml"))).lower(),
        "data_md5": artifacts.tracked_md5(Path(settings.data.path)),
    }
