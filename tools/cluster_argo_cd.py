"""What Argo CD in the cluster of `make end-to-end` follows, and what it says of an Application."""

from __future__ import annotations

import json
import time
from typing import Any

import cluster
import demo
import yaml

PAUSE = 2.0  # seconds between two questions

ARGO_CD = ("kubectl", "--namespace", "argocd")


def follow(origin: str) -> None:
    """Have Argo CD follow the repository at `origin`, by the project's own k8s/argocd with that address in it."""
    objects = list(yaml.safe_load_all(cluster.output("kubectl", "kustomize", str(demo.PROJECT / "k8s/argocd"))))
    for entry in objects:
        if entry["kind"] == "Application":
            entry["spec"]["source"]["repoURL"] = origin
        elif entry["kind"] == "AppProject":
            entry["spec"]["sourceRepos"] = [origin]
    cluster.apply(objects)


def status(application: str) -> dict[str, Any]:
    """Return the status of an Application, empty where there is none yet."""
    found = cluster.output(*ARGO_CD, "get", "application", application, "--ignore-not-found", "--output", "json")
    return dict(json.loads(found).get("status", {})) if found else {}


def look(application: str) -> None:
    """Have Argo CD look for a new commit at once, as GitHub's webhook does."""
    refresh = "argocd.argoproj.io/refresh=normal"
    cluster.output(*ARGO_CD, "annotate", "application", application, refresh, "--overwrite")


def applied(said: dict[str, Any], commit: str) -> bool:
    """Whether all of `commit` is applied, whatever becomes of its pods."""
    operation = said.get("operationState", {})
    done = operation.get("phase") == "Succeeded" and operation.get("syncResult", {}).get("revision") == commit
    sync = said.get("sync", {})
    return bool(done and sync.get("status") == "Synced" and sync.get("revision") == commit)


def refused(said: dict[str, Any], commit: str) -> dict[str, str]:
    """Return Kind/name -> reason of each object of `commit` that was not applied."""
    result = said.get("operationState", {}).get("syncResult") or {}
    failed = [entry for entry in result.get("resources", []) if entry.get("status") == "SyncFailed"]
    of_commit = failed if result.get("revision") == commit else []
    return {f"{entry['kind']}/{entry['name']}": entry.get("message", "") for entry in of_commit}


def summary(said: dict[str, Any]) -> str:
    """Return the status in one line."""
    sync, operation = said.get("sync", {}), said.get("operationState", {})
    words = [sync.get("status"), sync.get("revision", "")[:12], said.get("health", {}).get("status")]
    words += [operation.get("phase"), operation.get("message")]
    words += [condition.get("message") for condition in said.get("conditions", [])]
    return " ".join(word for word in words if word) or "nothing"


def wait_for_sync(application: str, commit: str, deadline: float) -> None:
    """Have Argo CD look at once, and wait until it has applied `commit` and all of it is healthy.

    Raises SystemExit with Argo CD's word where that is not so at `deadline`, of time.monotonic().
    """
    look(application)
    wait(application, deadline, commit, healthy=True)


def wait(application: str, deadline: float, commit: str, *, healthy: bool) -> None:
    """Wait until `commit` is applied, and healthy where that is asked. Raises SystemExit as wait_for_sync does."""
    last = ""
    while True:
        said = status(application)
        if (now := summary(said)) != last:
            print(now, flush=True)
        last = now
        if applied(said, commit) and (not healthy or said.get("health", {}).get("status") == "Healthy"):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"Argo CD says {now!r} of {application}; {commit[:12]} was to be applied")
        time.sleep(PAUSE)
