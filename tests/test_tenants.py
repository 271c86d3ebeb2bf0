"""A tenant of the cluster: what its repository cannot do there, and that each release of a project fits in.

Admission policies are evaluated as the API server does (admission.py), network policies as a plugin does (network.py).
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import train_jobs
from admission import Request, matched_resources, refusals
from network import TENANT, Connection, End, let_through, needed
from overlays import components, copied, released, render, switched_on
from platform_objects import PLATFORM, README, Object, one, select, tenant, with_network_policy
from tenant_attacks import ALLOWED, ATTACKS
from tenant_pods import all_pods, asked, quantity


@pytest.fixture(scope="module")
def platform() -> list[Object]:
    return render(PLATFORM)


@pytest.fixture(scope="module")
def tenancy(platform: list[Object], tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    """What a tenant holds before its model comes."""
    return tenant(platform, tmp_path_factory.mktemp("tenant"))


@pytest.fixture(scope="module")
def releases(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """Each release that the template can make, by environment and components, with what people apply beside it."""
    k8s = copied(projects["foreign"], tmp_path_factory.mktemp("release") / "project")
    training = train_jobs.train_job(projects["foreign"])
    redis = render(k8s / "redis")
    found: dict[str, list[Object]] = {}
    for overlay in sorted(path.parent for path in k8s.glob("overlays/*/kustomization.yaml")):
        others = [name for name in components(k8s) if name not in switched_on(overlay)]
        together = [
            name for name in others if name not in ("gpu", "schedule")
        ]  # an image of its own; not beside canary
        for more in ([], *([name] for name in others), together):
            made = [item for item in released(overlay, *more) if item]
            beside = [*(redis if "feature-store" in more else []), *([training] if "jobs" in more else [])]
            found["+".join([overlay.name, *more])] = made + beside
    return found


def refused(objects: list[Object], request: Request, tenancy: list[Object]) -> list[str]:
    namespace = one(tenancy, "Namespace")
    return refusals(objects, Request(request.new, request.old, request.user, namespace))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(attack: str, platform: list[Object], tenancy: list[Object]) -> None:
    """With a message that names what is wrong; and by that policy alone, so that this test fails without it."""
    policy, says, request = ATTACKS[attack]
    found = refused(platform, request, tenancy)
    assert found
    assert any(says in message for message in found)
    assert not any(message.startswith("error") for message in found)
    without = [entry for entry in platform if entry["metadata"]["name"] != f"models-{policy}"]
    assert len(platform) - len(without) == 2, "the policy and its binding"
    assert refused(without, request, tenancy) == []


def test_every_part_of_every_policy_is_attacked(platform: list[Object], tenancy: list[Object]) -> None:
    said = {message for _, _, request in ATTACKS.values() for message in refused(platform, request, tenancy)}
    policies = select(platform, "ValidatingAdmissionPolicy")
    assert said == {each["message"] for policy in policies for each in policy["spec"]["validations"]}
    assert {policy for policy, _, _ in ATTACKS.values()} == {
        policy["metadata"]["name"].removeprefix("models-") for policy in policies
    }
    for path in (PLATFORM / "fleet/admission").glob("[!k]*.yaml"):
        assert path.name in README, "the table of what a repository cannot undo"


@pytest.mark.parametrize("attack", ATTACKS)
def test_policies_are_for_tenants_alone(attack: str, platform: list[Object], tenancy: list[Object]) -> None:
    """The platform's own namespaces, and what else there is on the cluster, are not their business."""
    other = copy.deepcopy(tenancy)
    one(other, "Namespace")["metadata"]["labels"].pop("app.kubernetes.io/part-of")
    assert refused(platform, ATTACKS[attack][2], other) == []


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_right_is_let_in(name: str, platform: list[Object], tenancy: list[Object]) -> None:
    assert refused(platform, ALLOWED[name], tenancy) == []


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


