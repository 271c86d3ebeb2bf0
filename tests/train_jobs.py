"""The TrainJob of `make train-on-cluster`, and the pods that Kubeflow Trainer makes of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

Object = dict[str, Any]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = f"ghcr.io/your-organisation/jobs@sha256:{'0' * 64}"

#: Of the runtime `torch-distributed`: manifests/base/runtimes/torch_distributed.yaml of kubeflow/trainer, and port and
#: variables of its plugin torch (pkg/runtime/framework/plugins/torch).
JOB, CONTAINER, PORT = "node", "node", 29500
PET = ("PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE")

#: Linux' range of ports for those who name none (net.ipv4.ip_local_port_range), of which gloo and NCCL take some.
EPHEMERAL = (32768, 60999)

PROGRAM = """
import json, sys
from gitops.cluster import train_job
print(json.dumps(train_job.render(train_job.Training(*json.loads(sys.argv[1])))))
"""


def train_job(project: Path, nodes: int = 2, processes: int = 2, queue: str | None = None) -> Object:
    """Return the TrainJob of a project's commit. `project` has the folder k8s/ of a generated one, and src/."""
    arguments = json.dumps([COMMIT, IMAGE, nodes, processes, queue])
    command = [sys.executable, "-B", "-c", PROGRAM, arguments]
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def pod(job: Object) -> Object:
    """Return the template of its pods: the runtime's, with the trainer's fields and the patches on top."""
    trainer = job["spec"]["trainer"]
    container = {"name": CONTAINER} | {name: trainer[name] for name in ("image", "command", "args") if name in trainer}
    container["env"] = [*trainer["env"], *({"name": name, "value": ""} for name in PET)]
    container["resources"] = trainer["resourcesPerNode"]
    container["ports"] = [{"containerPort": PORT, "name": "trainer"}]
    labels: dict[str, str] = {}
    spec: Object = {"restartPolicy": "OnFailure"}  # JobSet's default
    for patch in job["spec"]["runtimePatches"]:
        (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        assert replicated["name"] == JOB
        template = replicated["template"]["spec"]["template"]
        labels |= template["metadata"]["labels"]
        (changed,) = template["spec"]["containers"]
        assert changed["name"] == CONTAINER
        spec |= template["spec"]
        container |= changed
    return {"metadata": {"labels": labels}, "spec": spec | {"containers": [container]}}
