"""The pods of the stand-in's workloads: which model answers, and what Argo CD calls healthy.

A release's pods become ready some seconds after it where the nodes have their image and the model in it is the one that
the manifest names, as the server itself holds it; the pods before answer until then. Otherwise they never do, and the
Deployment is Degraded after its progressDeadlineSeconds.
"""

from __future__ import annotations

import fake_cluster_admission as admission
from fake_cluster_state import Cluster, Object

STARTING = 8.0  # seconds from a changed template to ready pods
WITHOUT_METRICS = 30.0  # seconds in which an autoscaler has no metrics of new pods, which Argo CD calls Degraded
#: With these settings of its own Argo CD calls it Healthy: k8s/argocd/health.yaml, which is not read any closer here.
JUDGED = "resource.customizations.health.autoscaling_HorizontalPodAutoscaler"
DEADLINE = 600  # Kubernetes' default of progressDeadlineSeconds


def replaced(cluster: Cluster, where: str, item: Object) -> None:
    """Begin a rollout where an object's pods change. The pods that are ready stay until it is done."""
    if item["kind"] not in ("Deployment", "Job"):
        return
    template = item["spec"]["template"]
    rollout = cluster.rollouts.setdefault(where, {"template": None, "began": 0.0, "ready": None})
    settle(cluster, rollout)
    if rollout["template"] != template:
        rollout |= {"template": template, "began": cluster.now, "namespace": item["metadata"]["namespace"]}


def settle(cluster: Cluster, rollout: Object) -> bool:
    """Replace the ready pods where the new ones had time to start and can; return whether no rollout is under way."""
    template = rollout["template"]
    if template != rollout["ready"] and cluster.now >= rollout["began"] + STARTING and starts(cluster, rollout):
        rollout["ready"] = template
    return bool(template == rollout["ready"])


def starts(cluster: Cluster, rollout: Object) -> bool:
    """Whether new pods of a template become ready."""
    template = rollout["template"]
    [image] = {container["image"] for container in template["spec"]["containers"]}
    wanted = template["metadata"].get("annotations", {}).get("model-sha256")
    here = cluster.loaded.get(image)
    right = here is not None and wanted in (None, here)
    return right and not admission.pods_denied(cluster, rollout["namespace"], template)


def health(cluster: Cluster, item: Object) -> str | None:
    """Return what Argo CD says of an object's health, None for a kind that has none."""
    where = f"apps/Deployment/{item['metadata'].get('namespace')}/{item['metadata']['name']}"
    if item["kind"] == "HorizontalPodAutoscaler":
        judged = JUDGED in cluster.objects.get("/ConfigMap/argocd/argocd-cm", {}).get("data", {})
        new = cluster.now < cluster.rollouts.get(where, {"began": 0.0})["began"] + WITHOUT_METRICS
        return "Degraded" if new and not judged else "Healthy"
    if item["kind"] not in ("Deployment", "Job"):
        return None
    if item["kind"] == "Job":
        where = f"batch/Job/{item['metadata'].get('namespace')}/{item['metadata']['name']}"
    if (rollout := cluster.rollouts.get(where)) is None:
        return "Missing"
    if settle(cluster, rollout):
        return "Healthy"
    deadline = item["spec"].get("progressDeadlineSeconds", DEADLINE)
    return "Degraded" if cluster.now > rollout["began"] + deadline else "Progressing"


def status(cluster: Cluster, deployment: Object) -> Object:
    """Return a Deployment's conditions, as far as they are read."""
    metadata = deployment["metadata"]
    why = admission.pods_denied(cluster, metadata["namespace"], deployment["spec"]["template"])
    failure = {"type": "ReplicaFailure", "status": "True", "message": f"pods are forbidden: {why}"}
    return {"conditions": [failure] if why else []}


def answering(cluster: Cluster, service: Object) -> str | None:
    """Return the sha256 of the model in the ready pods behind a Service, None where there are none."""
    wanted = service["spec"]["selector"].items()
    for rollout in cluster.rollouts.values():
        settle(cluster, rollout)
        ready = rollout["ready"]
        if ready and rollout["namespace"] == service["metadata"]["namespace"]:
            labels = ready["metadata"]["labels"]
            [image] = {container["image"] for container in ready["spec"]["containers"]}
            if wanted <= labels.items():
                return cluster.loaded[image]
    return None
