"""Argo CD of the stand-in: what an Application follows, when it looks, and what it says.

Like the real one (controller/appcontroller.go of Argo CD 3.5) it looks at a branch when it is asked to or at its next
poll, compares that with what is applied, and begins a sync where they differ; fake_cluster_sync.py is the sync. Where
an Application's AppProject is not there, or does not allow its repository, the branch is not looked at.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import fake_cluster_api as api
import fake_cluster_pods as pods
import fake_cluster_sync as sync
import yaml
from fake_cluster_application import desired, fetch, is_hook, out_of_sync, project_of, rendered
from fake_cluster_state import Cluster, Object, Refused

ORDER = ["Healthy", "Progressing", "Missing", "Degraded"]  # an Application's health is the worst of its objects'
HEALS = 2.0  # seconds after a sync until it heals what somebody else has changed
SET_RETRY = 180.0  # seconds until an ApplicationSet tries again what was refused
#: Kinds and objects of Argo CD's install.yaml that are read here, beside those that k8s/argocd patches.
OWN_KINDS = ("Application", "ApplicationSet", "AppProject")


def installed(folder: Path) -> str:
    """Return k8s/argocd rendered, with its own kinds and the objects that it patches in place of what it fetches."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(shutil.copytree(folder.parent, Path(scratch, "k8s"))) / folder.name
        path = copy / "kustomization.yaml"
        kustomization = yaml.safe_load(path.read_text())
        patches = [patch["path"] for patch in kustomization.get("patches", [])]
        items = [item for path in patches for item in yaml.safe_load_all((copy / path).read_text())]
        patched = {
            (item["kind"], item["metadata"]["name"]): {
                **{name: item[name] for name in ("apiVersion", "kind")},
                "metadata": {"name": item["metadata"]["name"]},
            }
            for item in items
            if item["kind"] in ("ConfigMap", "Secret")  # others, such as a LimitRange, come with the folder itself
        }
        own = [api.definition("argoproj.io", kind) for kind in OWN_KINDS]
        (copy / "install.yaml").write_text(yaml.safe_dump_all([*own, *patched.values()]))
        local = [name if "://" not in name else "install.yaml" for name in kustomization["resources"]]
        path.write_text(yaml.safe_dump({**kustomization, "resources": local}))
        return rendered(copy)


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
    look = look or cluster.now > known["compared"] + _poll(cluster) or known["spec"] != application["spec"]
    if look:
        known |= {"spec": application["spec"], "compared": cluster.now}
        known["problem"] = _not_allowed(cluster, application["spec"])
        if not known["problem"]:
            fetch(known, application["spec"]["source"])
    if known["problem"]:
        return look
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
