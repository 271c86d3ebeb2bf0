"""The cluster of `make end-to-end` (kind, Argo CD) and what is asked of it; paths and environment are the demo's."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import demo
import yaml

CLUSTER = "gitops-mlops"
KIND_NODE = "kindest/node:v1.35.8@sha256:07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0"
ARGO_CD = "https://raw.githubusercontent.com/argoproj/argo-cd/v3.5.8/manifests/install.yaml"
#: What measures pods for their autoscaler, and the kinds of the Prometheus operator, which itself is not needed.
METRICS_SERVER = "https://github.com/kubernetes-sigs/metrics-server/releases/download/v0.8.1/components.yaml"
PROMETHEUS = (
    "https://raw.githubusercontent.com/prometheus-operator/prometheus-operator/v0.84.1/example/prometheus-operator-crd"
)
KINDS = ("prometheusrules", "servicemonitors")

#: What has to run before an Application is looked at.
PARTS = ("statefulset/argocd-application-controller", "deployment/argocd-repo-server", "deployment/argocd-redis")

NAME = demo.PROJECT.name
NAMESPACE = NAME  # as k8s/argocd has it
LOGS = demo.DEMO / "logs"

#: What tells why it failed: file -> command.
EVIDENCE = {
    "objects.txt": "kubectl get all,events --all-namespaces",
    "application.yaml": "kubectl --namespace argocd get applications --output yaml",
    "controller.txt": "kubectl --namespace argocd logs statefulset/argocd-application-controller --tail 300",
    "repo-server.txt": "kubectl --namespace argocd logs deployment/argocd-repo-server --tail 300",
    "pods.txt": f"kubectl --namespace {NAMESPACE} describe pods",
    "model-server.txt": f"kubectl --namespace {NAMESPACE} logs --selector app.kubernetes.io/name={NAME} --tail 300",
}


def make() -> None:
    """Make the cluster anew, with Argo CD in it."""
    demo.step(
        "make the cluster",
        f"kind delete cluster --quiet --name {CLUSTER}",
        f"kind create cluster --name {CLUSTER} --image {KIND_NODE} --wait 180s",
    )
    argo_cd = "kubectl --namespace argocd"
    demo.step(
        "install Argo CD",
        "kubectl create namespace argocd",
        f"{argo_cd} apply --server-side --force-conflicts --filename {ARGO_CD} >/dev/null",
        *(f"{argo_cd} rollout status {part} --timeout 300s" for part in PARTS),
    )
    insecure = '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kubelet-insecure-tls"}]'
    demo.step(
        "install metrics-server and the Prometheus operator's kinds",
        f"kubectl apply --filename {METRICS_SERVER} >/dev/null",
        f"kubectl --namespace kube-system patch deployment metrics-server --type json --patch '{insecure}'",
        "kubectl --namespace kube-system rollout status deployment/metrics-server --timeout 300s",
        *(f"kubectl apply --server-side --filename {PROMETHEUS}/monitoring.coreos.com_{kind}.yaml" for kind in KINDS),
    )


def delete() -> None:
    """Delete the cluster, where there is one."""
    subprocess.run(["kind", "delete", "cluster", "--name", CLUSTER], env=demo.ENVIRONMENT, check=False)


def gateway() -> str:
    """Return the address by which the cluster reaches this machine: that of the bridge between its nodes."""
    found = output("docker", "network", "inspect", "kind", "--format", "{{json .IPAM.Config}}")
    return str(next(entry["Gateway"] for entry in json.loads(found) if "." in entry.get("Gateway", "")))


def follow(origin: str) -> None:
    """Have Argo CD follow the repository at `origin`, by the project's own k8s/argocd with that address in it."""
    objects = list(yaml.safe_load_all(output("kubectl", "kustomize", str(demo.PROJECT / "k8s/argocd"))))
    for entry in objects:
        if entry["kind"] == "Application":
            entry["spec"]["source"]["repoURL"] = origin
        elif entry["kind"] == "AppProject":
            entry["spec"]["sourceRepos"] = [origin]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    subprocess.run(["kubectl", "apply", "--filename", "-"], input=text, text=True, env=demo.ENVIRONMENT, check=True)


def wait_for_sync(commit: str, deadline: float) -> None:
    """Have Argo CD look at once, and wait until it has applied `commit`, all is healthy and the smoke test passed.

    Raises SystemExit with Argo CD's word where that is not so at `deadline`, of time.monotonic().
    """
    argo_cd = ("kubectl", "--namespace", "argocd")
    output(*argo_cd, "annotate", "application", NAME, "argocd.argoproj.io/refresh=normal", "--overwrite")
    wanted, said = f"Synced {commit[:12]} Healthy Succeeded", ""
    while said != wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"Argo CD says {said!r}; {wanted!r} was to come")
        status = json.loads(output(*argo_cd, "get", "application", NAME, "--output", "json")).get("status", {})
        sync, health = status.get("sync", {}), status.get("health", {})
        phase = status.get("operationState", {}).get("phase")
        now = f"{sync.get('status')} {sync.get('revision', '')[:12]} {health.get('status')} {phase}"
        if now != said:
            print(now, *(condition.get("message") for condition in status.get("conditions", [])), flush=True)
        said = now
        time.sleep(2)
    deployment = f"deployment/{NAME}"
    print(output("kubectl", "--namespace", NAMESPACE, "rollout", "status", deployment, "--timeout", "300s"), flush=True)


def wait_for_answer(model: str, version: str, deadline: float) -> None:
    """Ask until model `version` answers: a pod of the release before may still be on its way out.

    Raises SystemExit where another or none does at `deadline`, of time.monotonic().
    """
    while True:
        try:
            answer = ask(model)
            print(json.dumps(answer), flush=True)
            if answer["model_version"] == version:
                return
            problem = f"model {answer['model_version']} answers"
        except OSError as error:
            problem = f"the Service does not answer ({error})"
        if time.monotonic() > deadline:
            raise SystemExit(f"{problem}; the manifest names {version}")
        time.sleep(2)


def ask(model: str) -> Any:
    """Return the Service's answer to the golden request's first row. Raises OSError."""
    rows = json.loads((demo.PROJECT / "package/golden_request.json").read_text(encoding="utf-8"))["instances"]
    body = json.dumps({"instances": rows[:1]}).encode()
    with forwarded() as address:
        request = urllib.request.Request(f"{address}/predictions/{model}", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)


@contextmanager
def forwarded() -> Iterator[str]:
    """Forward a free port of this machine to the Service and yield its address. Raises OSError."""
    command = ["kubectl", "--namespace", NAMESPACE, "port-forward", f"service/{NAME}", ":80"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=demo.ENVIRONMENT, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.startswith("Forwarding from 127.0.0.1:"):
            raise ConnectionError(f"kubectl port-forward says {line!r}")
        yield f"http://127.0.0.1:{line.split(':')[1].split()[0]}"
    finally:
        process.terminate()
        process.communicate()


def keep_evidence() -> None:
    """Write what the cluster says to demo/logs/, and print the end of each file."""
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    for file, command in EVIDENCE.items():
        done = subprocess.run(command.split(), env=demo.ENVIRONMENT, capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr
        (LOGS / file).write_text(text, encoding="utf-8")
        print(f"\n== {LOGS / file}: {command}", *text.splitlines()[-40:], sep="\n", flush=True)


def output(*command: str) -> str:
    """Run the command and return what it prints. Raises SystemExit with what it says where it fails."""
    done = subprocess.run(command, env=demo.ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()
