"""The Kubernetes objects: rules for every overlay and component, what a release writes to them, and that the metrics
in alerts and dashboards exist."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from gitops.core.artifacts import ProjectError
from gitops.integrations import kustomize
from gitops.rendering import manifests
from gitops.serving import reverse_proxy
from gitops.serving.server import drift_metrics, start
from gitops.serving.server.metrics import METRICS
from ports import free_ports

IMAGE = f"registry.example/model@sha256:{'a' * 64}"
SHA256 = "b" * 64

VERSION = "app.kubernetes.io/version"

#: The jobs' image, without a digest until it has been built.
UNSET = re.compile(r"^[a-z0-9./-]+-jobs(:unset|@sha256:[0-9a-f]{64})$")

#: Metrics of Prometheus itself, kube-state-metrics and the monitor (test_monitor.py).
OTHERS = {
    "up",
    "kube_replicaset_created",
    "kube_replicaset_owner",
    "kube_replicaset_spec_replicas",
    "kube_service_info",
    "model_monitor_last_run_timestamp_seconds",
    "model_monitor_status",
    "model_monitor_value",
    "model_monitor_value_high",
    "model_monitor_value_low",
}

#: Words in a query that are no metrics.
WORDS = {
    "abs",
    "and",
    "avg",
    "by",
    "clamp_min",
    "count",
    "histogram_quantile",
    "increase",
    "label_values",
    "max",
    "namespace",
    "offset",
    "sqrt",
    "on",
    "or",
    "present_over_time",
    "rate",
    "sum",
    "time",
    "unless",
    "vector",
}

Object = dict[str, Any]

COMPONENTS = sorted(path.parent.name for path in (ROOT / "k8s/components").glob("*/kustomization.yaml"))
OVERLAYS = sorted(path.parent.name for path in (ROOT / "k8s/overlays").glob("*/kustomization.yaml"))
CASES = [*OVERLAYS, *(f"with-{component}" for component in COMPONENTS)]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each overlay, and production with each component alone."""
    folder = tmp_path_factory.mktemp("manifests")
    shutil.copytree(ROOT / "k8s", folder / "k8s")
    overlays = folder / "k8s/overlays"
    settings = yaml.safe_load((overlays / "production/kustomization.yaml").read_text())
    for component in COMPONENTS:
        (overlays / f"with-{component}").mkdir()
        alone = yaml.safe_dump(settings | {"components": [f"../../components/{component}"]})
        (overlays / f"with-{component}/kustomization.yaml").write_text(alone)
    return folder


@pytest.fixture(scope="module")
def rendered(cases: Path) -> dict[str, list[Object]]:
    """The objects of a release of each case."""
    return {case: list(map(yaml.safe_load, render(SHA256, case, cases).values())) for case in CASES}


def render(sha256: str, environment: str, project: Path = ROOT) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kustomize, "PROGRAM", ROOT / kustomize.PROGRAM)
        files: dict[str, bytes] = kustomize.render(IMAGE, "toy", sha256, environment, project)
    return files


def found(value: Any, key: str) -> Iterator[Any]:
    """Yield all that stands under `key`, at any depth."""
    if isinstance(value, dict):
        if key in value:
            yield value[key]
        value = list(value.values())
    for each in value if isinstance(value, list) else []:
        yield from found(each, key)


def of(objects: list[Object], *kinds: str) -> list[Object]:
    return [item for item in objects if item["kind"] in kinds]


def fits(selector: dict[str, str], template: Object) -> bool:
    return selector.items() <= template["metadata"].get("labels", {}).items()


def pod_templates(objects: list[Object]) -> list[Object]:
    """Return the templates of all pods, those of an analysis too."""
    return [item for item in found(objects, "template") if "containers" in item.get("spec", {})]


def staying(pod: Object) -> list[Object]:
    """Return the containers of a pod that run as long as it does, its sidecars first."""
    sidecars = [each for each in pod.get("initContainers", []) if each.get("restartPolicy") == "Always"]
    return [*sidecars, *pod["containers"]]


def model_runs(template: Object) -> bool:
    """Return whether the pod loads the model, rather than copying or asking it."""
    containers = staying(template["spec"])
    variables = [entry["name"] for each in containers for entry in each.get("env", [])]
    return containers[0]["name"] == "model-server" or "MODEL_SHA256" in variables


def checks_its_model(template: Object) -> bool:
    """Return whether the pod names the released model, and gives its sha256 to the container that loads it."""
    container = staying(template["spec"])[0]
    reference = {"fieldRef": {"fieldPath": "metadata.annotations['model-sha256']"}}
    given = {"name": "MODEL_SHA256", "valueFrom": reference} in container["env"]
    metadata = template["metadata"]
    marks = metadata.get("annotations", {}).get("model-sha256"), metadata["labels"].get(VERSION)
    return given and marks == (SHA256, SHA256[:12])


def pod_flaws(objects: list[Object]) -> dict[str, bool]:
    """Return the flaws that no pod may have, and whether one has it."""
    templates = pod_templates(objects)
    pods = [each["spec"] for each in templates]
    containers = [each for pod in pods for each in [*pod["containers"], *pod.get("initContainers", [])]]
    contexts = [each.get("securityContext", {}) for each in containers]
    servers = [each for each in containers if each["name"] == "model-server"]
    selectors = [item["spec"]["podSelector"]["matchLabels"] for item in of(objects, "NetworkPolicy")]
    return {
        "no model's digest": not servers or not all(checks_its_model(each) for each in templates if model_runs(each)),
        "another image": any(
            each["image"] != IMAGE and (each in servers or not UNSET.match(each["image"])) for each in containers
        ),
        "may be root": any(pod["securityContext"].get("runAsNonRoot") is not True for pod in pods),
        "no seccomp profile": any("seccompProfile" not in pod["securityContext"] for pod in pods),
        "a token": any(pod.get("automountServiceAccountToken") is not False for pod in pods),
        "a root that can be written": any(each.get("readOnlyRootFilesystem") is not True for each in contexts),
        "privileges": any(each.get("allowPrivilegeEscalation") is not False for each in contexts),
        "capabilities": any(each.get("capabilities") != {"drop": ["ALL"]} for each in contexts),
        "no resources": any(each.get("resources", {}).keys() != {"requests", "limits"} for each in containers),
        "a pod without policy": not all(any(fits(each, pod) for each in selectors) for pod in templates),
    }


def network_flaws(objects: list[Object]) -> dict[str, bool]:
    """Return the flaws that no network policy or Service may have, and whether one has it."""
    ports = [port for key in ("port", "containerPort", "targetPort") for port in found(objects, key)]
    policies = [item["spec"] for item in of(objects, "NetworkPolicy")]
    metrics = [rule["from"] for each in policies for rule in each.get("ingress", []) if {"port": 8082} in rule["ports"]]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    others = [each for each in pod_templates(objects) if staying(each["spec"])[0]["name"] != "model-server"]
    services = [item["spec"]["selector"] for item in of(objects, "Service")]
    component = "app.kubernetes.io/component"
    return {
        "the management port is open": any(port in ports for port in (8081, 7070, 7071)),
        "a policy for one direction": any({*each["policyTypes"]} != {"Ingress", "Egress"} for each in policies),
        "metrics for anyone": metrics != [[monitoring]],
        "a Service sends requests to other pods": any(
            fits(each, pod) and each.get(component) != pod["spec"]["containers"][0]["name"]
            for each in services
            for pod in others
        ),
    }


def flaws(objects: list[Object]) -> set[str]:
    """Return the flaws of an environment's objects."""
    targets = [item["spec"]["scaleTargetRef"] for item in of(objects, "HorizontalPodAutoscaler", "ScaledObject")]
    there = {(item["kind"], item["metadata"]["name"]) for item in objects}
    scaling = {
        "replicas in git": any("replicas" in item["spec"] for item in of(objects, "Deployment", "Rollout")),
        "scales what is not there": any((each["kind"], each["name"]) not in there for each in targets),
    }
    every = pod_flaws(objects) | network_flaws(objects) | scaling
    return {name for name, is_so in every.items() if is_so}


@pytest.mark.parametrize("case", CASES)
def test_objects_have_no_flaw(case: str, rendered: dict[str, list[Object]]) -> None:
    assert flaws(rendered[case]) == set()


BREAK: dict[str, Callable[[list[Object]], object]] = {
    "replicas in git": lambda them: first(them, "Deployment").update(replicas=2),
    "scales what is not there": lambda them: first(them, "HorizontalPodAutoscaler")["scaleTargetRef"].update(name="x"),
    "the management port is open": lambda them: first(them, "Service")["ports"].append({"port": 8081}),
    "no model's digest": lambda them: container(them)["env"].clear(),
    "another image": lambda them: container(them).update(image="python"),
    "may be root": lambda them: pod(them)["securityContext"].pop("runAsNonRoot"),
    "no seccomp profile": lambda them: pod(them)["securityContext"].pop("seccompProfile"),
    "a token": lambda them: pod(them).pop("automountServiceAccountToken"),
    "a root that can be written": lambda them: container(them)["securityContext"].pop("readOnlyRootFilesystem"),
    "privileges": lambda them: container(them)["securityContext"].update(allowPrivilegeEscalation=True),
    "capabilities": lambda them: container(them)["securityContext"]["capabilities"].update(add=["ALL"]),
    "no resources": lambda them: container(them).pop("resources"),
    "a pod without policy": lambda them: them.remove(of(them, "NetworkPolicy")[0]),
    "a policy for one direction": lambda them: first(them, "NetworkPolicy")["policyTypes"].pop(),
    "metrics for anyone": lambda them: of(them, "NetworkPolicy")[-1]["spec"]["ingress"][1].update({"from": []}),
    "a Service sends requests to other pods": lambda them: of(them, "Service")[-1]["spec"]["selector"].pop(
        "app.kubernetes.io/component"
    ),
}


def first(objects: list[Object], kind: str) -> Object:
    """Return the spec of the first object of a kind."""
    spec: Object = of(objects, kind)[0]["spec"]
    return spec


def pod(objects: list[Object], kind: str = "Deployment") -> Object:
    spec: Object = first(objects, kind)["template"]["spec"]
    return spec


def container(objects: list[Object], kind: str = "Deployment") -> Object:
    return staying(pod(objects, kind))[0]


@pytest.mark.parametrize("case", CASES)
def test_only_workloads_that_run_the_model_name_it(case: str, rendered: dict[str, list[Object]]) -> None:
    """A new model changes nothing else, and no selector, which could not be changed."""
    named = {item["metadata"]["name"] for item in rendered[case] if SHA256[:12] in str(item)}
    running = {
        item["metadata"]["name"]
        for item in of(rendered[case], "Deployment", "CronJob", "Job")
        if any(map(model_runs, pod_templates([item]))) or item["kind"] == "Job"
    }
    assert named == running
    labelled = {item["metadata"]["name"] for item in rendered[case] if VERSION in item["metadata"].get("labels", {})}
    assert labelled == running
    keys = ("selector", "podSelector", "matchLabels", "labelSelector")
    assert not [each for key in keys for each in found(rendered[case], key) if VERSION in str(each)]


def test_a_release_that_no_workload_runs_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    deployment = tmp_path / "k8s/base/deployment.yaml"
    deployment.write_text(deployment.read_text().replace('runs-model: "true"', 'runs-model: "false"'))
    with pytest.raises(ProjectError, match="k8s/overlays/production: no workload has the annotation runs-model"):
        render(SHA256, "production", tmp_path)


@pytest.mark.parametrize("environment", OVERLAYS)
def test_a_new_model_changes_a_dozen_lines(environment: str) -> None:
    """Of the objects in this project's own overlays, whose image has the model's version as its tag."""
    old, new = (render(each * 64, environment) for each in "12")
    old = {name: text.replace(IMAGE.encode(), f"{IMAGE.partition('@')[0]}:old".encode()) for name, text in old.items()}
    lines = manifests.changes(old, new)
    assert len(lines) <= 15
    assert {line.split()[1].rpartition(".")[2].rstrip(":") for line in lines if line[0] == "+"} == {
        "image",
        "io/version",
        "model-sha256",
    }
    assert manifests.changes(new, new) == []


