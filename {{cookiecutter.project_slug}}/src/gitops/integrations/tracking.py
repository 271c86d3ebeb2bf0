"""Experiment tracking with MLflow: one run a training, to which evaluation adds its metrics.

MLflow's address is `MLFLOW_TRACKING_URI`, or `sqlite:///mlflow.db` in the repository. Only this module, mlflow_run.py
and registry/versions.py, which has the registered model, use MLflow's API.

A stage's run is kept by a process of its own (mlflow_run.py), because MLflow's import and the opening of a run take
three seconds: that process begins while the stage goes on, and logs the epochs while the next ones are trained.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.integrations import mlflow_files, mlflow_server
from gitops.integrations.mlflow_server import address as address
from gitops.integrations.mlflow_server import errors as errors

#: Seconds in which the run of a stage that has failed must be marked as failed.
SHUTDOWN_TIMEOUT = 5


class Run:
    """The run of a stage. Its methods raise ProjectError where MLflow fails, `log` when that shows."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def log(self, entry: dict[str, float]) -> None:
        """Log one epoch of the learning curve: `entry` holds "epoch" and losses. It waits for nothing."""
        if self._connection.poll():
            self._answer()  # only a failure comes without a question
        self._send("log", entry)

    def log_epochs(self, history: list[dict[str, float]]) -> None:
        """Log those epochs that MLflow does not have, as it was away when they ended."""
        self._ask("log_epochs", history)

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Log final metrics by name."""
        self._ask("log_metrics", metrics)

    def log_files(self, *paths: Path) -> None:
        """Attach files to the run."""
        self._ask("log_files", *paths)

    def log_model(self) -> None:
        """Log model.pt2 so that `mlflow.pyfunc.load_model` loads it and predicts from a frame of raw columns."""
        self._ask("log_model")

    def address(self) -> dict[str, str]:
        """Return the run's id, experiment and MLflow's address."""
        found: dict[str, str] = self._ask("address")
        return found

    def end(self) -> None:
        """Close the run as finished."""
        self._ask("end")

    def _ask(self, method: str, *arguments: object) -> Any:
        self._send(method, *arguments)
        return self._answer()

    def _send(self, method: str, *arguments: object) -> None:
        try:
            self._connection.send((method, arguments))
        except OSError:
            self._answer()  # why it has ended

    def _answer(self) -> Any:
        try:
            failure, value = self._connection.recv()
        except (EOFError, OSError):
            raise ProjectError("the process that logs to MLflow has ended, see above") from None
        if failure:
            raise ProjectError(failure)
        return value


@contextmanager
def start(settings: Params, resume_from: Path) -> Iterator[Run]:
    """Open a run with the parameters and the versions of code and data, or reopen the one named in `resume_from`.

    That file is written when a run is opened, so that an interrupted training continues in the same run. Raises
    ProjectError where MLflow cannot be used: before the block where its address shows that, else in the first seconds
    of the training, or after it.
    """
    with _process(settings, resume_from) as run:
        yield run


@contextmanager
def resume(settings: Params) -> Iterator[Run]:
    """Open the run that trained the present model, once there is something to log.

    Where this MLflow lacks it (the model was trained on another machine and came from DVC's run cache), open a new run
    and tag it with the other's id.
    """
    with _process(settings, None) as run:
        yield run


@contextmanager
def _process(settings: Params, resume_from: Path | None) -> Iterator[Run]:
    """Run mlflow_run.py, which ends with the block: what it has open is finished, or marked as failed."""
    if problem := mlflow_server.problem():
        raise ProjectError(problem)
    here, there = Pipe()
    command = [sys.executable, "-m", "gitops.integrations.mlflow_run", str(there.fileno())]
    # A session of its own: Ctrl-C is for the stage, with which it ends.
    process = subprocess.Popen(command, pass_fds=[there.fileno()], start_new_session=True)
    there.close()
    try:
        here.send((settings, resume_from))
        run = Run(here)
        yield run
        run.end()
        process.wait()
    finally:
        here.close()
        try:
            process.wait(SHUTDOWN_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
