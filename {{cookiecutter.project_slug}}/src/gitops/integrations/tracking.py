"""Experiment tracking with MLflow: one run a training, to which evaluation adds its metrics.

MLflow's address is `MLFLOW_TRACKING_URI`, or `sqlite:///mlflow.db` in the repository. Only this module and
registry/versions.py, which has the registered model, use MLflow's API.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.core.params import Params, flatten
from gitops.integrations import git, logged_model, mlflow_files, mlflow_server
from gitops.integrations.mlflow_server import address as address
from gitops.integrations.mlflow_server import errors as errors

KEPT = "what was trained is kept, and `make pipeline` goes on from there once MLflow answers"


class Run:
    """An open MLflow run. Its methods raise ProjectError where MLflow fails."""

    def __init__(self, client: Any, run_id: str, experiment: str, unlogged: Path | None = None) -> None:
        self._mlflow = client
        self._unlogged = unlogged
        self.run_id = run_id
        self.experiment = experiment

    def log(self, entry: dict[str, float]) -> None:
        """Log one epoch of the learning curve: `entry` holds "epoch" and losses.

        A training outlives its MLflow server: once an epoch cannot be logged, it and the later ones wait in a file
        beside the checkpoint, for `log_waiting`.
        """
        if self._unlogged is None:
            self._log_epoch(entry)
            return
        waiting = self._waiting()
        if not waiting:
            try:
                self._log_epoch(entry)
                return
            except ProjectError as error:
                line = f"warning: {error}; the training goes on, and its epochs are logged at the end"
                echo(line, error=True)
        artifacts.write_json(self._unlogged, [*waiting, entry])

    def log_waiting(self) -> None:
        """Log the epochs that could not be logged before."""
        for entry in self._waiting():
            self._log_epoch(entry, KEPT)
        if self._unlogged:
            self._unlogged.unlink(missing_ok=True)

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Log final metrics by name."""
        with errors():
            self._mlflow.log_metrics(metrics)

    def log_files(self, *paths: Path) -> None:
        """Attach files to the run."""
        with errors():
            for path in paths:
                self._mlflow.log_artifact(str(path))

    def log_model(self) -> None:
        """Log model.pt2 so that `mlflow.pyfunc.load_model` loads it and predicts from a frame of raw columns."""
        with errors(KEPT):
            logged_model.log(self._mlflow, artifacts.MODEL, artifacts.SCHEMA)

    def address(self) -> dict[str, str]:
        """Return the run's id, experiment and MLflow's address."""
        return {"run_id": self.run_id, "experiment": self.experiment, "tracking_uri": address()}

    def _waiting(self) -> list[dict[str, float]]:
        if self._unlogged is None or not self._unlogged.exists():
            return []
        return list(artifacts.read_json(self._unlogged, "make pipeline"))

    def _log_epoch(self, entry: dict[str, float], remedy: str = mlflow_server.REMEDY) -> None:
        losses = {name: value for name, value in entry.items() if name != "epoch"}
        with errors(remedy):
            self._mlflow.log_metrics(losses, step=int(entry["epoch"]))


@contextmanager
def start(settings: Params, resume_from: Path) -> Iterator[Run]:
    """Open a run with the parameters and the versions of code and data, or reopen the one named in `resume_from`.

    That file is written when a run is opened, so that an interrupted training continues in the same run. Raises
    ProjectError where MLflow cannot be used: before the block where that shows by then, else after it.
    """
    mlflow, experiment = connect(settings)
    run_id = resume_from.read_text().strip() if resume_from.exists() else None
    with _open(mlflow, experiment, run_id) as opened:
        run = Run(mlflow, opened, experiment, resume_from.with_name("unlogged.json"))
        if opened != run_id:
            with errors():
                mlflow.log_params(flatten(settings.model_dump(include={"data", "model", "train"})))
                mlflow.set_tags(_versions(settings))
                # Where artifacts go may be gone, full or forbidden: that should show before the training, not after it.
                mlflow.log_artifact(str(artifacts.PARAMS))
            artifacts.write_text(resume_from, opened)
        run.log_waiting()
        yield run
        run.log_waiting()


@contextmanager
def resume(settings: Params) -> Iterator[Run]:
    """Open the run that trained the present model.

    Where this MLflow lacks it (the model was trained on another machine and came from DVC's run cache), open a new run
    and tag it with the other's id.
    """
    mlflow, experiment = connect(settings)
    trained = artifacts.read_json(artifacts.RUN, "make pipeline")["run_id"]
    with _open(mlflow, experiment, trained) as opened:
        if opened != trained:
            with errors():
                mlflow.set_tags({**_versions(settings), "trained_in_run": trained})
        yield Run(mlflow, opened, experiment)


def connect(settings: Params) -> tuple[Any, str]:
    """Return MLflow and the name of the project's experiment, which is created if missing and restored if deleted.

    Raises ProjectError where MLflow cannot be used.
    """
    mlflow, name = load(), settings.package.model_name
    with errors():
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(name)
        if experiment and experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
            echo(f"the experiment {name} was deleted in MLflow at {address()}: it is restored")
        mlflow.set_experiment(name)
    return mlflow, name


def load() -> Any:
    """Return the module mlflow, set to its address. The import takes three seconds.

    Raises ProjectError where there is no usable server at that address.
    """
    if problem := mlflow_server.problem():
        raise ProjectError(problem)
    mlflow_server.bound_waiting()
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow_files.follow_move()
    mlflow_files.allow_percent()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    # uv's environments have no pip, which MLflow warns about for every model.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(mlflow_server.without_password())
    return mlflow


@contextmanager
def _open(mlflow: Any, experiment: str, run_id: str | None) -> Iterator[str]:
    """Open the run `run_id` where it can be continued, else a new one; yield its id. Raises ProjectError."""
    with errors():
        run_id = run_id if run_id and _continues(mlflow, experiment, run_id) else None
        opened = mlflow.start_run(run_id=run_id).info.run_id
    try:
        yield opened
    except BaseException:
        with suppress(ProjectError), errors():
            mlflow.end_run("FAILED")
        raise
    with errors(KEPT):
        mlflow.end_run()


def _continues(mlflow: Any, experiment: str, run_id: str) -> bool:
    """Tell whether this MLflow has the run, in this experiment, and nobody has deleted it."""
    try:
        run = mlflow.MlflowClient().get_run(run_id).info
    except mlflow.exceptions.MlflowException as error:
        if error.error_code not in mlflow_server.NO_SUCH_RUN:
            raise
        return False
    here = mlflow.get_experiment_by_name(experiment).experiment_id
    return bool(run.lifecycle_stage == "active" and run.experiment_id == here)


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
