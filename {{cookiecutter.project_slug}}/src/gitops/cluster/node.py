"""What each node of a TrainJob runs (jobs/start.sh), in a checkout of the commit.

Every node gets what `train` reads from the DVC remote. Then the first one runs the stage by DVC, and the others its
command alone, which joins the first one's processes by the variables PET_* that Kubeflow Trainer sets. The first node
shares the result where `make share` of a branch's run does, and so the pull request's run finds it: it may read the
remote, and write below `branches/` in it. A container that is started again in its pod goes on from the checkpoint, and
where the training has ended only shares.
"""

from __future__ import annotations

import os
from pathlib import Path

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.console import relay
from gitops.integrations import dvc_repro, dvc_stages
from gitops.releases import trained
from gitops.releases.trained import STAGE

#: The node's number, from 0.
RANK = "PET_NODE_RANK"


def main() -> int:
    """Take part in the training; return 0, or 1 where a stage or the training failed. Raises ProjectError."""
    rank = os.environ.get(RANK, "")
    if not rank.isdecimal():
        raise ProjectError(
            f"{RANK} is {rank!r}: Kubeflow Trainer sets it to the node's number, in its runtimes for torch"
        )
    _require_environments()
    # Without the .dvc files: where nothing before `train` has to run, the raw table is not fetched.
    if not dvc_repro.reproduce(dvc_stages.around(STAGE).before, "pull"):
        return 1
    if int(rank):
        command = dvc_stages.entry(STAGE)["cmd"]
        return 1 if relay(["sh", "-c", command if isinstance(command, str) else " && ".join(command)]) else 0
    # By force: were the result taken from somewhere, the other nodes would wait for this one.
    if dvc_stages.runs(STAGE) and not dvc_repro.reproduce([STAGE], "force"):
        return 1
    if trained.share() is None:
        raise ProjectError("the trained model is not shared, see above")
    return 0


def _require_environments() -> None:
    """Raise ProjectError where the commit has other locks than the image, whose environments this pod has."""
    environments = Path(".venv").resolve()
    for lock in sorted((environments.parent / "requirements").glob("*.txt")):
        own = Path("requirements", lock.name)
        if (environments / lock.stem).is_dir() and (not own.exists() or own.read_bytes() != lock.read_bytes()):
            raise ProjectError(
                f"{own} of this commit is not that of the image: `make jobs-image` builds one of it, whose digest goes "
                "into k8s/components/jobs/kustomization.yaml"
            )


if __name__ == "__main__":
    artifacts.run(main)
