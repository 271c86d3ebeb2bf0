"""A model's room on the cluster: what its repository cannot do there, and that every release which the template makes fits in.

The admission policies are evaluated as the API server does (admission.py), network policies as a plugin does (network.py).
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from admission import Request, matched_resources, refusals
from network import ROOM, let_through, needed
from overlays import components, copied, released, render, switched_on
from platform_objects import PLATFORM, Object, one, select, tenant, with_network_policy
from rooms import all_pods, asked, quantity

OWN, PLATFORMS = "m-churn-production", "tenant-m-churn-production"


@pytest.fixture(scope="module")
def platform() -> list[Object]:
    return render(PLATFORM)


@pytest.fixture(scope="module")
def room(platform: list[Object], tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What a room holds before its model comes."""
    return tenant(platform, tmp_path_factory.mktemp("tenant"))


@pytest.fixture(scope="module")
def releases(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """Each release that the template can make, by environment and components, with what people apply beside it."""
    k8s = copied(projects["foreign"], tmp_path_factory.mktemp("release") / "project")
    redis = render(k8s / "redis")
    found: dict[str, list[Object]] = {}
    for overlay in sorted(path.parent for path in k8s.glob("overlays/*/kustomization.yaml")):
        others = [name for name in components(k8s) if name not in switched_on(overlay)]
        together = [name for name in others if name not in ("gpu", "schedule")]  # an image of its own; not beside canary
        for more in ([], *([name] for name in others), together):
            made = [item for item in released(overlay, *more) if item]
            found["+".join([overlay.name, *more])] = made + (redis if "feature-store" in more else [])
    return found


def item(kind: str, name: str = "x", application: str = OWN, **content: Any) -> Object:
    """Return an object as Argo CD applies it for an Application."""
    version = {
        "AnalysisTemplate": "argoproj.io/v1alpha1",
        "NetworkPolicy": "networking.k8s.io/v1",
        "PodMonitor": "monitoring.coreos.com/v1",
        "ScaledObject": "keda.sh/v1alpha1",
        "ServiceMonitor": "monitoring.coreos.com/v1",
    }.get(kind, "v1")
    group = version.rpartition("/")[0]
    tracking = {"argocd.argoproj.io/tracking-id": f"{application}:{group}/{kind}:{ROOM}/{name}"}
    metadata = {"name": name, "namespace": ROOM, "annotations": tracking}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": content}


def egress(**rule: Any) -> Request:
    return Request(item("NetworkPolicy", podSelector={}, policyTypes=["Egress"], egress=[rule]))


def ingress(**rule: Any) -> Request:
    return Request(item("NetworkPolicy", podSelector={}, policyTypes=["Ingress"], ingress=[rule]))


def service(**spec: Any) -> Request:
    return Request(item("Service", **spec))


def pod(**spec: Any) -> Request:
    """A pod as a controller creates it, which copies no tracking-id, unless the template has one."""
    made = item("Pod", application=PLATFORMS, containers=[], **spec)
    return Request(made, user="system:serviceaccount:kube-system:replicaset-controller")


def endpoints(kind: str, **endpoint: Any) -> Request:
    field = "endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"
    return Request(item(kind, **{field: [{"port": "metrics"}, {"port": "metrics", **endpoint}]}))


def selecting(kind: str, **selector: Any) -> Request:
    return Request(item(kind, namespaceSelector=selector, endpoints=[]))


def analysis(**provider: Any) -> Request:
    return Request(item("AnalysisTemplate", metrics=[{"provider": {"job": {}}}, {"provider": provider}]))


def trigger(**content: Any) -> Request:
    return Request(item("ScaledObject", triggers=[{"type": "cpu"}, content]))


def replaced(kind: str, name: str) -> Request:
    return Request(item(kind, name), old=item(kind, name, PLATFORMS))


def deleted(kind: str, name: str, **how: Any) -> Request:
    return Request(None, old=item(kind, name, PLATFORMS), **how)


def untracked(request: Request) -> Request:
    assert request.new
    del request.new["metadata"]["annotations"]
    return request


def being_deleted(request: Request, old: Request) -> Request:
    """An object that a finalizer keeps, changed once more: what is left out of Git may be put into it again."""
    assert request.new and old.new
    request.new["metadata"]["deletionTimestamp"] = "2026-11-26T12:00:00Z"
    return Request(request.new, old=old.new)


ANYWHERE = {"ipBlock": {"cidr": "0.0.0.0/0"}}
METADATA = {"ipBlock": {"cidr": "169.254.169.254/32"}}
PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"
HERE = {"podSelector": {}}

#: What a repository, or a person, might apply: the policy that refuses it, what that says, and the request.
ATTACKS: dict[str, tuple[str, str, Request]] = {
    "replace default-deny": ("platform-objects", "give yours another name", replaced("NetworkPolicy", "default-deny")),
    "replace dns": ("platform-objects", "give yours another name", replaced("NetworkPolicy", "dns")),
    "replace the quota": ("platform-objects", "give yours another name", replaced("ResourceQuota", "quota")),
    "replace the bounds": ("platform-objects", "give yours another name", replaced("LimitRange", "defaults")),
    "take the tracking away": (
        *("platform-objects", "give yours another name"),
        Request(untracked(replaced("LimitRange", "defaults")).new, old=item("LimitRange", "defaults", PLATFORMS)),
    ),
    "Force=true,Replace=true on default-deny": (
        *("platform-objects", "bounds the room"),
        deleted("NetworkPolicy", "default-deny"),
    ),
    "Force=true,Replace=true on the quota": ("platform-objects", "bounds the room", deleted("ResourceQuota", "quota")),
    "egress to everything": ("network-policies", "without ports", egress()),
    "egress, empty ports": ("network-policies", "without ports", egress(to=[HERE], ports=[])),
    "egress, a protocol without a port": ("network-policies", "without ports", egress(ports=[{"protocol": "TCP"}])),
    "egress, a range": ("network-policies", "a range", egress(ports=[{"port": 1, "endPort": 65535}])),
    "egress, a range from a good port": ("network-policies", "a range", egress(ports=[{"port": 443, "endPort": 65535}])),
    "egress to a port of anyone's": ("network-policies", "other ports than", egress(ports=[{"port": 8080}])),
    "egress, empty to": ("network-policies", "other ports than", egress(to=[], ports=[{"port": 8080}])),
    "egress, a named port of anyone's": ("network-policies", "other ports than", egress(ports=[{"port": "http"}])),
    "egress, one good port and one more": (
        *("network-policies", "other ports than"),
        egress(ports=[{"port": 443}, {"port": 22}]),
    ),
    "egress to all addresses": ("network-policies", "other ports than", egress(to=[ANYWHERE], ports=[{"port": 8080}])),
    "egress to all namespaces": (
        *("network-policies", "other ports than"),
        egress(to=[{"namespaceSelector": {}}], ports=[{"port": 8080}]),
    ),
    "egress to another's pods": (
        *("network-policies", "other ports than"),
        egress(to=[{"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}], ports=[{"port": 8080}]),
    ),
    "egress to its own pods and all addresses": (
        *("network-policies", "other ports than"),
        egress(to=[HERE, ANYWHERE], ports=[{"port": 8080}]),
    ),
    "egress to the nodes' metadata and all of its ports": (
        *("network-policies", "other ports than"),
        egress(to=[METADATA], ports=[{"port": 80}, {"port": 22}]),
    ),
    "egress to port 80 of a network": (
        *("network-policies", "other ports than"),
        egress(to=[{"ipBlock": {"cidr": "169.254.0.0/16"}}], ports=[{"port": 80}]),
    ),
    "egress to port 80 of an address": (
        *("network-policies", "other ports than"),
        egress(to=[METADATA, {"ipBlock": {"cidr": "10.0.0.1/32"}}], ports=[{"port": 80}]),
    ),
    "egress to port 80 of an address that only looks local": (
        *("network-policies", "other ports than"),
        egress(to=[{"ipBlock": {"cidr": "1.169.254.1/32"}}], ports=[{"port": 80}]),
    ),
    "a second rule": (
        *("network-policies", "other ports than"),
        Request(item("NetworkPolicy", podSelector={}, egress=[{"ports": [{"port": 53}]}, {"ports": [{"port": 1}]}])),
    ),
    "no policyTypes": ("network-policies", "without ports", Request(item("NetworkPolicy", podSelector={}, egress=[{}]))),
    "policyTypes that say Ingress alone": (  # some day corrected, and opened by that
        *("network-policies", "without ports"),
        Request(item("NetworkPolicy", podSelector={}, policyTypes=["Ingress"], egress=[{}])),
    ),
    "ingress from everyone": ("network-policies", "without `from`", ingress(ports=[{"port": 8080}])),
    "ingress, empty from": ("network-policies", "without `from`", ingress(**{"from": [], "ports": [{"port": 8080}]})),
    "ingress from all addresses": (
        *("network-policies", "or with an ipBlock"),
        ingress(**{"from": [HERE, ANYWHERE], "ports": [{"port": 8080}]}),
    ),
    "ingress to every port": ("network-policies", "without ports", ingress(**{"from": [HERE]})),
    "ingress to a range": (
        *("network-policies", "a range"),
        ingress(**{"from": [HERE], "ports": [{"port": 1, "endPort": 65535}]}),
    ),
    "opened later": (
        *("network-policies", "other ports than"),
        Request(egress(ports=[{"port": 8080}]).new, old=egress(ports=[{"port": 443}]).new),
    ),
    "opened while a finalizer keeps it": (
        *("network-policies", "other ports than"),
        being_deleted(egress(ports=[{"port": 8080}]), egress(ports=[{"port": 443}])),
    ),
    "opened by hand": ("network-policies", "other ports than", untracked(egress(ports=[{"port": 8080}]))),
    "LoadBalancer": ("services", "only `type` ClusterIP", service(type="LoadBalancer")),
    "NodePort": ("services", "only `type` ClusterIP", service(type="NodePort")),
    "ExternalName": ("services", "only `type` ClusterIP", service(type="ExternalName")),
    "externalName beside a ClusterIP": ("services", "externalName", service(externalName="kubernetes.default.svc")),
    "externalIPs": ("services", "externalIPs", service(type="ClusterIP", externalIPs=["192.0.2.1"])),
    "system-cluster-critical": ("pods", "priorityClassName", pod(priorityClassName="system-cluster-critical")),
    "nodeName": ("pods", "nodeName", pod(nodeName="control-plane-1")),
    "tolerate everything": ("pods", "toleration", pod(tolerations=[{"operator": "Exists"}])),
    "tolerate everything, empty key": ("pods", "toleration", pod(tolerations=[{"key": "", "operator": "Exists"}])),
    "tolerate the control plane": (
        *("pods", "toleration"),
        pod(tolerations=[{"key": "a"}, {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]),
    ),
    "tolerate the system's pools": ("pods", "toleration", pod(tolerations=[{"key": "CriticalAddonsOnly"}])),
    "monitor all namespaces": ("service-monitors", "leaves its own namespace", selecting("ServiceMonitor", any=True)),
    "monitor another namespace": (
        *("service-monitors", "leaves its own namespace"),
        selecting("ServiceMonitor", matchNames=[ROOM, "kube-system"]),
    ),
    "Prometheus' token": (
        *("service-monitors", "files of Prometheus"),
        endpoints("ServiceMonitor", bearerTokenFile="/var/run/secrets/kubernetes.io/serviceaccount/token"),
    ),
    "a file of Prometheus'": (
        *("service-monitors", "files of Prometheus"),
        endpoints("ServiceMonitor", tlsConfig={"keyFile": "/etc/passwd"}),
    ),
    "a proxy of one's own": (
        *("service-monitors", "an address of one's choice"),
        endpoints("ServiceMonitor", proxyUrl="http://mlflow.mlflow"),
    ),
    "a token from anywhere": ("service-monitors", "an address of one's choice", endpoints("ServiceMonitor", oauth2={})),
    "pods of all namespaces": ("pod-monitors", "leaves its own namespace", selecting("PodMonitor", any=True)),
    "pods of another namespace": (
        *("pod-monitors", "leaves its own namespace"),
        selecting("PodMonitor", matchNames=["kube-system"]),
    ),
    "pods through a proxy": ("pod-monitors", "an address of one's choice", endpoints("PodMonitor", proxyUrl="http://x")),
    "an analysis that asks the web": ("analyses", "not allowed", analysis(web={"url": "http://169.254.169.254"})),
    "an analysis by a plugin": ("analyses", "not allowed", analysis(plugin={"x": {}})),
    "an analysis of another Prometheus": (
        *("analyses", "asks another address"),
        analysis(prometheus={"address": "http://169.254.169.254", "query": "up"}),
    ),
    "an address from an argument": (
        *("analyses", "asks another address"),
        analysis(prometheus={"address": "{{args.address}}", "query": "up"}),
    ),
    "a Prometheus without an address": ("analyses", "asks another address", analysis(prometheus={"query": "up"})),
    "a Prometheus with a token from anywhere": (
        *("analyses", "asks another address"),
        analysis(prometheus={"address": PROMETHEUS, "authentication": {"oauth2": {"tokenUrl": "http://x"}}}),
    ),
    "an autoscaler that asks the web": ("scaled-objects", "cron, cpu and memory", trigger(type="metrics-api")),
}


def refused(objects: list[Object], request: Request, room: list[Object]) -> list[str]:
    namespace = one(room, "Namespace")
    return refusals(objects, Request(request.new, request.old, request.user, namespace))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(attack: str, platform: list[Object], room: list[Object]) -> None:
    """With a message that names what is wrong; and by that policy alone, so that this test fails without it."""
    policy, says, request = ATTACKS[attack]
    found = refused(platform, request, room)
    assert found
    assert any(says in message for message in found)
    assert not any(message.startswith("error") for message in found)
    without = [entry for entry in platform if entry["metadata"]["name"] != f"models-{policy}"]
    assert len(platform) - len(without) == 2, "the policy and its binding"
    assert refused(without, request, room) == []


def test_every_part_of_every_policy_is_attacked(platform: list[Object], room: list[Object]) -> None:
    said = {message for _, _, request in ATTACKS.values() for message in refused(platform, request, room)}
    policies = select(platform, "ValidatingAdmissionPolicy")
    assert said == {each["message"] for policy in policies for each in policy["spec"]["validations"]}
    assert {policy for policy, _, _ in ATTACKS.values()} == {
        policy["metadata"]["name"].removeprefix("models-") for policy in policies
    }


@pytest.mark.parametrize("attack", ATTACKS)
def test_policies_are_for_rooms_alone(attack: str, platform: list[Object], room: list[Object]) -> None:
    """The platform's own namespaces, and what else there is on the cluster, are not their business."""
    other = copy.deepcopy(room)
    one(other, "Namespace")["metadata"]["labels"].pop("app.kubernetes.io/part-of")
    assert refused(platform, ATTACKS[attack][2], other) == []


ALLOWED: dict[str, Request] = {
    "the platform changes its own": Request(
        item("NetworkPolicy", "default-deny", PLATFORMS), old=item("NetworkPolicy", "default-deny", PLATFORMS)
    ),
    "the platform takes one over": Request(
        item("NetworkPolicy", "dns", PLATFORMS), old=item("NetworkPolicy", "dns", OWN)
    ),
    "the platform drops one": deleted("NetworkPolicy", "ask-the-model"),
    "a person deletes what bounds the room": deleted("NetworkPolicy", "default-deny", user="kubernetes-admin"),
    "a namespace ends": deleted(
        "ResourceQuota", "quota", user="system:serviceaccount:kube-system:namespace-controller"
    ),
    "the platform's own may be wide": Request(item("NetworkPolicy", "wide", PLATFORMS, podSelector={}, egress=[{}])),
    "a policy that denies": Request(item("NetworkPolicy", podSelector={})),
    "a wide one of before is deleted": being_deleted(egress(), egress()),
    "a LoadBalancer of before is deleted": being_deleted(service(type="LoadBalancer"), service(type="LoadBalancer")),
    "a repository drops its own": Request(None, old=item("NetworkPolicy", "x")),
    "its own pods, named port": egress(to=[HERE], ports=[{"port": "http"}, {"port": 9000}]),
    "cloud credentials": egress(to=[METADATA, HERE], ports=[{"port": 80}, {"port": 988}]),
    "HTTPS within the cluster": egress(to=[{"namespaceSelector": {}}], ports=[{"port": 443}]),
    "a headless Service": service(type="ClusterIP", clusterIP="None", externalIPs=[]),
    "a GPU": pod(tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}], priorityClassName="", nodeName=""),
    "a pod of a node's own": pod(
        tolerations=[{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]
    ),
    "its own namespace": selecting("ServiceMonitor", matchNames=[ROOM]),
    "its own namespace's pods": selecting("PodMonitor", any=False),
    "TLS from a Secret": endpoints("ServiceMonitor", tlsConfig={"ca": {"secret": {"name": "x", "key": "ca"}}}),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_right_is_let_in(name: str, platform: list[Object], room: list[Object]) -> None:
    assert refused(platform, ALLOWED[name], room) == []


def test_the_ports_outside_are_the_same_everywhere(platform: list[Object], tmp_path: Path) -> None:
    """In the policy, in what it says, and in the network plugin's."""
    policy = one(platform, "ValidatingAdmissionPolicy", "models-network-policies")["spec"]
    (outside,) = [each["expression"] for each in policy["variables"] if each["name"] == "outside"]
    ports = [int(port) for port in re.findall(r"\d+", outside)]
    assert f"at other ports than {', '.join(map(str, ports))};" in policy["validations"][2]["message"]
    plugin = one(with_network_policy(tmp_path), "ClusterNetworkPolicy")["spec"]
    rules = {rule["name"]: rule for rule in plugin["egress"]}
    tcp = [entry["tcp"]["destinationPort"]["number"] for entry in rules["outside"]["protocols"] if "tcp" in entry]
    assert tcp == ports
    assert plugin["egress"][-1] == {"name": "nothing-else", "action": "Deny", "to": rules["outside"]["to"]}
    assert all(rule["action"] == "Pass" for rule in plugin["egress"][:-1]), "NetworkPolicies still decide"


def test_the_platform_writes_what_it_protects(room: list[Object]) -> None:
    """The names that Argo CD cannot delete are those of the room, and the room keeps to its own rules."""
    kinds = ("LimitRange", "ResourceQuota", "NetworkPolicy")
    assert {item["metadata"]["name"] for kind in kinds for item in select(room, kind)} == {
        *("default-deny", "defaults", "dns", "quota")
    }


def test_releases_are_all_there(releases: dict[str, list[Object]]) -> None:
    """The tests below are not over nothing."""
    names = {"canary", "feature-store", "gpu", "jobs", "request-log", "schedule"}
    assert {f"{overlay}+{name}" for overlay in ("production", "staging") for name in names} <= releases.keys()
    assert "staging+monitoring" in releases
    assert max(name.count("+") for name in releases) > 3
    kinds = {item["kind"] for objects in releases.values() for item in objects}
    assert {"AnalysisTemplate", "Rollout", "PersistentVolumeClaim", "ScaledObject", "ServiceMonitor"} <= kinds


def test_every_release_fits_the_quota(releases: dict[str, list[Object]], room: list[Object]) -> None:
    """With each Deployment at the most pods that its autoscaler makes, while a release rolls; as a whole or not at all."""
    quota = {name: quantity(amount) for name, amount in one(room, "ResourceQuota")["spec"]["hard"].items()}
    found = {name: asked(objects, one(room, "LimitRange")) for name, objects in releases.items()}
    assert {what for each in found.values() for what in each} <= quota.keys()
    over = {
        (name, what): (amount, quota[what])
        for name, each in found.items()
        for what, amount in each.items()
        if amount > quota[what]
    }
    assert over == {}
    assert found["production"]["pods"] == 7
    assert found["production+gpu"]["requests.nvidia.com/gpu"] == 7
    assert found["production+feature-store"]["persistentvolumeclaims"] == 1


def test_every_release_is_of_the_kinds_that_are_allowed(
    releases: dict[str, list[Object]], room: list[Object], projects: dict[str, Path]
) -> None:
    """By the room's AppProject, and by the project's own; the volume is applied by people."""
    for project in (one(room, "AppProject"), one(render(projects["foreign"] / "k8s/argocd"), "AppProject")):
        allowed = {(entry["group"], entry["kind"]) for entry in project["spec"]["namespaceResourceWhitelist"]}
        for name, objects in releases.items():
            kinds = {(item["apiVersion"].rpartition("/")[0], item["kind"]) for item in objects}
            assert kinds - {("", "PersistentVolumeClaim")} <= allowed, name


def test_every_release_is_let_in(
    releases: dict[str, list[Object]], platform: list[Object], room: list[Object]
) -> None:
    """Its objects, and the pods that controllers make of them."""
    for name, objects in releases.items():
        pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": pods.spec} for pods in all_pods(objects)]
        assert len(pods) > 0
        found = {
            (each["kind"], each["metadata"].get("name")): said
            for each in [*objects, *pods]
            if (said := refused(platform, Request(each), room))
        }
        assert found == {}, name
    read = {name for policy in select(platform, "ValidatingAdmissionPolicy") for name in matched_resources(policy)}
    assert read >= {"networkpolicies", "services", "pods", "servicemonitors", "analysistemplates", "scaledobjects"}


def test_every_release_reaches_what_it_names(releases: dict[str, list[Object]], room: list[Object]) -> None:
    """DNS by both ways, what the settings and commands of its containers name, Prometheus its metrics, clients the server."""
    count = 0
    for name, objects in releases.items():
        connections = list(needed(objects))
        count += len(connections)
        blocked = [each for each in connections if not let_through(each, [*room, *objects])]
        assert blocked == [], name
    assert count > 200


def test_a_connection_needs_its_policy(releases: dict[str, list[Object]], room: list[Object]) -> None:
    """Each NetworkPolicy of a release and of the room, taken away, leaves something blocked: the test above can fail."""
    name = max(releases, key=len)
    objects = releases[name]
    connections = list(needed(objects))
    policies = [*select(room, "NetworkPolicy"), *select(objects, "NetworkPolicy")]
    for policy in policies:
        others = [each for each in policies if each is not policy]
        blocked = [each for each in connections if not let_through(each, others)]
        spare = policy["metadata"]["name"] in ("default-deny", "dns")  # the project's own let DNS through as well
        assert bool(blocked) != spare, policy["metadata"]["name"]
