"""The API server of the stand-in: which objects it takes, and in whose words it refuses the others.

Kubernetes' own kinds are held to their schemas; of custom kinds the definition has to be there. What may come into a
namespace is in fake_cluster_admission.py.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import fake_cluster_admission as admission
import fake_cluster_pods as pods
from fake_cluster_state import Cluster, Object, Refused

#: Kinds without a namespace. Those of the API server itself that are not here have one.
CLUSTER_WIDE = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
THERE_FROM_THE_START = ("argocd", "default", "kube-system")

#: Definitions that are fetched from outside, by the file's name; metrics-server's is no definition.
PUBLISHED = {
    "components.yaml": (),
    "monitoring.coreos.com_prometheusrules.yaml": ("monitoring.coreos.com", "PrometheusRule"),
    "monitoring.coreos.com_servicemonitors.yaml": ("monitoring.coreos.com", "ServiceMonitor"),
}


def group(item: Object) -> str:
    return str(item["apiVersion"]).rpartition("/")[0]


def key(item: Object) -> str:
    namespace = "" if item["kind"] in CLUSTER_WIDE else item["metadata"].get("namespace", "default")
    return f"{group(item)}/{item['kind']}/{namespace}/{item['metadata']['name']}"


def definition(group: str, kind: str) -> Object:
    """Return a CustomResourceDefinition, as far as it is read here."""
    names = {"kind": kind, "plural": f"{kind.lower()}s"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {"group": group, "names": names},
    }


def published(address: str) -> list[Object]:
    """Return what lies at an address outside, as far as it is read here."""
    name = PurePosixPath(address).name
    if name not in PUBLISHED:
        raise Refused(f"unable to read URL {address!r}: not known here")
    return [definition(*PUBLISHED[name])] if PUBLISHED[name] else []


def problem(cluster: Cluster, item: Object) -> str | None:
    """Apply an object, and say why where it is refused."""
    try:
        apply(cluster, item)
    except Refused as refused:
        return str(refused)
    return None


def check_kind(cluster: Cluster, item: Object) -> None:
    """Raise Refused for a kind that the server does not have, and for fields that a kind of its own does not have."""
    kind = item["kind"]
    if kind == "CustomResourceDefinition" or f"{group(item)}/{kind}" in cluster.custom:
        return
    import kubernetes_validate  # which most commands do not need
    from manifest_checks import KUBERNETES

    try:
        kubernetes_validate.validate(item, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        raise Refused(f'no matches for kind "{kind}" in version "{item["apiVersion"]}"') from None
    except kubernetes_validate.ValidationError as error:
        raise Refused(f'{kind} "{item["metadata"]["name"]}" is invalid: {error.message}') from None


def apply(cluster: Cluster, item: Object) -> None:
    """Take an object in. Raises Refused."""
    if not cluster.name:
        raise Refused("The connection to the server was refused: there is no cluster")
    check_kind(cluster, item)
    where = key(item)
    namespace = where.split("/")[-2]
    if namespace and namespace not in THERE_FROM_THE_START and f"/Namespace//{namespace}" not in cluster.objects:
        raise Refused(f'namespaces "{namespace}" not found')
    if why := admission.denied(cluster, item, cluster.objects.get(where)):
        raise Refused(f'{item["kind"]} "{item["metadata"]["name"]}" is forbidden: {why}')
    if item["kind"] == "CustomResourceDefinition":
        cluster.custom.append(f"{item['spec']['group']}/{item['spec']['names']['kind']}")
    pods.replaced(cluster, where, item)
    cluster.objects[where] = item


def delete(cluster: Cluster, where: str) -> None:
    """Delete an object and the pods of a workload."""
    cluster.objects.pop(where, None)
    cluster.rollouts.pop(where, None)


def found(cluster: Cluster, kind: str, namespace: str, name: str) -> Object:
    """Return an object by its kind in small letters. Raises Refused."""
    for where, item in cluster.objects.items():
        if where.split("/")[-2:] == [namespace, name] and item["kind"].lower() == kind:
            return item
    raise Refused(f'{kind}s "{name}" not found')
