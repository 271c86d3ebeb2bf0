"""What a repository or a person might apply in a tenant's namespace: what is refused there, and what is let in."""

from __future__ import annotations

from typing import Any

from admission import Request
from network import TENANT

Object = dict[str, Any]

OWN, PLATFORMS = "m-churn-production", "tenant-m-churn-production"


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
    tracking = {"argocd.argoproj.io/tracking-id": f"{application}:{group}/{kind}:{TENANT}/{name}"}
    metadata = {"name": name, "namespace": TENANT, "annotations": tracking}
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
    spec: Object = {field: [{"port": "metrics"}, {"port": "metrics", **endpoint}]}
    return Request(item(kind, **spec))


def labelled(kind: str, **spec: Any) -> Request:
    """A monitor that takes labels from its Service or pods."""
    request = endpoints(kind)
    assert request.new
    request.new["spec"] |= spec
    return request


def selecting(kind: str, **selector: Any) -> Request:
    return Request(item(kind, namespaceSelector=selector, endpoints=[]))


def analysis(**provider: Any) -> Request:
    return Request(item("AnalysisTemplate", metrics=[{"provider": {"job": {}}}, {"provider": provider}]))


def trigger(**content: Any) -> Request:
    return Request(item("ScaledObject", triggers=[{"type": "cpu"}, content]))


def dashboard(annotations: dict[str, str] | None = None, **content: Any) -> Request:
    made = item("ConfigMap")
    made["metadata"]["labels"] = {"grafana_dashboard": "1"}
    made["metadata"]["annotations"] |= annotations or {}
    return Request(made | content)


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
HERE: Object = {"podSelector": {}}

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
        *("platform-objects", "bounds the tenant"),
        deleted("NetworkPolicy", "default-deny"),
    ),
    "Force=true,Replace=true on the quota": (
        "platform-objects",
        "bounds the tenant",
        deleted("ResourceQuota", "quota"),
    ),
    "egress to everything": ("network-policies", "without ports", egress()),
    "egress, empty ports": ("network-policies", "without ports", egress(to=[HERE], ports=[])),
    "egress, a protocol without a port": ("network-policies", "without ports", egress(ports=[{"protocol": "TCP"}])),
    "egress, a range": ("network-policies", "a range", egress(ports=[{"port": 1, "endPort": 65535}])),
    "egress, a range from a good port": (
        "network-policies",
        "a range",
        egress(ports=[{"port": 443, "endPort": 65535}]),
    ),
    "egress, a range to others beside its own pods": (
        *("network-policies", "a range"),
        egress(to=[HERE, {"namespaceSelector": {}, **HERE}], ports=[{"port": 443, "endPort": 65535}]),
    ),
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
    "no policyTypes": (
        "network-policies",
        "without ports",
        Request(item("NetworkPolicy", podSelector={}, egress=[{}])),
    ),
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
        ingress(**{"from": [HERE, {"namespaceSelector": {}}], "ports": [{"port": 1, "endPort": 65535}]}),
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
        selecting("ServiceMonitor", matchNames=[TENANT, "kube-system"]),
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
    **{
        f"metrics in another's name: {name}": ("service-monitors", "another namespace's name", request)
        for name, request in {
            "honorLabels": endpoints("ServiceMonitor", honorLabels=True),
            "relabelings": endpoints("ServiceMonitor", relabelings=[{"targetLabel": "namespace", "replacement": "x"}]),
            "metricRelabelings": endpoints("ServiceMonitor", metricRelabelings=[{"targetLabel": "namespace"}]),
            "a label from a value": endpoints("ServiceMonitor", relabelings=[{"targetLabel": "${1}", "regex": "(.*)"}]),
            "another address": endpoints("ServiceMonitor", relabelings=[{"targetLabel": "__address__"}]),
            "labelmap": endpoints("ServiceMonitor", metricRelabelings=[{"action": "labelmap", "regex": "x_(.+)"}]),
            "LabelMap": endpoints("ServiceMonitor", relabelings=[{"action": "LabelMap", "regex": "x_(.+)"}]),
            "targetLabels": labelled("ServiceMonitor", targetLabels=["namespace"]),
            "podTargetLabels": labelled("ServiceMonitor", podTargetLabels=["namespace"]),
        }.items()
    },
    "pods' metrics in another's name: honorLabels": (
        *("pod-monitors", "another namespace's name"),
        endpoints("PodMonitor", honorLabels=True),
    ),
    "pods' metrics in another's name: podTargetLabels": (
        *("pod-monitors", "another namespace's name"),
        labelled("PodMonitor", podTargetLabels=["namespace"]),
    ),
    "pods of all namespaces": ("pod-monitors", "leaves its own namespace", selecting("PodMonitor", any=True)),
    "pods of another namespace": (
        *("pod-monitors", "leaves its own namespace"),
        selecting("PodMonitor", matchNames=["kube-system"]),
    ),
    "pods through a proxy": (
        "pod-monitors",
        "an address of one's choice",
        endpoints("PodMonitor", proxyUrl="http://x"),
    ),
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
    "a dashboard from anywhere": (
        "dashboards",
        "ends in .url",
        dashboard(data={"a.json": "{}", "b.json.url": "http://x"}),
    ),
    "a binary dashboard from anywhere": ("dashboards", "ends in .url", dashboard(binaryData={"b.json.url": "aA=="})),
    "a dashboard into any folder": (
        *("dashboards", "where Grafana's files are written"),
        dashboard({"k8s-sidecar-target-directory": "/etc"}, data={"a.json": "{}"}),
    ),
    "an autoscaler that asks the web": ("scaled-objects", "cron, cpu and memory", trigger(type="metrics-api")),
}

