"""A sync of the stand-in's Argo CD: what it refuses as a whole, in what order it applies, and for what it waits.

As in the real one (gitops-engine/pkg/sync/sync_context.go of Argo CD 3.5): a commit with a kind or a namespace that
the AppProject does not permit, or of a kind that the cluster does not know, is not applied at all. What the API server
refuses keeps no other object away. A sync of one wave without hooks is over once all is applied, healthy or not; one of
several, which pruning last is too, waits for the health of each wave, and a hook for that of everything. A sync that
fails is retried after a while, of the same commit unless `retry.refresh`; until it is over, no other begins.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import fake_cluster_api as api
import fake_cluster_pods as pods
from fake_cluster_application import HOOK, desired, extraneous, fetch, project_of
from fake_cluster_state import Cluster, Object, Refused

WAVE = "argocd.argoproj.io/sync-wave"
OPTIONS = "argocd.argoproj.io/sync-options"
PHASES = ("PreSync", "Sync", "PostSync")
KEPT = "Prune=false"
LAST = "PruneLast=true"


def operation(revision: str, only: list[str]) -> Object:
    """Return a new sync to a commit, of the keys `only` where it heals."""
    fresh = {"phase": "Running", "message": "", "results": {}, "retries": 0, "finished": None}
    return {"revision": revision, "only": only, **fresh}


def state(operation: Object) -> Object:
    """Return status.operationState."""
    resources = [
        {
            "kind": where.split("/")[-3],
            "name": where.split("/")[-1],
            "status": result["status"],
            "message": result["message"],
        }
        for where, result in operation["results"].items()
    ]
    result = {"revision": operation["revision"], "resources": resources}
    counts = {"retryCount": operation["retries"]} if operation["retries"] else {}
    return {"phase": operation["phase"], "message": operation["message"], "syncResult": result, **counts}


def advance(cluster: Cluster, application: Object, known: Object) -> bool:
    """Go on with a sync as far as it gets now; return whether that is any further."""
    running = known["operation"]
    retry = application["spec"]["syncPolicy"].get("retry", {"limit": 5})
    if running["finished"] is not None:
        if cluster.now < running["finished"] + _backoff(retry, running["retries"]):
            return False
        if retry.get("refresh"):
            fetch(known, application["spec"]["source"])
            running["revision"] = known["revision"]
        running |= {"finished": None, "results": {}}
    before = str(running)
    try:
        _run(cluster, application, known, running)
    except Refused as failed:
        running |= {"finished": cluster.now, "message": str(failed)}
        if running["retries"] < retry["limit"]:
            running["retries"] += 1
        else:
            running["phase"] = "Failed"
    return str(running) != before


def _backoff(retry: Object, count: int) -> float:
    """Return the seconds until a retry (NextRetryAt of types.go; the count is raised before it is asked)."""
    backoff = {"duration": "5s", "factor": 2, "maxDuration": "3m", **retry.get("backoff", {})}
    return min(_seconds(backoff["duration"]) * float(backoff["factor"] ** count), _seconds(backoff["maxDuration"]))


def _seconds(duration: str) -> float:
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def _run(cluster: Cluster, application: Object, known: Object, running: Object) -> None:
    """Apply what can be applied now. Raises Refused where the sync fails."""
    tasks = _tasks(cluster, application, known, running)
    results = running["results"]
    if not results:
        _check(cluster, application, tasks, results)
    for task in tasks:
        _look(cluster, task, results)
    several = len({task["step"] for task in tasks}) > 1
    begun = [task for task in tasks if task["where"] in results]
    waits_for = [
        task["where"].split("/", 1)[1]
        for task in begun
        if (several or task["hook"]) and results[task["where"]]["phase"] == "Running"
    ]
    if waits_for:
        running["message"] = f"waiting for healthy state of {', '.join(waits_for)}"
        return
    if any(results[task["where"]]["phase"] == "Failed" for task in begun):
        raise Refused("one or more synchronization tasks completed unsuccessfully")
    left = [task for task in tasks if task["where"] not in results]
    step = min((task["step"] for task in left), default=None)
    now = [task for task in left if task["step"] == step]
    for task in now:
        results[task["where"]] = _apply(cluster, task)
    if any(results[task["where"]]["phase"] == "Failed" for task in now):
        raise Refused("one or more objects failed to apply")
    if len(now) == len(left) and not any(task["hook"] for task in now):
        running |= {"phase": "Succeeded", "message": "successfully synced (all tasks run)", "finished": cluster.now}


def _tasks(cluster: Cluster, application: Object, known: Object, running: Object) -> list[Object]:
    """Return what the sync does: objects to apply, and what is to be pruned with None for its object."""
    wanted = desired(application, known, running["revision"])
    only = running["only"]
    tasks = [_task(where, item) for where, item in wanted.items() if not only or where in only]
    prunes = [where for where in extraneous(cluster, application, wanted) if not only or where in only]
    after = max((task["step"] for task in tasks if task["step"][0] == 1), default=(1, 0))[1] + 1
    last = LAST in application["spec"]["syncPolicy"].get("syncOptions", [])
    for where in prunes:
        annotations = cluster.objects[where]["metadata"]["annotations"]
        wave = after if last or LAST in annotations.get(OPTIONS, "") else int(annotations.get(WAVE, "0"))
        kept = KEPT in annotations.get(OPTIONS, "")
        tasks.append({"where": where, "item": None, "hook": False, "step": (1, wave), "kept": kept})
    # What was pruned by this sync already is a task of it still.
    there = {task["where"] for task in tasks}
    done = [
        where for where, result in running["results"].items() if where not in there and result["status"] == "Pruned"
    ]
    return tasks + [{"where": where, "item": None, "hook": False, "step": (1, after), "kept": False} for where in done]


def _task(where: str, item: Object) -> Object:
    annotations = item["metadata"]["annotations"]
    hook = annotations.get(HOOK)
    phase = PHASES.index(hook or "Sync")
    return {"where": where, "item": item, "hook": bool(hook), "step": (phase, int(annotations.get(WAVE, "0")))}


def _check(cluster: Cluster, application: Object, tasks: list[Object], results: Object) -> None:
    """Raise Refused, with what is said of each object, where one of them makes the whole commit impossible."""
    project = project_of(cluster, application["spec"])
    assert project
    for task in tasks:
        item = task["item"] or cluster.objects[task["where"]]
        try:
            api.check_kind(cluster, item)
            message = _forbidden(project, item)
        except Refused as refused:
            message = str(refused)
        if message:
            results[task["where"]] = _result("SyncFailed", message)
    if results:
        said = ", ".join(sorted({result["message"] for result in results.values()}))
        raise Refused(f"one or more synchronization tasks are not valid ({said})")


def _forbidden(project: Object, item: Object) -> str:
    """Return why a project does not permit an object; empty where it does."""
    spec, kind, group = project["spec"], item["kind"], api.group(item)
    everywhere = kind in api.CLUSTER_WIDE
    allowed = spec.get("clusterResourceWhitelist" if everywhere else "namespaceResourceWhitelist", [])
    if not any(
        fnmatch(group, entry["group"])
        and fnmatch(kind, entry["kind"])
        and fnmatch(item["metadata"]["name"], entry.get("name", "*"))
        for entry in allowed
    ):
        return f"resource {group}:{kind} is not permitted in project {project['metadata']['name']}"
    namespace = item["metadata"].get("namespace", "")
    if not everywhere and not any(fnmatch(namespace, entry["namespace"]) for entry in spec.get("destinations", [])):
        return f"namespace {namespace} is not permitted in project '{project['metadata']['name']}'"
    return ""


def _apply(cluster: Cluster, task: Object) -> dict[str, Any]:
    if task["item"] is None:
        if not task["kept"]:
            api.delete(cluster, task["where"])
        return _result("PruneSkipped" if task["kept"] else "Pruned", "")
    if task["hook"]:
        api.delete(cluster, task["where"])  # BeforeHookCreation
    if message := api.problem(cluster, task["item"]):
        return _result("SyncFailed", message)
    return _result("Synced", "")


def _result(status: str, message: str) -> dict[str, Any]:
    phases = {"SyncFailed": "Failed", "Synced": "Running"}
    return {"status": status, "message": message, "phase": phases.get(status, "Succeeded")}


def _look(cluster: Cluster, task: Object, results: Object) -> None:
    """Say what has become of an object that was applied."""
    result = results.get(task["where"])
    if result and result["phase"] == "Running":
        health = pods.health(cluster, task["item"])
        result["phase"] = {"Degraded": "Failed", "Progressing": "Running"}.get(health or "", "Succeeded")
