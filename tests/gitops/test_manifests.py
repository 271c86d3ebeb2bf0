"""The Kubernetes objects: what every overlay and component must hold to, and that its metrics are TorchServe's own."""

from __future__ import annotations

import copy
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml
from conftest import ROOT
from gitops.integrations import kustomize

IMAGE = f"registry.example/model@sha256:{'a' * 64}"
SHA256 = "b" * 64

#: What stands for the digest of the jobs' image, until somebody has built it.
UNSET = re.compile(r"^[a-z0-9./-]+-jobs(:unset|@sha256:[0-9a-f]{64})$")

#: What Prometheus, kube-state-metrics and the monitor (test_monitor.py) say, beside TorchServe.
OTHERS = {
    "up",
    "kube_replicaset_created",
    "kube_replicaset_owner",
    "kube_replicaset_spec_replicas",
    "kube_service_info",
    "model_monitor_last_run_timestamp_seconds",
    "model_monitor_status",
}

#: What stands in a query and is no metric.
WORDS = {
    "and",
    "by",
    "histogram_quantile",
    "increase",
    "label_values",
    "max",
    "namespace",
    "on",
    "or",
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
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """A release of each overlay, and of production with each component alone."""
    folder = tmp_path_factory.mktemp("manifests")
    shutil.copytree(ROOT / "k8s", folder / "k8s")
    shutil.copytree(ROOT / "serving", folder / "serving")
    overlays = folder / "k8s/overlays"
    settings = yaml.safe_load((overlays / "production/kustomization.yaml").read_text())
    for component in COMPONENTS:
        (overlays / f"with-{component}").mkdir()
        alone = yaml.safe_dump(settings | {"components": [f"../../components/{component}"]})
        (overlays / f"with-{component}/kustomization.yaml").write_text(alone)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(kustomize, "PROGRAM", ROOT / kustomize.PROGRAM)
        renders = {case: kustomize.render(IMAGE, "toy", SHA256, case) for case in CASES}
    return {case: [yaml.safe_load(text) for text in files.values()] for case, files in renders.items()}


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


def pod_flaws(objects: list[Object]) -> dict[str, bool]:
    """Return what no pod may be, and whether one is."""
    templates = pod_templates(objects)
    pods = [each["spec"] for each in templates]
    containers = [each for pod in pods for each in [*pod["containers"], *pod.get("initContainers", [])]]
    contexts = [each.get("securityContext", {}) for each in containers]
    servers = [each for each in containers if each["name"] == "model-server"]
    digest = {"name": "MODEL_SHA256", "value": SHA256}
    selectors = [item["spec"]["podSelector"]["matchLabels"] for item in of(objects, "NetworkPolicy")]
    return {
        "no model's digest": not servers or any(digest not in each["env"] for each in servers),
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
    """Return what may not be reached, and whether it is."""
    ports = [port for key in ("port", "containerPort", "targetPort") for port in found(objects, key)]
    policies = [item["spec"] for item in of(objects, "NetworkPolicy")]
    metrics = [rule["from"] for each in policies for rule in each.get("ingress", []) if {"port": 8082} in rule["ports"]]
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    others = [each for each in pod_templates(objects) if each["spec"]["containers"][0]["name"] != "model-server"]
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
    """Return what an environment's objects must not be, and are."""
    targets = [item["spec"]["scaleTargetRef"] for item in of(objects, "HorizontalPodAutoscaler", "ScaledObject")]
    there = {(item["kind"], item["metadata"]["name"]) for item in objects}
    scaling = {
        "replicas in git": any("replicas" in item["spec"] for item in of(objects, "Deployment", "Rollout")),
        "scales what is not there": any((each["kind"], each["name"]) not in there for each in targets),
    }
    every = pod_flaws(objects) | network_flaws(objects) | scaling
    return {name for name, is_so in every.items() if is_so}


@pytest.mark.parametrize("case", CASES)
def test_objects_hold_to_the_rules(case: str, rendered: dict[str, list[Object]]) -> None:
    assert flaws(rendered[case]) == set()


def _pod(objects: list[Object], kind: str = "Deployment") -> Object:
    [item] = of(objects, kind)
    pod: Object = item["spec"]["template"]["spec"]
    return pod


BREAK: dict[str, Callable[[list[Object]], object]] = {
    "replicas in git": lambda them: first(them, "Deployment").update(replicas=2),
    "scales what is not there": lambda them: first(them, "HorizontalPodAutoscaler")["scaleTargetRef"].update(name="x"),
    "the management port is open": lambda them: first(them, "Service")["ports"].append({"port": 8081}),
    "no model's digest": lambda them: container(them)["env"].clear(),
    "another image": lambda them: container(them, "Job").update(image="python"),
    "may be root": lambda them: pod(them)["securityContext"].pop("runAsNonRoot"),
    "no seccomp profile": lambda them: pod(them, "Job")["securityContext"].pop("seccompProfile"),
    "a token": lambda them: pod(them, "Job").pop("automountServiceAccountToken"),
    "a root that can be written": lambda them: container(them)["securityContext"].pop("readOnlyRootFilesystem"),
    "privileges": lambda them: container(them)["securityContext"].update(allowPrivilegeEscalation=True),
    "capabilities": lambda them: container(them)["securityContext"]["capabilities"].update(add=["ALL"]),
    "no resources": lambda them: container(them).pop("resources"),
    "a pod without policy": lambda them: them.remove(of(them, "NetworkPolicy")[0]),
    "a policy for one direction": lambda them: first(them, "NetworkPolicy")["policyTypes"].pop(),
    "metrics for anyone": lambda them: of(them, "NetworkPolicy")[-1]["spec"]["ingress"][1].update({"from": []}),
    "a Service sends requests to other pods": lambda them: first(them, "Service")["selector"].pop(
        "app.kubernetes.io/component"
    ),
}


def first(objects: list[Object], kind: str) -> Object:
    """Return what the first object of a kind asks for."""
    spec: Object = of(objects, kind)[0]["spec"]
    return spec


def pod(objects: list[Object], kind: str = "Deployment") -> Object:
    spec: Object = first(objects, kind)["template"]["spec"]
    return spec


def container(objects: list[Object], kind: str = "Deployment") -> Object:
    only: Object = pod(objects, kind)["containers"][0]
    return only


def test_request_log_leaves_the_pod(rendered: dict[str, list[Object]]) -> None:
    """To an address, with the way there open for the server alone; without the component it stays in the pod."""
    plain, kept = rendered["production"], rendered["with-request-log"]
    address = [
        {each["name"]: each["value"] for each in container(them)["env"]}["REQUEST_LOG"] for them in (plain, kept)
    ]
    assert address[0].startswith("/logs/")
    assert address[1].startswith("s3://")
    assert not [item for item in of(plain, "NetworkPolicy") if {"port": 443} in found_ports(item)]
    [server] = [item for item in of(kept, "NetworkPolicy") if {"port": 443} in found_ports(item)]
    assert fits(server["spec"]["podSelector"]["matchLabels"], first(kept, "Deployment")["template"])


def found_ports(policy: Object) -> list[Object]:
    return [port for rule in policy["spec"].get("egress", []) for port in rule["ports"]]


def test_who_goes_to_the_cloud_may_get_the_credentials_for_it(rendered: dict[str, list[Object]]) -> None:
    """Of its ServiceAccount: on Google's and Amazon's nodes these are at an address of their own."""
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
    broken = copy.deepcopy(rendered["with-monitoring"])
    assert flaw not in flaws(broken)
    BREAK[flaw](broken)
    assert flaw in flaws(broken)


def test_a_batch_takes_the_released_model_out_of_the_servers_image(rendered: dict[str, list[Object]]) -> None:
    jobs = {item["metadata"]["name"].rpartition("-")[2]: item["spec"] for item in of(rendered["with-jobs"], "CronJob")}
    assert jobs.keys() == {"batch", "monitor", "tune"}
    template = jobs["batch"]["jobTemplate"]["spec"]["template"]
    [model], [job] = template["spec"]["initContainers"], template["spec"]["containers"]
    assert model["image"] == IMAGE
    assert {"name": "model", "mountPath": "/model"} in model["volumeMounts"]
    assert job["args"][0:2] == ["batch", "--archive"] and job["args"][2] in model["command"][-1]
    assert template["metadata"]["annotations"]["model-sha256"] == SHA256
    [digest] = [each for each in job["env"] if each["name"] == "MODEL_SHA256"]
    assert digest["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.annotations['model-sha256']"
    assert jobs["tune"]["suspend"] is True
    assert all(spec["concurrencyPolicy"] == "Forbid" for spec in jobs.values())


def test_canary_takes_the_pods_of_the_release(rendered: dict[str, list[Object]]) -> None:
    """Its pods are the Deployment's, with the release's image and digest; the autoscaler and the analysis follow it."""
    objects = rendered["with-canary"]
    [deployment], [rollout], [scaler] = (
        of(objects, kind) for kind in ("Deployment", "Rollout", "HorizontalPodAutoscaler")
    )
    assert rollout["spec"]["workloadRef"]["name"] == deployment["metadata"]["name"]
    assert scaler["spec"]["scaleTargetRef"]["kind"] == "Rollout"
    [template] = of(objects, "AnalysisTemplate")
    used = {each["templateName"] for each in found(rollout, "templates") for each in each}
    assert used == {template["metadata"]["name"]}
    conditions = list(found(template, "successCondition"))
    assert conditions
    assert all("len(result) > 0" in condition and "isNaN" in condition for condition in conditions)


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
    """Return the command that renders a folder, as the project's commands find it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kustomize, "PROGRAM", ROOT / kustomize.PROGRAM)
        return list(kustomize._program())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of all metrics of a real server, which needs no model for that, and the handler's (test_serving.py)."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "store").mkdir()
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(5)]
        ports = [listener.getsockname()[1] for listener in listeners]
    addresses = [
        f"{name}_address=http://127.0.0.1:{port}"
        for name, port in zip(("inference", "management", "metrics"), ports[:3], strict=True)
    ]
    addresses += [f"grpc_{name}_port={port}" for name, port in zip(("inference", "management"), ports[3:], strict=True)]
    settings = (ROOT / "serving/config.properties").read_text()
    (folder / "config.properties").write_text("\n".join([settings, *addresses, ""]))
    command = [ROOT / ".venv/serve/bin/python", ROOT / "serving/start.py", "config.properties", "store"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TS_", "PYTHON"))}
    environment = inherited | {"TEMP": str(folder), "TMPDIR": str(folder)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, process_group=0)
    try:
        own = set(runpy.run_path(str(ROOT / "serving/serving_metrics.py"))["METRICS"])
        return own | _names(f"http://127.0.0.1:{ports[2]}/metrics", time.monotonic() + 60)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _names(address: str, deadline: float) -> set[str]:
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                return set(re.findall(r"^# TYPE (\w+)", response.read().decode(), re.MULTILINE))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def asked(query: str) -> set[str]:
    """Return the metrics that a query names, in PromQL or in Grafana's label_values()."""
    bare = re.sub(r"\{[^}]*\}|\[\w+\]|\b(?:on|by) \([^)]*\)", "", query.replace("{{", "").replace("}}", ""))
    return set(re.findall(r"\b[A-Za-z_]\w*", bare)) - WORDS


def test_queries_are_read_right() -> None:
    query = (
        'sum by (job, pod) (rate(a_b{j="x-y",z=~".+-{{args.h}}-.+"}[5m])) / on (c) (time() - max(B5) or vector(0)) > 9'
    )
    assert asked(query) == {"a_b", "B5"}
    assert asked('label_values(A{job="x"}, namespace)') == {"A"}


@pytest.mark.parametrize("case", CASES)
def test_metrics_that_are_asked_for_exist(case: str, rendered: dict[str, list[Object]], exported: set[str]) -> None:
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
    named = set().union(*map(asked, queries))
    assert named <= exported | OTHERS
    if case == "with-monitoring":
        assert {"Requests5XX", "ts_inference_latency_microseconds", "model_request_seconds_bucket", "up"} <= named
