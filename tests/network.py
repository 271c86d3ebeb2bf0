"""Who reaches whom in a tenant's namespace, by its NetworkPolicies, and which connections a release needs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import train_jobs
from tenant_pods import Pods, all_pods

Object = dict[str, Any]

TENANT = "m-churn-production"

#: Where the cloud hands out the credentials of a pod's ServiceAccount.
CREDENTIALS = [("169.254.169.254", 80), ("169.254.169.254", 988), ("169.254.170.23", 80)]

SCHEMES = {"https": 443, "s3": 443, "gs": 443, "abfs": 443, "http": 80}

#: What is in the Secrets that people create (k8s/redis/kustomization.yaml, components/jobs/tune.yaml): the end of the
#: Secret's name, the end of the Service's in the namespace, or nothing for one outside, and the port.
SECRETS = [("-feature-store", "-redis", 6379), ("-jobs", "", 5432)]

#: Containers and variables that name an address which is not asked: jobs/start.sh makes a remote of it, and no more.
NOT_ASKED = {("feature-server", "REPOSITORY")}


@dataclass(frozen=True)
class End:
    """A pod, or an address outside of all pods."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    address: str = "192.0.2.1"


@dataclass(frozen=True)
class Connection:
    source: End
    target: End
    port: int
    protocol: str = "TCP"


def let_through(connection: Connection, policies: list[Object]) -> bool:
    """Say whether the tenant's policies let a connection out of its source and into its target."""
    return _allowed(connection, policies, "Egress") and _allowed(connection, policies, "Ingress")


def needed(objects: list[Object]) -> Iterator[Connection]:
    """Yield the connections that the objects of a release, with those that people apply, name."""
    everything = all_pods(objects)
    for pods in everything:
        yield from _of_pods(pods, objects)
    for monitor in [item["spec"] for item in objects if item["kind"] == "ServiceMonitor"]:
        yield from _of_monitor(monitor, objects)
    for pods in everything:  # of a client, in any namespace
        if pods.labels.get("app.kubernetes.io/component") == "server":
            yield Connection(End("shop"), _end(pods), 8080)


def _of_pods(pods: Pods, objects: list[Object]) -> Iterator[Connection]:
    """Yield DNS, and what the containers' settings, commands and Secrets name."""
    source = _end(pods)
    for protocol in ("UDP", "TCP"):
        for resolver in (End("kube-system", {"k8s-app": "kube-dns"}), End(address="169.254.20.10")):
            yield Connection(source, resolver, 53, protocol)
    for scheme, host, port in _addresses(pods.spec, objects):
        yield from _called(source, scheme, host, port, objects)
    mounted = [str(volume["secret"]["secretName"]) for volume in pods.spec.get("volumes", []) if "secret" in volume]
    for end, service, port in SECRETS:
        if any(name.endswith(end) for name in mounted):
            yield from _to_service(source, service, port, objects) if service else [Connection(source, End(), port)]
    if pods.labels.get("app.kubernetes.io/component") == "training":
        yield from (Connection(source, source, port) for port in (train_jobs.PORT, *train_jobs.EPHEMERAL))


def _of_monitor(monitor: Object, objects: list[Object]) -> Iterator[Connection]:
    """Yield what Prometheus asks."""
    wanted = monitor["selector"]["matchLabels"].items()
    services = [item["metadata"] for item in objects if item["kind"] == "Service"]
    (service,) = [each for each in services if wanted <= each.get("labels", {}).items()]
    for endpoint in monitor["endpoints"]:
        yield from _to_service(End("monitoring"), service["name"], endpoint["port"], objects)


def _called(source: End, scheme: str, host: str, port: int, objects: list[Object]) -> Iterator[Connection]:
    if scheme == "http":
        yield from _to_service(source, host, port, objects)
        return
    yield Connection(source, End(), port)
    if scheme != "https":
        yield from (Connection(source, End(address=address), number) for address, number in CREDENTIALS)


