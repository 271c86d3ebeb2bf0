"""What an Application of the stand-in has on its branch, and how that differs from what is applied."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fake_cluster_api as api
import yaml
from fake_cluster_state import Cluster, Object, Refused

TRACKING = "argocd.argoproj.io/tracking-id"
HOOK = "argocd.argoproj.io/hook"


def kubectl() -> str:
    """Return the path of the machine's own kubectl."""
    here = str(Path(sys.argv[0]).parent)
    others = (folder for folder in os.environ["PATH"].split(os.pathsep) if folder != here)
    found = shutil.which("kubectl", path=os.pathsep.join(others))
    assert found, "kubectl is not on PATH"
    return found


def rendered(folder: Path) -> str:
    """Return what kubectl makes of a kustomization. Raises Refused."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr.strip())
    return done.stdout


def fetch(known: Object, source: Object) -> None:
    """Look at the branch, over HTTP as Argo CD does."""
    with tempfile.TemporaryDirectory() as folder:
        clone = ("git", "clone", "--quiet", "--branch", source["targetRevision"], source["repoURL"], folder)
        done = subprocess.run(clone, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(f"failed to list refs: {done.stderr}")
        head = ("git", "-C", folder, "rev-parse", "HEAD")
        revision = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
        known["revision"] = revision
        known["manifests"][revision] = _manifests(Path(folder), source)


def _manifests(folder: Path, source: Object) -> list[Object]:
    """Return the objects of a folder, or of the kustomization in it with the Application's patches."""
    path = folder / source["path"]
    if not (path / "kustomization.yaml").exists():
        texts = [file.read_text() for file in sorted(path.glob("*.yaml"))]
        return [item for text in texts for item in yaml.safe_load_all(text) if item]
    top = {"resources": [source["path"]], **source.get("kustomize", {})}
    (folder / "kustomization.yaml").write_text(json.dumps(top))
    return [item for item in yaml.safe_load_all(rendered(folder)) if item]


def desired(application: Object, known: Object, revision: str) -> dict[str, Object]:
    """Return key -> object of a commit, as Argo CD applies it: in its namespace, with whose it is."""
    name, namespace = application["metadata"]["name"], application["spec"]["destination"]["namespace"]
    objects = {}
    for manifest in known["manifests"][revision]:
        item: Object = json.loads(json.dumps(manifest))
        if item["kind"] not in api.CLUSTER_WIDE:
            item["metadata"].setdefault("namespace", namespace)
        where = api.key(item)
        group, kind, inside, own = where.rsplit("/", 3)
        annotations = item["metadata"].get("annotations") or {}
        item["metadata"]["annotations"] = {**annotations, TRACKING: f"{name}:{group}/{kind}:{inside}/{own}"}
        objects[where] = item
    return objects


def is_hook(item: Object) -> bool:
    return HOOK in item["metadata"]["annotations"]


def extraneous(cluster: Cluster, application: Object, wanted: dict[str, Object]) -> list[str]:
    """Return the keys of what the Application has applied before and a commit does not have."""
    own = f"{application['metadata']['name']}:"
    return [
        where
        for where, item in cluster.objects.items()
        if where not in wanted
        and (item["metadata"].get("annotations") or {}).get(TRACKING, "").startswith(own)
        and not is_hook(item)
    ]


def out_of_sync(cluster: Cluster, application: Object, known: Object) -> set[str]:
    """Return the keys of what differs from the branch. Hooks are not compared."""
    wanted = desired(application, known, known["revision"])
    differ = {where for where, item in wanted.items() if not is_hook(item) and cluster.objects.get(where) != item}
    return differ | set(extraneous(cluster, application, wanted))


def project_of(cluster: Cluster, spec: Object) -> Object | None:
    return cluster.objects.get(f"argoproj.io/AppProject/argocd/{spec['project']}")
