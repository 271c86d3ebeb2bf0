"""Experiment tracking with MLflow: one run a training, to which evaluation adds its metrics.

MLflow's address is `MLFLOW_TRACKING_URI`, or `sqlite:///mlflow.db` in the repository. Only this module and
registry/versions.py, which has the registered model, use MLflow's API.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gitops.core import artifacts, code, params
from gitops.core.params import Params
from gitops.integrations import git, mlflow_files

DEFAULT_URI = "sqlite:///mlflow.db"
MODEL_CODE = Path(__file__).with_name("mlflow_model.py")


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
        """Log model.pt2 so that `mlflow.pyfunc.load_model` loads it and predicts from a frame of raw columns."""
        log_model(self._mlflow, artifacts.MODEL, artifacts.SCHEMA)

    def address(self) -> dict[str, str]:
        """Return the run's id, experiment and MLflow's address."""
        return {"run_id": self.run_id, "experiment": self.experiment, "tracking_uri": self._mlflow.get_tracking_uri()}


@contextmanager
def start(settings: Params, resume_from: Path) -> Iterator[Run]:
    """Open a run with the parameters and the versions of code and data, or reopen the one named in `resume_from`.

    That file is written when a run is opened, so that an interrupted training continues in the same run.
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
    """Open the run that trained the present model.

    Where this MLflow lacks it (the model was trained on another machine and came from DVC's run cache), open a new run
    and tag it with the other's id.
    """
    mlflow, experiment = connect(settings)
    trained = artifacts.read_json(artifacts.RUN, "make pipeline")["run_id"]
    with _open(mlflow, trained) as run:
        if run.info.run_id != trained:
            mlflow.set_tags({**_versions(settings), "trained_in_run": trained})
        yield Run(mlflow, run.info.run_id, experiment)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def log_model(mlflow: Any, model: Path, schema: Path, archived: Path | None = None) -> str:
    """Log a model in the open run, with its schema and the code that encodes rows; return the logged model's id.

    `archived` is the folder of an unpacked model archive, whose own modules then replace the workspace's.
    """
    with tempfile.TemporaryDirectory(prefix="model-code-") as folder:
        _copy_code(Path(folder), archived)
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(MODEL_CODE),
            artifacts={"model": str(model), "schema": str(schema)},
            model_config={"package": params.package()},
            code_paths=[str(path) for path in sorted(Path(folder).iterdir())],
            pip_requirements=["torch", "pandas", "pyarrow"],
        )
    return str(logged.model_id)


def _copy_code(folder: Path, archived: Path | None) -> None:
    """Copy the packages' modules that mlflow_model.py imports into `folder`."""
    modules = (code.SOURCE / params.package() / "features.py", code.SOURCE / "gitops/tabular/arrow.py")
    sources = [(code.SOURCE, path) for module in modules for path in code.imported(module)]
    if archived is not None:  # only modules in packages: the archive also holds TorchServe's handler
        sources += [(archived, path) for path in archived.rglob("*/*.py")]
    for root, path in sources:
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def address() -> str:
    """Return MLflow's address, without the user name and password that it may hold."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    return re.sub(r"//[^/@]*@", "//", uri)


def connect(settings: Params) -> tuple[Any, str]:
    """Return MLflow and the name of the project's experiment, which is created if missing."""
    mlflow = load()
    mlflow.set_experiment(settings.package.model_name)
    return mlflow, settings.package.model_name


def load() -> Any:
    """Return the module mlflow, set to its address, without a request to it. The import takes three seconds."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow_files.follow_move()
    mlflow_files.allow_percent()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    # uv's environments have no pip, which MLflow warns about for every model.
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
    """Return the versions of code and data. Raises GitError where Git does not trust the repository."""
    commit, dirty = "none", False
    if git.is_repository():
        commit = git.run("rev-parse", "HEAD") if git.exists("HEAD") else commit
        dirty = bool(git.run("status", "--porcelain", "--", "src", "params.yaml", "dvc.yaml"))
    return {
        "git_commit": os.environ.get("COMMIT") or commit,
        "git_dirty": str(dirty).lower(),
        "data_md5": artifacts.tracked_md5(Path(settings.data.path)),
    }
