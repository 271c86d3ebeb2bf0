"""What a release asks of its tenant, a namespace with a quota: its pods at their most."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import train_jobs

Object = dict[str, Any]

NOTHING = {"kind": "", "name": ""}

UNITS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


@dataclass(frozen=True)
class Pods:
    """Pods of one template, with how many of them there are at most at one time."""

    labels: dict[str, str]
    spec: Object
    most: int


def all_pods(objects: list[Object]) -> list[Pods]:
    """Return the pods of every object that has some, at the most that its autoscaler and a release make of it."""
    return [pods for item in objects for pods in _pods(item, objects)]


def asked(objects: list[Object], defaults: Object) -> dict[str, float]:
    """Return what the objects ask of a quota, by its names.

    What a container does not say is as the LimitRange `defaults` has it.
    """
    total: Counter[str] = Counter()
    for pods in all_pods(objects):
        for name, amount in (_resources(pods.spec, defaults) | {"pods": 1}).items():
            total[name] += pods.most * amount  # type: ignore[assignment]  # a Counter of floats
    for item in objects:
        if item["kind"] == "PersistentVolumeClaim":
            total["persistentvolumeclaims"] += 1
            total["requests.storage"] += quantity(item["spec"]["resources"]["requests"]["storage"])  # type: ignore[assignment]
        if item["kind"] == "Service" and item["spec"].get("type", "ClusterIP") != "ClusterIP":
            total["services.nodeports"] += 1
    return dict(total)


def quantity(text: str | int) -> float:
    """Return a number that Kubernetes writes with a unit."""
    number, unit = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi)?", str(text)).groups("")  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def _pods(item: Object, objects: list[Object]) -> Iterator[Pods]:
    kind, spec = item["kind"], item.get("spec", {})
    if kind == "Deployment":
        # One whose pods a Rollout takes over runs beside it until the first release has succeeded, with as many pods.
        followers = [each for each in objects if _follows(each, item)]
        count = max(_replicas(each, objects) for each in (item, *followers))
        yield _of(spec["template"], count + _surge(spec.get("strategy", {}), count))
    elif kind == "Rollout":
        (source,) = [each for each in objects if _follows(item, each)]
        canary, template = spec["strategy"]["canary"], source["spec"]["template"]
        labels = template["metadata"]["labels"] | canary["canaryMetadata"]["labels"]
        yield Pods(labels, template["spec"], _replicas(item, objects) + canary["maxSurge"])
    elif kind == "CronJob":
        job = spec["jobTemplate"]["spec"]
        assert spec["concurrencyPolicy"] == "Forbid", item["metadata"]["name"]
        yield _of(job["template"], job.get("parallelism", 1))
    elif kind == "Job":
        yield _of(spec["template"], 2 * spec.get("parallelism", 1))  # that of the release before may still run
    elif kind == "TrainJob":
        yield _of(train_jobs.pod(item), spec["trainer"]["numNodes"])
    elif kind == "AnalysisTemplate":
        for metric in spec["metrics"]:
            if job := metric["provider"].get("job"):
                yield _of(job["spec"]["template"], 1)
    else:
        assert "template" not in spec, f"{kind}: how many pods it has is not known here"


def _of(template: Object, most: int) -> Pods:
    return Pods(template.get("metadata", {}).get("labels", {}), template["spec"], most)


def _follows(rollout: Object, deployment: Object) -> bool:
    reference = rollout.get("spec", {}).get("workloadRef")
    return bool(reference) and _is(reference, deployment)


def _is(reference: Object, item: Object) -> bool:
    return (reference["kind"], reference["name"]) == (item["kind"], item["metadata"]["name"])


def _replicas(item: Object, objects: list[Object]) -> int:
    scalers = [each["spec"] for each in objects if _is(each.get("spec", {}).get("scaleTargetRef", NOTHING), item)]
    most: list[int] = [scaler.get("maxReplicas") or scaler["maxReplicaCount"] for scaler in scalers]
    return max([*most, int(item["spec"].get("replicas", 1))])


def _surge(strategy: Object, count: int) -> int:
    if strategy.get("type") == "Recreate":
        return 0
    surge = strategy.get("rollingUpdate", {}).get("maxSurge", "25%")
    return surge if isinstance(surge, int) else math.ceil(count * int(surge.rstrip("%")) / 100)


def _resources(pod: Object, defaults: Object) -> dict[str, float]:
    """Return what one pod asks for: all its containers and sidecars, or the one before them that asks for more.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    """
    found: dict[str, float] = {}
    for name in ("requests.cpu", "requests.memory", "limits.memory", "requests.nvidia.com/gpu"):
        where, _, resource = name.partition(".")
        most = sidecars = 0.0
        for container in pod.get("initContainers", []):
            amount = _bound(container, where, resource, defaults)
            most = max(most, sidecars + amount)
            sidecars += amount if container.get("restartPolicy") == "Always" else 0
        amounts = [_bound(container, where, resource, defaults) for container in pod["containers"]]
        found[name] = max(most, sidecars + sum(amounts))
    return found


def _bound(container: Object, where: str, resource: str, defaults: Object) -> float:
    own = container.get("resources", {})
    (bounds,) = defaults["spec"]["limits"]
    limits = bounds["default"] | own.get("limits", {})
    requests = bounds["defaultRequest"] | own.get("limits", {}) | own.get("requests", {})
    return quantity((limits if where == "limits" else requests).get(resource, 0))
