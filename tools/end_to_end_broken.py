"""A release whose model cannot start, and its way back, in the cluster of `make end-to-end`.

Argo CD takes in no newer commit while a sync runs or retries, and a sync with waves or hooks runs until all is healthy,
which this release never is. So this fails where anything of a release makes a sync wait.
"""

from __future__ import annotations

import json
import time

import cluster
import cluster_argo_cd
import cluster_service
import demo
import end_to_end_release
from end_to_end_release import Released

BROKEN_FOR = 25  # seconds that the release is given to fail
HELD = 60  # seconds in which Argo CD must have applied a commit


def broken_and_back(before: str) -> None:
    """Release what was rolled back with the image of another model, `before`, which the server refuses; roll back."""
    image = end_to_end_release.image("cannot-start")
    demo.step("run the gate", "make gate")
    demo.step("plan to release what was rolled back", "REDEPLOY=1 make plan")
    same = f"docker tag {end_to_end_release.image(before)} {image}"
    demo.step("give the nodes an image with another model", same, end_to_end_release.load(image))
    demo.step("release it", f"REDEPLOY=1 make deploy IMAGE={image}")
    demo.step("see that it does not start, while the model before answers", run=lambda: stands(before))
    demo.step("make rollback", "make rollback")
    demo.step("see that it is applied at once", run=lambda: taken_back(before))


def stands(before: str) -> None:
    """Wait until the release is in the cluster and has had its time; model `before` must answer all along.

    Raises SystemExit where it does not, where the release does not come, and where it becomes healthy.
    """
    released = end_to_end_release.production()
    cluster_argo_cd.look(cluster.NAME)
    deadline = time.monotonic() + HELD
    while running(cluster.NAME) != released.version:
        answers(released, before)
        if time.monotonic() > deadline:
            raise SystemExit(f"after {HELD} s the cluster does not have the release of {released.version}")
    deadline = time.monotonic() + BROKEN_FOR
    while time.monotonic() < deadline:
        answers(released, before)
    said = cluster_argo_cd.status(cluster.NAME)
    print(cluster_argo_cd.summary(said), flush=True)
    if said.get("health", {}).get("status") not in ("Progressing", "Degraded"):
        raise SystemExit(f"a model that cannot start is {cluster_argo_cd.summary(said)!r} to Argo CD")


def taken_back(before: str) -> None:
    """Wait until the rollback is applied; model `before` must answer all along.

    Raises SystemExit where it does not, and where the rollback is not applied HELD seconds after its push.
    """
    released, began = end_to_end_release.production(), time.monotonic()
    cluster_argo_cd.look(cluster.NAME)
    while not cluster_argo_cd.applied(said := cluster_argo_cd.status(cluster.NAME), released.commit):
        answers(released, before)
        if time.monotonic() - began > HELD:
            summary = cluster_argo_cd.summary(said)
            raise SystemExit(f"the rollback is held: {HELD} s after its push Argo CD says {summary!r}")
    print(f"the rollback was applied after {time.monotonic() - began:.1f} s", flush=True)
    answers(released, before)


def running(namespace: str) -> str:
    """Return the version of the model that the Deployment in the cluster names."""
    deployment = ("get", "deployment", cluster.NAME, "--output", "json")
    found = json.loads(cluster.output("kubectl", "--namespace", namespace, *deployment))
    return str(found["spec"]["template"]["metadata"]["annotations"]["model-sha256"])[:12]


def answers(released: Released, before: str) -> None:
    """Ask, then pause. Raises SystemExit unless model `before` answers."""
    cluster_service.still_answers(cluster.NAME, released.model, before)
    time.sleep(cluster_service.PAUSE)
