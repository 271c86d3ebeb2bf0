"""The TrainJob of a commit: k8s/training/trainjob.yaml with name, image, commit, nodes and processes filled in.

Its fields are those of Kubeflow Trainer 2.2 and later (trainer.kubeflow.org/v1alpha1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError

MANIFEST = Path("k8s/training/trainjob.yaml")

API_VERSION, KIND = "trainer.kubeflow.org/v1alpha1", "TrainJob"

#: Labels: the project's name, and Kueue's queue (https://kueue.sigs.k8s.io/docs/tasks/run/trainjobs/).
NAME, QUEUE = "app.kubernetes.io/name", "kueue.x-k8s.io/queue-name"

#: The most nodes: three digits in the names of their pods.
MOST_NODES = 1000

#: JobSet refuses a name whose pods' names, `<name>-node-0-<index>-<5 characters>`, have more than 63 characters.
LONGEST = 63 - len("-node-0-999-abcde")


@dataclass(frozen=True)
class Training:
    """What is trained where: a commit in an image, by `processes` on each of `nodes`, in a queue of Kueue's or none."""

    commit: str
    image: str
    nodes: int
    processes: int
    queue: str | None


def render(training: Training, manifest: Path = MANIFEST) -> dict[str, Any]:
    """Return the TrainJob. Raises ProjectError where the manifest is none."""
    job = _read(manifest)
    metadata, trainer = job["metadata"], job["spec"]["trainer"]
    metadata["name"] = name(metadata["labels"][NAME], training.commit)
    if training.queue:
        metadata["labels"][QUEUE] = training.queue
    trainer["image"] = training.image
    trainer["numNodes"], trainer["numProcPerNode"] = training.nodes, training.processes
    others = [variable for variable in trainer.get("env", []) if variable["name"] != "COMMIT"]
    trainer["env"] = [*others, {"name": "COMMIT", "value": training.commit}]
    return job


def name(project: str, commit: str) -> str:
    """Return `<project>-train-<12 digits of the commit>`; of a long project name only the beginning."""
    end = f"-train-{commit[:12]}"
    return project[: LONGEST - len(end)].rstrip("-") + end


def _read(manifest: Path) -> dict[str, Any]:
    """Return the manifest. Raises ProjectError where it is missing, no YAML, or lacks what `render` fills in."""
    try:
        job: Any = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(f"{manifest} is missing: it defines how a commit is trained on the cluster") from None
    except yaml.YAMLError as error:
        artifacts.refuse_conflict(manifest)
        raise ProjectError(f"{manifest} is not valid YAML: {error}") from error
    try:
        found = job["apiVersion"], job["kind"]
        project = job["metadata"]["labels"][NAME]
        complete = isinstance(job["spec"]["trainer"], dict)
    except (KeyError, TypeError):
        found, project, complete = ("", ""), "", False
    if found != (API_VERSION, KIND) or not complete:
        raise ProjectError(f"{manifest}: a {KIND} of {API_VERSION} with the label {NAME} and spec.trainer is needed")
    if not isinstance(project, str) or not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", project):
        raise ProjectError(f"{manifest}: the label {NAME} is {project!r}: lower-case letters, digits and - are needed")
    return job  # type: ignore[no-any-return]
