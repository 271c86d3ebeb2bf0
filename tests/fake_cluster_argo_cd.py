"""Argo CD of the stand-in: what an Application follows, when it looks, and what it says.

Like the real one (controller/appcontroller.go of Argo CD 3.5) it looks at a branch when it is asked to or at its next poll,
compares what it has applied, and begins a sync where that differs; fake_cluster_sync.py is the sync. An Application
whose AppProject is not there, or does not allow its repository, is not looked at.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import fake_cluster_api as api
import fake_cluster_pods as pods
import fake_cluster_sync as sync
import yaml
from fake_cluster_state import Cluster, Object, Refused

TRACKING = "argocd.argoproj.io/tracking-id"
HOOK = "argocd.argoproj.io/hook"
ORDER = ["Healthy", "Progressing", "Missing", "Degraded"]  # an Application's health is the worst of its objects'
HEALS = 2.0  # seconds after a sync until it heals what somebody else has changed
SET_RETRY = 180.0  # seconds until an ApplicationSet tries again what was refused
#: Kinds and objects of Argo CD's install.yaml that are read here, beside those that k8s/argocd patches.
OWN_KINDS = ("Application", "ApplicationSet", "AppProject")


def installed(folder: Path, render: Callable[[Path], str]) -> str:
    """Return k8s/argocd rendered, with its own kinds and the objects that it patches in place of what it fetches."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder.parent, Path(scratch, "k8s"))) / folder.name
        path = copy / "kustomization.yaml"
        kustomization = yaml.safe_load(path.read_text())
        patched = [
            {name: item[name] for name in ("apiVersion", "kind")} | {"metadata": {"name": item["metadata"]["name"]}}
            for patch in kustomization.get("patches", [])
            for item in yaml.safe_load_all((copy / patch["path"]).read_text())
            if item["kind"] == "ConfigMap"
        ]
        own = [api.definition("argoproj.io", kind) for kind in OWN_KINDS]
        (copy / "install.yaml").write_text(yaml.safe_dump_all([*own, *patched]))
        local = [name if "://" not in name else "install.yaml" for name in kustomization["resources"]]
        kept = [patch for patch in kustomization.get("patches", []) if "://" not in str(patch)]
        path.write_text(yaml.safe_dump({**kustomization, "resources": local, "patches": kept}))
        return render(copy)


def reconcile(cluster: Cluster, look: str = "") -> None:
    """Do what is due for all Applications; `look` is the one that is to look at its branch now."""
    kept_looking = {look}
    for _ in range(50):
        applications = _applications(cluster)
        found = [visit(cluster, item, item["metadata"]["name"] in kept_looking) for item in applications]
        found.append(_fill_sets(cluster))
        kept_looking = set()
        if not any(found):
            return
    raise AssertionError("Argo CD does not come to rest")


def visit(cluster: Cluster, application: Object, look: bool) -> bool:
    """Compare, and begin or go on with a sync; return whether anything has changed."""
    name = application["metadata"]["name"]
    fresh = {"compared": 0.0, "revision": "", "manifests": {}, "operation": None, "problem": "", "spec": None}
    known = cluster.applications.setdefault(name, fresh)
    problem = _not_allowed(cluster, application["spec"])
    if problem or known["problem"]:
        changed, known["problem"] = known["problem"] != problem, problem
        return changed
    source = application["spec"]["source"]
    if look or cluster.now > known["compared"] + _poll(cluster) or known["spec"] != application["spec"]:
        fetch(cluster, known, source)
        known["spec"] = application["spec"]
        look = True
    operation = known["operation"]
    if operation and operation["phase"] == "Running":
        return sync.advance(cluster, application, known) or look
    return _begin(cluster, application, known) or look


def _begin(cluster: Cluster, application: Object, known: Object) -> bool:
    """Begin a sync where Argo CD would, and return whether it does."""
    wrong = out_of_sync(cluster, application, known)
    automated = application["spec"].get("syncPolicy", {}).get("automated")
    if not wrong or automated is None:
        return False
    last = known["operation"]
    only: list[str] = []
    if last and last["revision"] == known["revision"]:
        if last["phase"] != "Succeeded" or not automated.get("selfHeal"):
            return False  # "Failed last sync attempt to ...", which is not repeated for the same commit
        if cluster.now < last["finished"] + HEALS:
            return False
        only = sorted(wrong)
    known["operation"] = sync.operation(known["revision"], only)
    return True


