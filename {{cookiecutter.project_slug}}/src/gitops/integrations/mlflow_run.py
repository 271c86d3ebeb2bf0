"""A run in MLflow, and the process that keeps one for a stage: it does what the stage's tracking.Run asks for.

    python -m gitops.integrations.mlflow_run DESCRIPTOR

The descriptor is of a connection that sends the settings, then a method's name and arguments each time. An answer is
a failure, or None, and what the method returns; `log` has none. When the connection ends, the stage has failed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.core.params import Params, flatten
from gitops.integrations import git, logged_model, mlflow_server
from gitops.integrations.mlflow_server import address, errors
from gitops.integrations.tracking import connect
from gitops.tabular import decision, parts

KEPT = "what was trained is kept, and `make pipeline` goes on from there once MLflow answers"


class Run:
    """An open MLflow run. Its methods raise ProjectError where MLflow fails."""

    def __init__(self, client: Any, run_id: str, experiment: str) -> None:
        self._mlflow = client
        self._away = False
        self._logged: set[float] = set()
        self.run_id = run_id
        self.experiment = experiment

    def log(self, entry: dict[str, float]) -> None:
        """Log one epoch of the learning curve: `entry` holds "epoch" and losses.

        A training outlives its MLflow server: once an epoch cannot be logged, it and the later ones wait for
        `log_epochs`.
        """
        if self._away:
            return
        try:
            self._log_epoch(entry, mlflow_server.REMEDY)
        except ProjectError as error:
            self._away = True
            echo(f"warning: {error}; the training goes on, and its epochs are logged at the end", error=True)

    def log_epochs(self, history: list[dict[str, float]]) -> None:
        """Log the epochs that MLflow does not have."""
        losses = next((name for entry in history for name in entry if name != "epoch"), None)
        if losses is None:
            return
        with errors(KEPT):
            known = self._mlflow.MlflowClient().get_metric_history(self.run_id, losses)
        self._logged |= {metric.step for metric in known}
        for entry in history:
            if entry["epoch"] not in self._logged:
                self._log_epoch(entry, KEPT)

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
        with errors(KEPT), tempfile.TemporaryDirectory() as folder:
            schema = Path(folder, artifacts.SCHEMA.name)
            artifacts.write_json(schema, decision.schema())
            logged_model.log(self._mlflow, artifacts.MODEL, schema)

    def address(self) -> dict[str, str]:
        """Return the run's id, experiment and MLflow's address."""
        return {"run_id": self.run_id, "experiment": self.experiment, "tracking_uri": address()}

    def _log_epoch(self, entry: dict[str, float], remedy: str) -> None:
        losses = {name: value for name, value in entry.items() if name != "epoch"}
        with errors(remedy):
            self._mlflow.log_metrics(losses, step=int(entry["epoch"]))
        self._logged.add(entry["epoch"])


@contextmanager
def start(settings: Params, resume_from: Path) -> Iterator[Run]:
    """Open the run of a training, see tracking.start. Raises ProjectError where MLflow fails."""
    mlflow, experiment = connect(settings)
    run_id = resume_from.read_text().strip() if resume_from.exists() else None
    with _open(mlflow, experiment, run_id) as opened:
        run = Run(mlflow, opened, experiment)
        if opened != run_id:
            with errors():
                mlflow.log_params(flatten(settings.model_dump(include={"data", "model", "train"})))
                mlflow.set_tags(versions(settings))
                # Where artifacts go may be gone, full or forbidden: that should show before the model is logged there.
                mlflow.log_artifact(str(artifacts.PARAMS))
            artifacts.write_text(resume_from, opened)
        yield run


@contextmanager
def resume(settings: Params) -> Iterator[Run]:
    """Open the run that trained the present model, see tracking.resume. Raises ProjectError where MLflow fails."""
    mlflow, experiment = connect(settings)
    trained = artifacts.read_json(artifacts.RUN, "make pipeline")["run_id"]
    with _open(mlflow, experiment, trained) as opened:
        if opened != trained:
            with errors():
                mlflow.set_tags({**versions(settings), "trained_in_run": trained})
        yield Run(mlflow, opened, experiment)


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


def versions(settings: Params) -> dict[str, str]:
    """Return the versions of code and data. Raises GitError where Git does not trust the repository."""
    commit, dirty = "none", False
    if git.is_repository():
        commit = git.run("rev-parse", "HEAD") if git.exists("HEAD") else commit
        dirty = bool(git.run("status", "--porcelain", "--", "src", "params.yaml", "dvc.yaml"))
    return {
        "git_commit": os.environ.get("COMMIT") or commit,
        "git_dirty": str(dirty).lower(),
        "data_md5": parts.md5(settings.data),
    }


def main() -> None:
    """Keep a run until the connection that the command line names has asked to end it, or ends."""
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError):  # the stage has failed, and says why itself
        answer: tuple[str | None, None] = (None, None)
        try:
            keep(connection)
        except ProjectError as error:
            answer = (str(error), None)
        with suppress(OSError):
            connection.send(answer)


def keep(connection: Connection) -> None:
    """Do what comes through the connection, until it asks to end. Raises ProjectError, and EOFError where it ends."""
    settings, resume_from = connection.recv()
    if resume_from is not None:
        with start(settings, resume_from) as run:
            _obey(run, connection, connection.recv())
        return
    connect(settings)
    first = connection.recv()  # an evaluation that has failed before has nothing to log
    if first != END:
        with resume(settings) as run:
            _obey(run, connection, first)


#: What asks to close the run as finished.
END = ("end", ())


def _obey(run: Run, connection: Connection, message: tuple[str, tuple[Any, ...]]) -> None:
    while message != END:
        method, arguments = message
        result = getattr(run, method)(*arguments)
        if method != "log":
            connection.send((None, result))
        message = connection.recv()


if __name__ == "__main__":
    artifacts.run(main)