def _to_service(source: End, name: str, port: int | str, objects: list[Object]) -> Iterator[Connection]:
    """Yield the connections to each kind of pod behind a Service, by its name or its end."""
    (spec,) = [item["spec"] for item in objects if item["kind"] == "Service" and _named(item, name)]
    (entry,) = [each for each in spec["ports"] if port in (each["port"], each["name"])]
    behind = [_end(pods) for pods in all_pods(objects) if spec["selector"].items() <= pods.labels.items()]
    assert behind, f"nothing is behind the Service {name}"
    yield from (Connection(source, end, end.ports[entry["targetPort"]]) for end in behind)


def _named(item: Object, name: str) -> bool:
    own = str(item["metadata"]["name"])
    return own.endswith(name) if name.startswith("-") else own == name


def _end(pods: Pods) -> End:
    ports = {
        port["name"]: port["containerPort"]
        for container in pods.spec["containers"]
        for port in container.get("ports", [])
    }
    return End(TENANT, pods.labels, ports)


def _addresses(pod: Object, objects: list[Object]) -> Iterator[tuple[str, str, int]]:
    """Yield scheme, host and port of each address in what a pod's containers are started with, but its own."""
    maps = {item["metadata"]["name"]: item.get("data", {}) for item in objects if item["kind"] == "ConfigMap"}
    texts: list[str] = []
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        texts += [*container.get("command", []), *container.get("args", [])]
        variables = [each for each in container.get("env", []) if (container["name"], each["name"]) not in NOT_ASKED]
        texts += [variable.get("value", "") for variable in variables]
        for reference in (each["configMapRef"] for each in container.get("envFrom", [])):
            texts += (
                maps.get(reference["name"], {}) if reference.get("optional") else maps[reference["name"]]
            ).values()
    for source in (
        each for volume in pod.get("volumes", []) for each in volume.get("projected", {}).get("sources", [])
    ):
        texts += maps[source["configMap"]["name"]].values() if "configMap" in source else ()
    for text in texts:
        for scheme, host, port in re.findall(r"\b([a-z][a-z0-9]*)://([\w.-]+)(?::(\d+))?", text):
            if host not in ("127.0.0.1", "0.0.0.0"):  # noqa: S104
                yield scheme, host, int(port or SCHEMES[scheme])


def _allowed(connection: Connection, policies: list[Object], direction: str) -> bool:
    own, other = (connection.source, connection.target)[:: 1 if direction == "Egress" else -1]
    if own.namespace != TENANT:
        return True  # not a matter of the tenant's policies
    rules, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    selecting = [
        item["spec"]
        for item in policies
        if item["kind"] == "NetworkPolicy"
        and direction in item["spec"]["policyTypes"]
        and _selects(item["spec"]["podSelector"], own.labels)
    ]
    return not selecting or any(
        _port(rule.get("ports"), connection)
        and (not rule.get(peers) or any(_peer(peer, other) for peer in rule[peers]))
        for spec in selecting
        for rule in spec.get(rules, [])
    )


def _port(entries: list[Object] | None, connection: Connection) -> bool:
    return not entries or any(
        entry.get("protocol", "TCP") == connection.protocol
        and (
            connection.target.ports.get(entry["port"], entry["port"]) == connection.port or _in_range(entry, connection)
        )
        for entry in entries
    )


def _in_range(entry: Object, connection: Connection) -> bool:
    return "endPort" in entry and entry["port"] <= connection.port <= entry["endPort"]


def _peer(peer: Object, end: End) -> bool:
    if "ipBlock" in peer:
        return not end.namespace and ipaddress.ip_address(end.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    namespace = {"kubernetes.io/metadata.name": end.namespace}
    inside = _selects(peer["namespaceSelector"], namespace) if "namespaceSelector" in peer else end.namespace == TENANT
    return bool(end.namespace) and inside and _selects(peer.get("podSelector", {}), end.labels)


def _selects(selector: Object, labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    assert all(each["operator"] == "In" for each in selector.get("matchExpressions", []))
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )
