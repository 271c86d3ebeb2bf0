"""What the stand-in's API server admits to a namespace: Pod Security's `restricted`, and the cluster's policies."""

from __future__ import annotations

from fake_cluster_state import Cluster, Object

POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


def denied(cluster: Cluster, item: Object, old: Object | None) -> str | None:
    """Return why an object may not come into its namespace, as the policies in the cluster say; None where it may."""
    namespace = cluster.objects.get(f"/Namespace//{item['metadata'].get('namespace')}")
    policies = [known for known in cluster.objects.values() if known["kind"] in POLICIES]
    if namespace is None or not policies:
        return None
    import admission  # CEL, which most commands do not need

    said = admission.refusals(policies, admission.Request(item, old, namespace=namespace))
    return f"ValidatingAdmissionPolicy denied request: {'; '.join(said)}" if said else None


def pods_denied(cluster: Cluster, namespace: str, template: Object) -> str | None:
    """Return why pods of a template may not come into a namespace; None where they may.

    Of `restricted` those rules are known that a release can break by a field it sets or leaves out:
    https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    """
    labels = cluster.objects[f"/Namespace//{namespace}"]["metadata"].get("labels", {})
    spec = template["spec"]
    if labels.get("pod-security.kubernetes.io/enforce") == "restricted" and (broken := sorted(_broken(spec))):
        return f'violates PodSecurity "restricted:latest": {", ".join(broken)}'
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": namespace}, "spec": spec}
    return denied(cluster, pod, None)


def _broken(spec: Object) -> set[str]:
    """Return the rules that a pod breaks, by the fields' names."""
    found = {name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)}
    found |= {"hostPath volumes" for volume in spec.get("volumes", []) if "hostPath" in volume}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
        rules = {
            "privileged": not context.get("privileged"),
            "allowPrivilegeEscalation != false": context.get("allowPrivilegeEscalation") is False,
            "unrestricted capabilities": context.get("capabilities", {}).get("drop") == ["ALL"],
            "runAsNonRoot != true": context.get("runAsNonRoot") is True,
            "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
        }
        found |= {rule for rule, kept in rules.items() if not kept}
    return found
