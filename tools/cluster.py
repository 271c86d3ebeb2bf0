"""The cluster of `make end-to-end` (kind, Argo CD) and what is applied to it; paths and environment are the demo's."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import demo

CLUSTER = "gitops-mlops"
KIND_NODE = "kindest/node:v1.35.8@sha256:07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0"
#: What measures pods for their autoscaler, and the kinds of the Prometheus operator, which itself is not needed.
METRICS_SERVER = "https://github.com/kubernetes-sigs/metrics-server/releases/download/v0.8.1/components.yaml"
PROMETHEUS = (
    "https://raw.githubusercontent.com/prometheus-operator/prometheus-operator/v0.84.1/example/prometheus-operator-crd"
)
KINDS = ("prometheusrules", "servicemonitors")

#: Argo CD with its settings, as the platform's owner applies it (k8s/README.md), and what has to run of it.
ARGO_CD = demo.TEMPLATE / "k8s/argocd"
PARTS = (
    "statefulset/argocd-application-controller",
    "deployment/argocd-applicationset-controller",
    "deployment/argocd-repo-server",
    "deployment/argocd-redis",
)

NAME = demo.PROJECT.name  # of the Application, its namespace, the Service and the Deployment: k8s/argocd and k8s/base
LOGS = demo.DEMO / "logs"

#: What tells why it failed: file -> command.
EVIDENCE = {
    "objects.txt": "kubectl get all,networkpolicies,events --all-namespaces",
    "applications.yaml": "kubectl --namespace argocd get applications,applicationsets,appprojects --output yaml",
    "controller.txt": "kubectl --namespace argocd logs statefulset/argocd-application-controller --tail 300",
    "sets.txt": "kubectl --namespace argocd logs deployment/argocd-applicationset-controller --tail 300",
    "repo-server.txt": "kubectl --namespace argocd logs deployment/argocd-repo-server --tail 300",
    "pods.txt": f"kubectl describe pods --all-namespaces --selector app.kubernetes.io/name={NAME}",
    "model-server.txt": f"kubectl --namespace {NAME} logs --selector app.kubernetes.io/name={NAME} --tail 300",
}


def make() -> None:
    """Make the cluster anew, with Argo CD in it."""
    demo.step(
        "make the cluster",
        f"kind delete cluster --quiet --name {CLUSTER}",
        f"kind create cluster --name {CLUSTER} --image {KIND_NODE} --wait 180s",
    )
    demo.step(
        "install Argo CD",
        f"kubectl apply --server-side --force-conflicts --kustomize {ARGO_CD} >/dev/null",
        *(f"kubectl --namespace argocd rollout status {part} --timeout 300s" for part in PARTS),
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


def let_argo_cd_reach(address: str) -> None:
    """Let Argo CD out to the Git server of this machine: k8s/argocd lets it out to GitHub's ports alone."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    out = {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"port": int(port)}]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "git-server", "namespace": "argocd"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [out]},
    }
    apply([policy])


def apply(objects: list[dict[str, Any]]) -> None:
    """Apply the objects as the cluster's owner."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    command = ["kubectl", "apply", "--server-side", "--force-conflicts", "--filename", "-"]
    subprocess.run(command, input=text, text=True, env=demo.ENVIRONMENT, check=True)


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