@pytest.mark.parametrize("start", ["1e0000000002", "123456789012", "000000000000"])
def test_a_version_that_reads_like_a_number_is_a_text(start: str) -> None:
    objects = list(map(yaml.safe_load, render(start.ljust(64, "0"), "production").values()))
    [server] = of(objects, "Deployment")
    assert [each["labels"][VERSION] for each in (server["metadata"], server["spec"]["template"]["metadata"])] == [
        start,
        start,
    ]
    assert server["spec"]["template"]["metadata"]["annotations"]["model-sha256"] == start.ljust(64, "0")


@pytest.mark.parametrize("case", CASES)
def test_a_sync_waits_for_nothing(case: str, rendered: dict[str, list[Object]]) -> None:
    """No hook and no wave, not even in a pod's template; nothing of Argo CD's or Helm's is needed.

    It waits until what it removes is gone: the Job of the release before, with its pod.
    """
    pods = [item["spec"]["template"]["spec"] for item in of(rendered[case], "Job")]
    assert all(pod["terminationGracePeriodSeconds"] <= 5 for pod in pods)
    keys = {key for annotations in found(rendered[case], "annotations") for key in annotations}
    assert not [key for key in keys if key.startswith(("argocd.argoproj.io/", "helm.sh/"))]


@pytest.mark.parametrize("case", CASES)
def test_a_release_removes_nothing_that_the_pods_before_it_need(case: str, cases: Path) -> None:
    """They may start anew until they are replaced. PruneLast, which would keep it until then, makes a sync wait."""

    def names(sha256: str) -> set[tuple[str, str]]:
        objects = [yaml.safe_load(text) for text in render(sha256, case, cases).values()]
        return {(item["kind"], item["metadata"]["name"]) for item in objects}

    before = names("1" * 64)
    texts = {path: path.read_text() for path in cases.glob("k8s/components/*/settings.env")}
    assert len(texts) == 2
    for path, text in texts.items():
        path.write_text(text.replace("s3://", "s3://another-") + "MORE=1\n")
    try:
        assert {kind for kind, _ in before ^ names("2" * 64)} <= {"Job"}
    finally:
        for path, text in texts.items():
            path.write_text(text)


def test_another_address_of_the_request_log_makes_new_pods(cases: Path) -> None:
    """Though its ConfigMap keeps its name: a pod reads it when it starts."""

    def template() -> Object:
        objects = [yaml.safe_load(text) for text in render("1" * 64, "with-request-log", cases).values()]
        [deployment] = of(objects, "Deployment")
        found: Object = deployment["spec"]["template"]
        return found

    before = template()
    path = cases / "k8s/components/request-log/settings.env"
    text = path.read_text()
    path.write_text(text.replace("s3://", "s3://another-"))
    try:
        assert template() != before
    finally:
        path.write_text(text)


def scaled(objects: list[Object]) -> list[Object]:
    """Return the Deployments with more than one pod: what autoscalers scale, or a Rollout of the same name."""
    targets = [
        item["spec"]["scaleTargetRef"]["name"] for item in of(objects, "HorizontalPodAutoscaler", "ScaledObject")
    ]
    deployments = [item for item in of(objects, "Deployment") if item["metadata"]["name"] in targets]
    assert len(deployments) == len(targets) >= 1
    return deployments


def seconds(template: Object) -> int:
    """Return how long a pod may take to start, by its startup probes: a sidecar's holds up what comes after it."""
    probes = [each["startupProbe"] for each in staying(template["spec"])]
    return sum(each.get("initialDelaySeconds", 0) + each["periodSeconds"] * each["failureThreshold"] for each in probes)


@pytest.mark.parametrize("case", CASES)
def test_a_release_that_does_not_start_is_told_in_time(case: str, rendered: dict[str, list[Object]]) -> None:
    """Not before the slowest start that the startup probe allows, and a minute for node and image.

    A Rollout aborts then, for good, so a node may be added in the meantime.
    """
    objects = rendered[case]
    answering = scaled(objects)
    for spec in [deployment["spec"] for deployment in of(objects, "Deployment")]:
        assert spec["progressDeadlineSeconds"] == seconds(spec["template"]) + 60
    for spec in [deployment["spec"] for deployment in answering]:
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}  # the old pods stay
    for item in of(objects, "Rollout"):
        template = answering[0]["spec"]["template"]
        assert item["spec"]["workloadRef"]["name"] == answering[0]["metadata"]["name"]
        assert item["spec"]["progressDeadlineSeconds"] == seconds(template) + 180
        assert item["spec"]["progressDeadlineAbort"] is True


@pytest.mark.parametrize("case", CASES)
def test_every_pod_of_the_projects_images_can_pull_them(case: str, rendered: dict[str, list[Object]]) -> None:
    """From a private registry: with the Secret that its ServiceAccount names."""
    [account] = of(rendered[case], "ServiceAccount")
    assert account["imagePullSecrets"] == [{"name": "registry"}]
    pods = [template["spec"] for template in pod_templates(rendered[case])]
    own = [
        pod
        for pod in pods
        if any(
            each["image"] == IMAGE or UNSET.match(each["image"])
            for each in [*pod["containers"], *pod.get("initContainers", [])]
        )
    ]
    assert own
    assert {pod.get("serviceAccountName") for pod in own} == {account["metadata"]["name"]}


@pytest.mark.parametrize("case", [case for case in CASES if case != "staging"])
def test_a_drain_never_takes_the_last_pod_in_production(case: str, rendered: dict[str, list[Object]]) -> None:
    objects = rendered[case]
    least = {}  # pods of each component
    for item in of(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        [workload] = [
            each for each in scaled(objects) if each["metadata"]["name"] == item["spec"]["scaleTargetRef"]["name"]
        ]
        component = workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        least[component] = item["spec"].get("minReplicas") or item["spec"]["minReplicaCount"]
    budgets = {
        item["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: item["spec"]["maxUnavailable"]
        for item in of(objects, "PodDisruptionBudget")
    }
    assert budgets.keys() == least.keys() >= {"server"}
    assert all(least[component] - taken >= 1 for component, taken in budgets.items())


@pytest.mark.parametrize("case", CASES)
def test_pods_are_spread_over_hosts_and_zones(case: str, rendered: dict[str, list[Object]]) -> None:
    """Those of each release by themselves: by the label of the Deployment, or of the Rollout, that makes them.

    The scheduler ignores a node without zone in all topologySpreadConstraints, so hosts are not among these.
    """
    label = "rollouts-pod-template-hash" if of(rendered[case], "Rollout") else "pod-template-hash"
    for deployment in scaled(rendered[case]):
        template = deployment["spec"]["template"]
        server = staying(template["spec"])[0]["name"] == "model-server"
        [preferred] = template["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        hosts, [zones] = preferred["podAffinityTerm"], template["spec"]["topologySpreadConstraints"]
        assert hosts["topologyKey"] == "kubernetes.io/hostname"
        assert (zones["topologyKey"], zones["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "ScheduleAnyway")
        for each in (hosts, zones):
            assert fits(each["labelSelector"]["matchLabels"], template)
            assert (label if server else "pod-template-hash") in each["matchLabelKeys"]


def backfill(project: Path, sha256: str = SHA256) -> tuple[Object, dict[str, bytes]]:
    files = render(sha256, "production", project)
    [(name, text)] = [(name, text) for name, text in files.items() if name.startswith("batch_v1_job_")]
    item: Object = yaml.safe_load(text)
    assert name == f"batch_v1_job_{item['metadata']['name']}.yaml"
    return item, files


def test_a_job_with_another_spec_is_another_job(tmp_path: Path) -> None:
    """Kubernetes refuses a change of a Job's spec: a release, or a rollback, would fail as a whole."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/production"
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "import", "annotations": {"runs-model": "true"}},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a:1"}]}}},
    }
    (overlay / "job.yaml").write_text(yaml.safe_dump(job))
    settings = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump(settings | {"resources": [*settings["resources"], "job.yaml"]})
    )
    first, files = backfill(tmp_path)
    again, _ = backfill(tmp_path)
    model, others = backfill(tmp_path, "1e0000000002".ljust(64, "0"))
    (overlay / "job.yaml").write_text(yaml.safe_dump(job).replace("a:1", "a:2"))
    image, _ = backfill(tmp_path)
    names = [each["metadata"]["name"] for each in (first, again, model, image)]
    assert names[0] == names[1] and len({*names}) == 3
    assert all(re.fullmatch("import-[2456789bcdfghkmt]{10}", name) for name in names)
    assert model["metadata"]["labels"][VERSION] == "1e0000000002"
    assert f"@@ Job {names[2]} @@" in manifests.changes(files, others)  # compared, not one that came and one that went


@pytest.mark.parametrize("case", CASES)
def test_names_are_short_enough_with_the_longest_name_of_a_project(
    case: str, rendered: dict[str, list[Object]]
) -> None:
    """Kubernetes allows 52 characters for a CronJob's name, and 63 where a name is a label or a part of an address."""
    slug = of(rendered[case], "ServiceAccount")[0]["metadata"]["name"]
    for item in rendered[case]:
        length = len(item["metadata"]["name"]) - len(slug) + 40  # hooks/pre_gen_project.py allows 40
        assert length <= (52 if item["kind"] == "CronJob" else 63), item["metadata"]["name"]


def test_request_log_leaves_the_pod(rendered: dict[str, list[Object]]) -> None:
    """To an address that the server alone may reach; without the component it stays in the pod."""
    plain, kept = rendered["production"], rendered["with-request-log"]
    assert variables(plain, "Deployment")["REQUEST_LOG"].startswith("/logs/")
    assert "envFrom" not in container(plain)
    assert "REQUEST_LOG" not in variables(kept, "Deployment"), "it would hide the address in settings.env"
    [settings] = [item for item in of(kept, "ConfigMap") if "REQUEST_LOG" in item["data"]]
    assert settings["data"]["REQUEST_LOG"].startswith("s3://")
    assert container(kept)["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
    assert not [item for item in of(plain, "NetworkPolicy") if {"port": 443} in found_ports(item)]
    [server] = [item for item in of(kept, "NetworkPolicy") if {"port": 443} in found_ports(item)]
    assert fits(server["spec"]["podSelector"]["matchLabels"], first(kept, "Deployment")["template"])


def variables(objects: list[Object], kind: str) -> dict[str, Any]:
    """Return the variables of the container, null where the value is not written out."""
    return {each["name"]: each.get("value") for each in container(objects, kind)["env"]}


def test_the_monitors_metrics_are_read_where_the_log_is(tmp_path: Path) -> None:
    """One setting, however the components are ordered; the pod's policy lets it read there, and Prometheus in."""
    for part in ("k8s", "serving"):
        shutil.copytree(ROOT / part, tmp_path / part)
    overlay = tmp_path / "k8s/overlays/production/kustomization.yaml"
    settings = yaml.safe_load(overlay.read_text())
    for names in (("request-log", "drift-metrics"), ("drift-metrics", "request-log")):
        components = [f"../../components/{name}" for name in names]
        overlay.write_text(yaml.safe_dump(settings | {"components": components}))
        objects = list(map(yaml.safe_load, render(SHA256, "production", tmp_path).values()))
        [server, reader] = sorted(of(objects, "Deployment"), key=lambda item: len(item["metadata"]["name"]))
        [address] = [item for item in of(objects, "ConfigMap") if "REQUEST_LOG" in item["data"]]
        for each in (server, reader):
            [source] = staying(each["spec"]["template"]["spec"])[0]["envFrom"]
            assert source["configMapRef"]["name"] == address["metadata"]["name"]
        [only] = reader["spec"]["template"]["spec"]["containers"]
        assert only["command"] == ["python", "-m", drift_metrics.__name__]
        assert [each["containerPort"] for each in only["ports"]] == [drift_metrics.PORT]
        [policy] = [
            item["spec"] for item in of(objects, "NetworkPolicy") if "drift-metrics" in item["metadata"]["name"]
        ]
        assert fits(policy["podSelector"]["matchLabels"], reader["spec"]["template"])
        [rule] = policy["ingress"]
        assert rule["ports"] == [{"port": drift_metrics.PORT}]
        assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def found_ports(policy: Object) -> list[Object]:
    return [port for rule in policy["spec"].get("egress", []) for port in rule["ports"]]


def test_pods_that_reach_the_cloud_reach_its_credentials(rendered: dict[str, list[Object]]) -> None:
    """Those of their ServiceAccount, which Google's and Amazon's nodes serve at a fixed address."""
    out = [
        item["spec"]["egress"]
        for case in CASES
        for item in of(rendered[case], "NetworkPolicy")
        if {"port": 443} in found_ports(item)
    ]
    assert len(out) >= 2
    for rules in out:
        addresses = [each["ipBlock"]["cidr"] for rule in rules for each in rule.get("to", []) if "ipBlock" in each]
        assert addresses == ["169.254.169.254/32", "169.254.170.23/32"]


@pytest.mark.parametrize("flaw", BREAK)
def test_a_flaw_is_found(flaw: str, rendered: dict[str, list[Object]]) -> None:
    broken = copy.deepcopy(rendered["with-canary"])
    assert flaw not in flaws(broken)
    BREAK[flaw](broken)
    assert flaw in flaws(broken)


def test_a_batch_takes_the_released_model_out_of_the_servers_image(rendered: dict[str, list[Object]]) -> None:
    jobs = {item["metadata"]["name"].rpartition("-")[2]: item["spec"] for item in of(rendered["with-jobs"], "CronJob")}
    assert jobs.keys() == {"batch", "compact", "monitor", "tune"}
    template = jobs["batch"]["jobTemplate"]["spec"]["template"]
    [model], [job] = template["spec"]["initContainers"], template["spec"]["containers"]
    assert model["image"] == IMAGE
    assert {"name": "model", "mountPath": "/model"} in model["volumeMounts"]
    assert job["args"][0:2] == ["gitops.inference.batch", "--archive"] and job["args"][2] in model["command"][-1]
    assert checks_its_model(template)
    assert jobs["tune"]["suspend"] is True
    assert all(spec["concurrencyPolicy"] == "Forbid" for spec in jobs.values())


def test_canary_takes_the_pods_of_the_release(rendered: dict[str, list[Object]]) -> None:
    """The Deployment's pods, with the release's image and digest; autoscaler and analysis refer to the Rollout."""
    objects = rendered["with-canary"]
    [deployment], [rollout], [scaler] = (
        of(objects, kind) for kind in ("Deployment", "Rollout", "HorizontalPodAutoscaler")
    )
    assert rollout["spec"]["workloadRef"]["name"] == deployment["metadata"]["name"]
    assert scaler["spec"]["scaleTargetRef"]["kind"] == "Rollout"
    [template] = of(objects, "AnalysisTemplate")
    used = {each["templateName"] for each in found(rollout, "templates") for each in each}
    assert used == {template["metadata"]["name"]}
    conditions = {
        each["name"]: each["successCondition"] for each in template["spec"]["metrics"] if "job" not in each["provider"]
    }
    assert {*conditions} == {"errors", "predictions"}
    assert "len(result) > 0" in conditions["errors"] and "!isNaN" in conditions["errors"]
    assert conditions["predictions"] == "len(result) == 0 || isNaN(result[0]) || result[0] <= 1"  # nothing to compare


def test_argo_cd_may_apply_what_is_rendered(rendered: dict[str, list[Object]]) -> None:
    done = subprocess.run([*_kustomize(), str(ROOT / "k8s/argocd")], capture_output=True, text=True, check=True)
    objects = list(yaml.safe_load_all(done.stdout))
    [application], [project] = of(objects, "Application"), of(objects, "AppProject")
    assert application["spec"]["project"] == project["metadata"]["name"]
    assert application["spec"]["source"]["repoURL"] in project["spec"]["sourceRepos"]
    assert application["spec"]["destination"] in project["spec"]["destinations"]
    assert "*" not in str(project["spec"])
    assert "ignoreDifferences" not in application["spec"]
    allowed = {(entry["group"], entry["kind"]) for entry in project["spec"]["namespaceResourceWhitelist"]}
    for case, them in rendered.items():
        used = {(item["apiVersion"].rpartition("/")[0], item["kind"]) for item in them}
        assert used <= allowed, case


def _kustomize() -> list[str]:
    """Return the command that renders a folder, found as the project's commands find it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kustomize, "PROGRAM", ROOT / kustomize.PROGRAM)
        return list(kustomize._program())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of all metrics of a real server, which needs no model for that, the handler's and the reverse proxy's."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "store").mkdir()
    ports = free_ports(5)
    addresses = [
        f"{name}_address=http://127.0.0.1:{port}"
        for name, port in zip(("inference", "management", "metrics"), ports[:3], strict=True)
    ]
    addresses += [f"grpc_{name}_port={port}" for name, port in zip(("inference", "management"), ports[3:], strict=True)]
    settings = (ROOT / "serving/config.properties").read_text()
    (folder / "config.properties").write_text("\n".join([settings, *addresses, ""]))
    for name in ("haproxy.cfg", "log4j2.xml"):
        shutil.copy(ROOT / "serving" / name, folder)
    python = ROOT / ".venv/serve/bin/python"
    command = [python, "-m", "gitops.serving.server.start", "config.properties", "store"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TS_", "PYTHON"))}
    environment = inherited | {"PYTHONPATH": str(ROOT / "src"), "TEMP": str(folder), "TMPDIR": str(folder)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, process_group=0)
    try:
        server_metrics = _names(f"http://127.0.0.1:{ports[2]}/metrics", time.monotonic() + 60)
        return {*METRICS} | server_metrics | _proxy_metrics(folder)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _proxy_metrics(folder: Path) -> set[str]:
    """Return the names of HAProxy's metrics, as the ServiceMonitor asks for them."""
    if (haproxy := reverse_proxy.program()) is None:
        pytest.skip("needs haproxy: `make packages` installs it")
    first, metrics = free_ports(2)
    places = {"PREDICTIONS": first, "METRICS": metrics, "TORCHSERVE": first, "TORCHSERVE_METRICS": first}
    environment = {name: f"127.0.0.1:{port}" for name, port in places.items()}
    start.write_documents(folder / "store", folder)
    environment["DOCUMENTS"] = str(folder)
    environment["SERVER_CODE"] = str(ROOT / "src/gitops/serving/server")
    with subprocess.Popen([haproxy, "-db", "-f", "haproxy.cfg"], cwd=folder, env=environment) as process:
        try:
            address = f"http://127.0.0.1:{metrics}/metrics/proxy?scope=frontend&scope=backend"
            return _names(address, time.monotonic() + 20)
        finally:
            process.kill()


def _names(address: str, deadline: float) -> set[str]:
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                return set(re.findall(r"^# TYPE (\w+)", response.read().decode(), re.MULTILINE))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def metrics_of(query: str) -> set[str]:
    """Return the metrics that a query names, in PromQL or in Grafana's label_values()."""
    bare = re.sub(r"\{[^}]*\}|\[\w+\]|\b(?:on|by|group_left) \([^)]*\)", "", query.replace("{{", "").replace("}}", ""))
    return set(re.findall(r"\b[A-Za-z_][\w:]*", bare)) - WORDS


def test_metrics_of_a_query() -> None:
    query = (
        'sum by (job, pod) (rate(a_b{j="x-y",z=~".+-{{args.h}}-.+"}[5m])) / on (c) (time() - max(B5) or vector(0)) > 9'
    )
    assert metrics_of(query) == {"a_b", "B5"}
    assert metrics_of('label_values(A{job="x"}, namespace)') == {"A"}


@pytest.mark.parametrize("case", CASES)
def test_queried_metrics_exist(case: str, rendered: dict[str, list[Object]], exported: set[str]) -> None:
    objects = rendered[case]
    boards = [
        yaml.safe_load(text)
        for item in of(objects, "ConfigMap")
        for name, text in item["data"].items()
        if name.endswith(".json")
    ]
    queries = [
        *found(of(objects, "PrometheusRule", "AnalysisTemplate"), "expr"),
        *found(objects, "query"),
        *found(boards, "expr"),
    ]
    queries += [each for each in found(boards, "query") if each.startswith("label_values")]
    named = set().union(*map(metrics_of, queries))
    assert named <= exported | OTHERS | {*found(of(objects, "PrometheusRule"), "record")}
    if case == "with-monitoring":
        assert {"haproxy_frontend_http_responses_total", "model_request_seconds_bucket", "up"} <= named