def fetch(cluster: Cluster, known: Object, source: Object) -> None:
    """Look at the branch, over HTTP as Argo CD does."""
    with tempfile.TemporaryDirectory() as folder:
        clone = ("git", "clone", "--quiet", "--branch", source["targetRevision"], source["repoURL"], folder)
        done = subprocess.run(clone, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(f"failed to list refs: {done.stderr}")
        head = ("git", "-C", folder, "rev-parse", "HEAD")
        revision = subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
        known |= {"revision": revision, "compared": cluster.now}
        known["manifests"][revision] = _manifests(Path(folder), source)


def _manifests(folder: Path, source: Object) -> list[Object]:
    """Return the objects of a folder, or of the kustomization in it with the Application's patches."""
    path = folder / source["path"]
    if not (path / "kustomization.yaml").exists():
        texts = [file.read_text() for file in sorted(path.glob("*.yaml"))]
        return [item for text in texts for item in yaml.safe_load_all(text) if item]
    from fake_cluster import rendered

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


def status(cluster: Cluster, application: Object) -> Object:
    """Return the status of an Application."""
    known = cluster.applications[application["metadata"]["name"]]
    if known["problem"]:
        conditions = [{"type": "InvalidSpecError", "message": known["problem"]}]
        return {"sync": {"status": "Unknown"}, "health": {"status": "Unknown"}, "conditions": conditions}
    wanted = desired(application, known, known["revision"])
    found = [pods.health(cluster, item) for item in wanted.values() if not is_hook(item)]
    missing = ["Missing" for where, item in wanted.items() if not is_hook(item) and where not in cluster.objects]
    health = max([*filter(None, found), *missing], key=ORDER.index, default="Healthy")
    state = "OutOfSync" if out_of_sync(cluster, application, known) else "Synced"
    said = {"sync": {"status": state, "revision": known["revision"]}, "health": {"status": health}}
    return {**said, "operationState": sync.state(known["operation"])} if known["operation"] else said


def project_of(cluster: Cluster, spec: Object) -> Object | None:
    return cluster.objects.get(f"argoproj.io/AppProject/argocd/{spec['project']}")


def _not_allowed(cluster: Cluster, spec: Object) -> str:
    """Return why an Application is not looked at; empty where it is."""
    if (project := project_of(cluster, spec)) is None:
        return f"Application referencing project {spec['project']} which does not exist"
    if not any(fnmatch(spec["source"]["repoURL"], allowed) for allowed in project["spec"].get("sourceRepos", [])):
        return f"application repo {spec['source']['repoURL']} is not permitted in project '{spec['project']}'"
    namespaces = [entry["namespace"] for entry in project["spec"].get("destinations", [])]
    if not any(fnmatch(spec["destination"]["namespace"], allowed) for allowed in namespaces):
        return f"application destination is not permitted in project '{spec['project']}'"
    return ""


def _poll(cluster: Cluster) -> float:
    """Return how many seconds pass between two looks at a branch."""
    settings = cluster.objects.get("/ConfigMap/argocd/argocd-cm", {}).get("data", {})
    return float(settings.get("timeout.reconciliation", "120s").removesuffix("s"))


def _applications(cluster: Cluster) -> list[Object]:
    return [item for item in list(cluster.objects.values()) if item["kind"] == "Application"]


def _fill_sets(cluster: Cluster) -> bool:
    """Make the Applications of the ApplicationSets; return whether there is a new or another one."""
    changed = False
    for item in [item for item in cluster.objects.values() if item["kind"] == "ApplicationSet"]:
        for element in [found for entry in item["spec"]["generators"] for found in entry["list"]["elements"]]:
            template = _filled(item["spec"]["template"], element)
            application = {"apiVersion": item["apiVersion"], "kind": "Application", **template}
            application["metadata"] = {**template["metadata"], "namespace": "argocd"}
            if application == cluster.objects.get(api.key(application)):
                continue
            refused = cluster.applications.setdefault(f"set of {api.key(application)}", {"tried": -SET_RETRY})
            if cluster.now < refused["tried"] + SET_RETRY:
                continue
            refused["tried"] = cluster.now
            if project_of(cluster, application["spec"]):
                api.apply(cluster, application)
                changed = True
    return changed


def _filled(template: Object, element: Object) -> Object:
    """Return an ApplicationSet's template with the parameters of one element. Raises Refused for other expressions."""
    text = json.dumps(template)
    for expression in set(re.findall(r"{{ ([^}]*) }}", text)):
        value = element
        for part in expression.removeprefix(".").split("."):
            if not isinstance(value, dict) or part not in value:
                raise Refused(f"failed to execute go template {expression!r}: not known here")
            value = value[part]
        text = text.replace(f"{{{{ {expression} }}}}", json.dumps(value)[1:-1])
    return dict(json.loads(text))
