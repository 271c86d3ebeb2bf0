"""A tuning study in MLflow: a run in the project's experiment, by which other machines know that there was one.

Only where `MLFLOW_TRACKING_URI` is set: mlflow.db here says no more than reports/tune.json beside it.
"""

from __future__ import annotations

import os

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo
from gitops.core.params import Params
from gitops.integrations import mlflow_server, tracking

#: The metric of a run that is a study: how many of its trials have finished.
FINISHED = "finished_trials"

#: How long MLflow waits while a score is computed: by itself for minutes. A user's values stay.
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(mlflow_server.TIMEOUT),
}


def log(settings: Params, name: str, finished: int) -> None:
    """Log the study `name` with its report. Where MLflow fails, a warning is printed: the study itself is done."""
    if not os.environ.get(mlflow_server.VARIABLE):
        return
    try:
        mlflow, _ = tracking.connect(settings)
        with mlflow_server.errors(), mlflow.start_run(run_name=f"tune {name}"):
            mlflow.log_metric(FINISHED, finished)
            mlflow.log_artifact(str(artifacts.TUNE))
    except ProjectError as error:
        echo(f"warning: the study is not logged: {error}", error=True)


def finished(settings: Params) -> int:
    """Return how many trials the largest study has that MLflow knows of this project; 0 where it knows none.

    Raises ProjectError where MLflow is not set, or does not answer within seconds.
    """
    if not os.environ.get(mlflow_server.VARIABLE):
        raise ProjectError(f"{mlflow_server.VARIABLE} is not set")
    for name, value in IMPATIENT.items():
        os.environ.setdefault(name, value)
    mlflow = tracking.load()
    with mlflow_server.errors():
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(settings.package.model_name)
        if not experiment:
            return 0
        wanted = {"filter_string": f"metrics.{FINISHED} > 0", "order_by": [f"metrics.{FINISHED} DESC"]}
        runs = client.search_runs([experiment.experiment_id], **wanted, max_results=1)
        return int(runs[0].data.metrics[FINISHED]) if runs else 0
