"""The shared platform of k8s/ as far as it renders without a network, and what has to be right in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from projects import ROOT

Object = dict[str, Any]

PLATFORM = ROOT / "k8s"
README = (PLATFORM / "README.md").read_text(encoding="utf-8")

#: Images whose digest the workflow Locks proposes (tools/image_digests.py), until it is merged.
WITHOUT_DIGEST = {"ghcr.io/mlflow/mlflow:v3.17.2-full"}
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}

#: What GitHub answers for one branch, as the generator hands it to the templates.
FOUND = {
    ".repository": "churn",
    ".branch": "env/production",
    ".url": "https://github.com/example/churn.git",
    'trimPrefix "env/" .branch': "production",
}


def render(folder: Path) -> list[Object]:
    """Return the objects of a kustomization."""
    program = [shutil.which("kustomize") or str(ROOT / ".venv/bin/kustomize"), "build"]
    command = ["kubectl", "kustomize"] if shutil.which("kubectl") else program
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def copied(folder: Path) -> Path:
    """Return a copy of k8s/ to change."""
    return Path(shutil.copytree(PLATFORM, folder / "k8s"))


def select(objects: list[Object], kind: str, name: str = "") -> list[Object]:
    return [item for item in objects if item["kind"] == kind and name in ("", item["metadata"]["name"])]


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    (found,) = select(objects, kind, name)
    return found


def filled(application_set: Object) -> Object:
    """Return the ApplicationSet's Application for FOUND. All that its templates may use is replaced here."""
    (generator,) = application_set["spec"]["generators"]
    values = generator["scmProvider"]["values"]
    text = json.dumps(application_set["spec"]["template"])
    for name, value in values.items():
        text = text.replace(f"{{{{ .values.{name} }}}}", json.dumps(value)[1:-1])
    for name, value in FOUND.items():
        text = text.replace(f"{{{{ {json.dumps(name)[1:-1]} }}}}", value)
    assert "{{" not in text, text
    return dict(json.loads(text))


def tenant(objects: list[Object], folder: Path) -> list[Object]:
    """Return what Argo CD applies for the tenant of FOUND: k8s/tenant with the Application's patches."""
    application = filled(one(objects, "ApplicationSet", "tenants"))["spec"]
    copied(folder)
    kustomization = {"resources": [application["source"]["path"]], **application["source"]["kustomize"]}
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
    return [
        item
        if item["kind"] == "Namespace" or "namespace" in item["metadata"]
        else {**item, "metadata": {**item["metadata"], "namespace": application["destination"]["namespace"]}}
        for item in render(folder)
    ]


def argo_cd(folder: Path) -> list[Object]:
    """Return k8s/argocd with the objects that it changes standing for what it fetches."""
    path = copied(folder) / "argocd/kustomization.yaml"
    kustomization = yaml.safe_load(path.read_text())
    (address,) = [resource for resource in kustomization["resources"] if resource.startswith("https://")]
    names = ("argocd-cm", "argocd-notifications-cm", "argocd-rbac-cm")
    stand_in = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} for name in names]
    (path.parent / "install.yaml").write_text(yaml.safe_dump_all(stand_in))
    path.write_text(path.read_text().replace(address, "install.yaml"))
    return render(path.parent)


def with_bucket(folder: Path) -> list[Object]:
    """Return the platform whose artifacts are in a bucket."""
    path = copied(folder) / "mlflow/kustomization.yaml"
    path.write_text(path.read_text().replace("  # - s3", "  - s3"))
    return render(path.parents[1])


def with_network_policy(folder: Path) -> list[Object]:
    """Return the platform of a cluster whose network plugin knows ClusterNetworkPolicy."""
    path = copied(folder) / "kustomization.yaml"
    path.write_text(path.read_text().replace("# components:", "components:"))
    return render(path.parent)


def pods(item: Object) -> list[Object]:
    """Return the pod specs in an object."""
    found = []
    if isinstance(item, dict):
        found = [item["spec"]] if "containers" in item.get("spec", {}) else []
        found += [pod for value in item.values() if isinstance(value, dict) for pod in pods(value)]
    return found


def containers(objects: list[Object]) -> list[tuple[Object, Object]]:
    """Return each container with its pod's spec."""
    return [
        (pod, container)
        for item in objects
        for pod in pods(item)
        for container in [*pod["containers"], *pod.get("initContainers", [])]
    ]


def problems(objects: list[Object]) -> list[str]:
    """Say what is wrong with objects that are to be applied."""
    found = [f"Secret {item['metadata']['name']}" for item in select(objects, "Secret")]
    for pod, container in containers(objects):
        where = f"container {container['name']}"
        own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
        wrong = {
            "may run as root": not {**shared, **own}.get("runAsNonRoot"),
            "no seccomp profile": {**shared, **own}.get("seccompProfile") != {"type": "RuntimeDefault"},
            "may gain privileges": own.get("allowPrivilegeEscalation") is not False,
            "keeps capabilities": own.get("capabilities") != {"drop": ["ALL"]},
            "root can be written": not own.get("readOnlyRootFilesystem"),
            "token is mounted": pod.get("automountServiceAccountToken") is not False,
            "host's namespaces": any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")),
            "host's files": any("hostPath" in volume for volume in pod.get("volumes", [])),
            "no bounds": {"requests", "limits"} - container.get("resources", {}).keys(),
            "image is not pinned": not re.fullmatch(r"\S+:[^:@]*\d[^:@]*@sha256:[0-9a-f]{64}", container["image"])
            and container["image"] not in WITHOUT_DIGEST,
        }
        found += [f"{where}: {what}" for what, is_so in wrong.items() if is_so]
        secret = re.compile("PASSWORD|SECRET|TOKEN|KEY")
        found += [
            f"{where}: {variable['name']} has a value"
            for variable in container.get("env", [])
            if secret.search(variable["name"]) and not variable["name"].endswith("_FILE") and "value" in variable
        ]
    for namespace in select(objects, "Namespace"):
        name = namespace["metadata"]["name"]
        inside = [item for item in objects if item["metadata"].get("namespace") == name]
        if not namespace["metadata"].get("labels", {}).items() >= RESTRICTED.items():
            found.append(f"namespace {name}: pods are not restricted")
        if not select(inside, "ResourceQuota") or not select(inside, "LimitRange"):
            found.append(f"namespace {name}: no quota or no defaults for it")
        nothing = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
        if not any(policy["spec"] == nothing for policy in select(inside, "NetworkPolicy")):
            found.append(f"namespace {name}: traffic is not denied by default")
    return found
