"""A stand-in of a cluster whose Argo CD follows a small repository, with a clock that a test sets."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fake_cluster_api as api
import fake_cluster_argo_cd as argo_cd
import fake_cluster_pods as pods
import yaml
from fake_cluster_state import Cluster

Object = dict[str, Any]
TENANT = "tenant"
GOOD, OTHER = "1" * 64, "2" * 64
#: Kind -> group of what the AppProject allows.
ALLOWED = {"ConfigMap": "", "Service": "", "Deployment": "apps", "Job": "batch"}


def deployment(model: str, image: str, **spec: Any) -> Object:
    labels = {"app": "server"}
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    template = {
        "metadata": {"labels": labels, "annotations": {"model-sha256": model}},
        "spec": {"containers": [{"name": "server", "image": image, "securityContext": context}]},
    }
    own = {"selector": {"matchLabels": labels}, "template": template, "progressDeadlineSeconds": 180, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "server"}, "spec": own}


def config(name: str = "settings", **annotations: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "annotations": annotations}}


SERVICE: Object = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "server"},
    "spec": {"selector": {"app": "server"}, "ports": [{"port": 80}]},
}
#: Argo CD's retry as the template had it, and as it has it now.
PATIENT = {"limit": 5, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "3m"}}
REFRESHED = {"limit": 3, "refresh": True, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "1m"}}


@dataclass
class Bench:
    """A cluster whose Argo CD follows a repository, and its clock."""

    folder: Path
    clock: list[float]
    cluster: Cluster = field(default_factory=Cluster)

    def at(self, seconds: float, look: bool = False) -> Object:
        """Let time pass, and return what Argo CD says then; `look` has it look at the branch."""
        assert seconds >= self.clock[0]
        self.clock[0] = seconds
        argo_cd.reconcile(self.cluster, look=TENANT if look else "")
        return argo_cd.status(self.cluster, self.cluster.objects[f"argoproj.io/Application/argocd/{TENANT}"])

    def commit(self, *objects: Object) -> str:
        for path in (self.folder / "manifests").iterdir():
            path.unlink()
        for number, item in enumerate(objects):
            (self.folder / f"manifests/{number}.yaml").write_text(yaml.safe_dump(item))
        return self.git("add --all", "commit --quiet --allow-empty -m Release", "rev-parse HEAD")

    def git(self, *commands: str) -> str:
        for command in commands:
            git = ["git", "-C", str(self.folder), *command.split()]
            done = subprocess.run(git, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def applied_at(self, commit: str, after: int, until: int) -> int | None:
        """Return the second in which a commit is applied, at which Argo CD is asked to look once."""
        for second in range(after, until, 10):
            said = self.at(second, look=second == after)
            if said["sync"] == {"status": "Synced", "revision": commit}:
                return second
        return None

    def answering(self) -> str | None:
        return pods.answering(self.cluster, self.cluster.objects[f"/Service/{TENANT}/server"])

    def follow(self, retry: Object, *options: str, **project: Any) -> None:
        """Apply the namespace, the project and the Application; `project` replaces parts of what it allows."""
        spec = {
            "sourceRepos": [str(self.folder)],
            "destinations": [{"namespace": TENANT}],
            "namespaceResourceWhitelist": [{"group": group, "kind": kind} for kind, group in ALLOWED.items()],
            **project,
        }
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TENANT, "labels": labels}}
        api.apply(self.cluster, namespace)
        argo = {"apiVersion": "argoproj.io/v1alpha1", "metadata": {"name": TENANT, "namespace": "argocd"}}
        api.apply(self.cluster, {**argo, "kind": "AppProject", "spec": spec})
        api.apply(self.cluster, {**argo, "kind": "Application", "spec": self.application(retry, *options)})

    def application(self, retry: Object, *options: str) -> Object:
        automated = {"prune": True, "selfHeal": True}
        return {
            "project": TENANT,
            "source": {"repoURL": str(self.folder), "targetRevision": "main", "path": "manifests"},
            "destination": {"namespace": TENANT},
            "syncPolicy": {"automated": automated, "syncOptions": list(options), "retry": retry},
        }