def test_the_platform_writes_what_it_protects(tenancy: list[Object]) -> None:
    """The names that Argo CD cannot delete are those of the tenancy, and the tenancy keeps to its own rules."""
    kinds = ("LimitRange", "ResourceQuota", "NetworkPolicy")
    assert {item["metadata"]["name"] for kind in kinds for item in select(tenancy, kind)} == {
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


def test_every_release_fits_the_quota(releases: dict[str, list[Object]], tenancy: list[Object]) -> None:
    """With as many pods as its autoscalers make at most, while a release rolls."""
    quota = {name: quantity(amount) for name, amount in one(tenancy, "ResourceQuota")["spec"]["hard"].items()}
    found = {name: asked(objects, one(tenancy, "LimitRange")) for name, objects in releases.items()}
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
    releases: dict[str, list[Object]], tenancy: list[Object], projects: dict[str, Path]
) -> None:
    """By the tenancy's AppProject, and by the project's own; the volume and the TrainJob are applied by people."""
    by_people = {("", "PersistentVolumeClaim"), ("trainer.kubeflow.org", "TrainJob")}
    for project in (one(tenancy, "AppProject"), one(render(projects["foreign"] / "k8s/argocd"), "AppProject")):
        allowed = {(entry["group"], entry["kind"]) for entry in project["spec"]["namespaceResourceWhitelist"]}
        for name, objects in releases.items():
            kinds = {(item["apiVersion"].rpartition("/")[0], item["kind"]) for item in objects}
            assert kinds - by_people <= allowed, name
        assert not by_people & allowed


def test_every_release_is_let_in(
    releases: dict[str, list[Object]], platform: list[Object], tenancy: list[Object]
) -> None:
    """Its objects, and the pods that controllers make of them."""
    for name, objects in releases.items():
        pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": pods.spec} for pods in all_pods(objects)]
        assert len(pods) > 0
        found = {
            (each["kind"], each["metadata"].get("name")): said
            for each in [*objects, *pods]
            if (said := refused(platform, Request(each), tenancy))
        }
        assert found == {}, name
    read = {name for policy in select(platform, "ValidatingAdmissionPolicy") for name in matched_resources(policy)}
    assert read >= {"networkpolicies", "services", "pods", "servicemonitors", "analysistemplates", "scaledobjects"}


def test_every_release_reaches_what_it_names(releases: dict[str, list[Object]], tenancy: list[Object]) -> None:
    """DNS both ways, what its containers' settings name; and Prometheus reaches its metrics, clients the server."""
    count = 0
    for name, objects in releases.items():
        connections = list(needed(objects))
        count += len(connections)
        blocked = [each for each in connections if not let_through(each, [*tenancy, *objects])]
        assert blocked == [], name
    assert count > 200


def test_a_connection_needs_its_policy(releases: dict[str, list[Object]], tenancy: list[Object]) -> None:
    """Each NetworkPolicy of a release and of the tenancy, taken away, leaves something blocked."""
    objects = releases[max(releases, key=len)]
    connections = list(needed(objects))
    policies = [*select(tenancy, "NetworkPolicy"), *select(objects, "NetworkPolicy")]
    assert len(policies) > 5
    for policy in policies:
        others = [each for each in policies if each is not policy]
        blocked = [each for each in connections if not let_through(each, others)]
        assert bool(blocked) == (policy["metadata"]["name"] != "default-deny"), policy["metadata"]["name"]


def test_what_a_release_does_not_name_is_blocked(releases: dict[str, list[Object]], tenancy: list[Object]) -> None:
    """For its pods, and for one that none of its NetworkPolicies selects, which without default-deny is open."""
    objects = releases[max(releases, key=len)]
    server, redis, another = (
        End(TENANT, {"app.kubernetes.io/component": name}) for name in ("server", "redis", "else")
    )
    unnamed = [
        *(Connection(another, End(), 443), Connection(End("shop"), another, 8080), Connection(another, server, 8080)),
        *(Connection(server, End(), 8080), Connection(End("shop"), redis, 6379), Connection(End("shop"), server, 8082)),
    ]
    assert [each for each in unnamed if let_through(each, [*tenancy, *objects])] == []
    opened = [each for each in tenancy if each["metadata"]["name"] != "default-deny"]
    assert let_through(Connection(End("shop"), another, 8080), [*opened, *objects])
