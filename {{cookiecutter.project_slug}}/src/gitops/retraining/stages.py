"""The part of `make pipeline` that DVC does, in one process: it takes a second to start.

A model is trained once: where stage `train` has to run, and a branch has shared the model that it would train
(releases/trained.py), that is taken over. Stages that only need the model run beside each other.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.integrations import dvc, dvc_repro, dvc_stages, mlflow_files, mlflow_server
from gitops.releases import trained
from gitops.releases.trained import STAGE
from gitops.retraining import sources
from gitops.tabular import parts


def main() -> int:
    """Fetch or build what is stale; return 0, or 1 where a stage failed. Raises ProjectError."""
    settings = params.load()
    sources.require(settings)
    for table in (*settings.tables, parts.FOLDER):
        if dvc.follow(table):
            echo(f"{table} was an older version: it is now the one in {table}.dvc")
    # A warning, because nothing is logged by stages that come from the run cache; those that train fail by it.
    if (problem := mlflow_server.problem()) and dvc.stale():
        echo(f"warning: {problem}; a stage that trains or evaluates will fail", error=True)
    around = dvc_stages.around(STAGE, sources=True)
    with mlflow_made():
        done = dvc_repro.reproduce(around.before, "pull")
    if not done:
        return 1
    if left := parts.unused(settings.data):
        echo(
            f"warning: {len(left)} files of rows that retrainings have appended belong to an earlier version of the "
            f"table, and are not part of it any more ({artifacts.APPENDED})",
            error=True,
        )
    take_over()
    done = dvc_repro.reproduce([STAGE], "pull") and dvc_repro.reproduce(around.after, "pull", around.beside)
    return 0 if done else 1


@contextmanager
def mlflow_made() -> Iterator[None]:
    """Make MLflow's database beside the block, if `train` will need it and it is not there."""
    if not mlflow_files.missing() or not dvc_stages.runs(STAGE):
        yield
        return
    command = [sys.executable, "-m", "gitops.integrations.mlflow_files"]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.wait()  # `train` makes it where this has failed, or says why it cannot


def take_over() -> None:
    """Put the shared model of what is here into the workspace, if `train` would have to run and there is one."""
    if not dvc_stages.runs(STAGE):
        return
    computed = dvc_stages.entry(STAGE)
    wanted, files = trained.inputs(computed), [out["path"] for out in computed["outs"]]
    try:
        claim = next((one for one in trained.shared(wanted, files) if trained.take_over(one, wanted, files)), None)
    except ProjectError as error:  # it can be trained here
        echo(f"no shared model is taken over: {error}")
        return
    if claim:
        dvc_stages.commit(STAGE)
        echo(f"the model of {claim.source} is taken over: it was trained on what is here")


if __name__ == "__main__":
    artifacts.run(main)
