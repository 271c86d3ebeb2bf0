"""A release of the demo's project to the cluster of `make end-to-end`, and what must answer after it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import cluster
import cluster_argo_cd
import cluster_service
import demo
import yaml

TIMEOUT = 600  # seconds until a release answers


class Released(NamedTuple):
    """What env/production says: its commit, and the model by its name and version."""

    commit: str
    model: str
    version: str


def release(what: str) -> None:
    """Train the working tree's state, push it to main, build its image, and release it."""
    demo.step(f"train {what}", "make pipeline")
    commit = f"git commit --quiet -m 'Train {what}'"
    demo.step("commit its lock", "git add dvc.lock", commit, "git push --quiet origin main")
    demo.step("verify main", "make verify")
    demo.step("run the gate", "make gate")
    version = hashlib.sha256((demo.PROJECT / "model/model.pt2").read_bytes()).hexdigest()[:12]
    demo.step("plan the release", "make plan")
    demo.step("build its image", f"docker build --quiet --file serving/Containerfile --tag {image(version)} .")
    demo.step("give it to the nodes", load(image(version)))
    demo.step("release it", f"make deploy IMAGE={image(version)}")


def image(tag: str) -> str:
    """Return the name of an image. There is no such registry: it is loaded into the nodes."""
    return f"localhost/{cluster.NAME}:{tag}"


def load(name: str) -> str:
    """Return the command that gives an image to the nodes."""
    return f"kind load docker-image {name} --name {cluster.CLUSTER}"


def head(repository: Path) -> str:
    """Return the newest commit of env/production in a bare repository."""
    return cluster.output("git", "--git-dir", str(repository), "rev-parse", "env/production")


def production() -> Released:
    """Return what env/production of the demo's origin says."""
    released = demo.production()
    annotations = yaml.safe_load(released["manifest"])["spec"]["template"]["metadata"]["annotations"]
    version = str(annotations["model-sha256"])[:12]
    return Released(head(demo.ORIGIN), released["release"]["model"]["name"], version)


def expect(name: str) -> str:
    """Wait until the cluster runs env/production and its model answers; return that model's version."""
    released = production()

    def wait() -> None:
        deadline = time.monotonic() + TIMEOUT
        cluster_argo_cd.wait_for_sync(cluster.NAME, released.commit, deadline)
        rollout = ("kubectl", "--namespace", cluster.NAME, "rollout", "status", f"deployment/{cluster.NAME}")
        print(cluster.output(*rollout, "--timeout", "300s"), flush=True)
        cluster_service.wait_for_answer(cluster.NAME, released.model, released.version, deadline)

    demo.step(name, run=wait)
    return released.version
