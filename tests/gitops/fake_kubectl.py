"""Stands in for the command `kubectl` in the tests of `make train-on-cluster`, which creates one object.

The file that FAKE_KUBECTL names holds the cluster as JSON: the version of Kubeflow Trainer, or none; its runtimes; the
namespaces, and those in which this user may create TrainJobs; what was created. It refuses in the words of kubectl, of
the API server and of Trainer's webhooks (pkg/webhooks, pkg/runtime of kubeflow/trainer 2.2).
"""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

FILE = os.environ["FAKE_KUBECTL"]
with open(FILE, encoding="utf-8") as opened:
    CLUSTER: dict[str, Any] = json.load(opened)

CREATE = ["create", "--validate=strict", "--request-timeout=60s", "--filename=-"]

#: Fields of the spec that Trainer has had since 2.2, and those that it had before.
NEWER, OLDER = {"runtimePatches", "activeDeadlineSeconds"}, {"podTemplateOverrides", "labels", "annotations"}

RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[: len(CREATE)] != CREATE:
        sys.exit(f"error: this stand-in knows `kubectl {' '.join(CREATE)}` alone")
    namespace = "default"
    for option in arguments[len(CREATE) :]:
        name, _, namespace = option.partition("=")
        if name != "--namespace":
            sys.exit(f"error: unknown flag: {name}")
    job = json.load(sys.stdin)
    create(job, job["metadata"]["name"], namespace)


def create(job: dict[str, Any], name: str, namespace: str) -> None:
    if CLUSTER["trainer"] is None:
        print(
            f'error: resource mapping not found for name: "{name}" namespace: "" from "STDIN": no matches for kind '
            '"TrainJob" in version "trainer.kubeflow.org/v1alpha1"\nensure CRDs are installed first',
            file=sys.stderr,
        )
        sys.exit(1)
    if namespace not in CLUSTER["allowed"]:
        refuse(
            "Forbidden",
            'trainjobs.trainer.kubeflow.org is forbidden: User "jane" cannot create resource "trainjobs" in API group '
            f'"trainer.kubeflow.org" in the namespace "{namespace}"',
        )
    if namespace not in CLUSTER["namespaces"]:
        refuse("NotFound", f'namespaces "{namespace}" not found')
    unknown = {*job["spec"]} & (NEWER if CLUSTER["trainer"] < "2.2" else OLDER)
    if unknown:
        refuse(
            "BadRequest",
            'TrainJob in version "v1alpha1" cannot be handled as a TrainJob: strict decoding error: '
            + ", ".join(f'unknown field "spec.{field}"' for field in sorted(unknown)),
        )
    if [name, namespace] in CLUSTER["created"]:
        refuse("AlreadyExists", f'trainjobs.trainer.kubeflow.org "{name}" already exists')
    problem = webhook(job["spec"])
    if problem:
        refuse(
            "Forbidden", f'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: {problem}'
        )
    CLUSTER["created"].append([name, namespace])
    CLUSTER["jobs"].append(job)
    with open(FILE, "w", encoding="utf-8") as file:
        json.dump(CLUSTER, file)
    print(f"trainjob.trainer.kubeflow.org/{name} created")


def webhook(spec: dict[str, Any]) -> str:
    """Return what Trainer's validation says."""
    runtime = spec["runtimeRef"]["name"]
    if runtime not in CLUSTER["runtimes"]:
        return (
            f'spec.RuntimeRef: Invalid value: {{"name":"{runtime}"}}: ClusterTrainingRuntime.trainer.kubeflow.org '
            f'"{runtime}" not found: specified clusterTrainingRuntime must be created before the TrainJob is created'
        )
    if {variable["name"] for variable in spec["trainer"]["env"]} & RESERVED:
        return "spec.trainer.env: Invalid value: must not have reserved envs"
    return ""


def refuse(reason: str, message: str) -> NoReturn:
    sys.exit(f'Error from server ({reason}): error when creating "STDIN": {message}')


if __name__ == "__main__":
    main()
