"""`make pipeline`: check the settings, then let DVC fetch or build whatever is stale (stages.py)."""

from __future__ import annotations

import sys
from pathlib import Path

from gitops.core import actions, artifacts, params
from gitops.core.artifacts import DATA_REPORT, METRICS, MODEL, MODEL_REPORT, PIPELINE_LOG
from gitops.core.console import echo, relay
from gitops.integrations import git, git_command
from gitops.retraining import merge

#: DVC of this environment, whatever is on the PATH.
DVC = Path(sys.executable).with_name("dvc")


def main() -> int:
    """Return DVC's exit status: 0 when every stage's outputs are there and match its inputs. Raises ProjectError."""
    git.is_repository()  # one that Git does not trust is refused before anything is trained in it
    merge.resolve()
    params.load()  # a wrong setting fails here, and not in the last stage that reads it
    status = run([sys.executable, "-m", "gitops.retraining.stages"])
    if status == 0:
        echo(
            f"model: {MODEL}, metrics: {METRICS}, Deepchecks reports: {DATA_REPORT}, {MODEL_REPORT}; "
            "commit dvc.lock together with your changes"
        )
    else:
        echo("the pipeline stopped at the stage named above; earlier results are kept (`dvc checkout` restores them)")
    return status


def run(command: list[str]) -> int:
    """Run `command` and return its exit status. Its output is also written to PIPELINE_LOG, for the report.

    On a terminal it is not: there a person has read it, and a pipe would remove the progress bars.
    """
    environment = git_command.environment(DVC_NO_ANALYTICS="1")
    if head := actions.head():
        environment["COMMIT"] = head  # for the run's record in MLflow
    PIPELINE_LOG.unlink(missing_ok=True)
    PIPELINE_LOG.parent.mkdir(exist_ok=True)
    return relay(command, environment, log=PIPELINE_LOG)


if __name__ == "__main__":
    artifacts.run(main)