#: And what stays possible.
ALLOWED: dict[str, Request] = {
    "the platform changes its own": Request(
        item("NetworkPolicy", "default-deny", PLATFORMS), old=item("NetworkPolicy", "default-deny", PLATFORMS)
    ),
    "the platform takes one over": Request(
        item("NetworkPolicy", "dns", PLATFORMS), old=item("NetworkPolicy", "dns", OWN)
    ),
    "the platform drops one": deleted("NetworkPolicy", "ask-the-model"),
    "a person deletes what bounds the tenant": deleted("NetworkPolicy", "default-deny", user="kubernetes-admin"),
    "a namespace ends": deleted(
        "ResourceQuota", "quota", user="system:serviceaccount:kube-system:namespace-controller"
    ),
    "the platform's own may be wide": Request(item("NetworkPolicy", "wide", PLATFORMS, podSelector={}, egress=[{}])),
    "a policy that denies": Request(item("NetworkPolicy", podSelector={})),
    "a wide one of before is deleted": being_deleted(egress(), egress()),
    "a LoadBalancer of before is deleted": being_deleted(service(type="LoadBalancer"), service(type="LoadBalancer")),
    "a repository drops its own": Request(None, old=item("NetworkPolicy", "x")),
    "its own pods, a range": ingress(**{"from": [HERE], "ports": [{"port": 32768, "endPort": 60999}]}),
    "its own pods, a range, the other way": egress(to=[HERE], ports=[{"port": 32768, "endPort": 60999}]),
    "its own pods, named port": egress(to=[HERE], ports=[{"port": "http"}, {"port": 9000}]),
    "cloud credentials": egress(to=[METADATA, HERE], ports=[{"port": 80}, {"port": 988}]),
    "HTTPS within the cluster": egress(to=[{"namespaceSelector": {}}], ports=[{"port": 443}]),
    "a headless Service": service(type="ClusterIP", clusterIP="None", externalIPs=[]),
    "a GPU": pod(tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}], priorityClassName="", nodeName=""),
    "a pod of a node's own": pod(
        tolerations=[{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]
    ),
    "its own namespace": selecting("ServiceMonitor", matchNames=[TENANT]),
    "its own namespace's pods": selecting("PodMonitor", any=False),
    "settings with an address": Request(item("ConfigMap") | {"data": {"log.url": "s3://bucket"}}),
    "a relabeling": endpoints("ServiceMonitor", relabelings=[{"targetLabel": "node", "sourceLabels": ["x"]}]),
    "TLS from a Secret": endpoints("ServiceMonitor", tlsConfig={"ca": {"secret": {"name": "x", "key": "ca"}}}),
}
