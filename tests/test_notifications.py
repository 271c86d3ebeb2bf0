"""What Argo CD says on GitHub about a release, and what it makes of an autoscaler: k8s/argocd/{notifications,health}.yaml."""

from __future__ import annotations

import datetime
from typing import Any

from argo_notifications import Application

NOW = datetime.datetime(2026, 11, 26, 12, 0, tzinfo=datetime.UTC)

#: Commits of the environment's branch, and what runs with each.
BEFORE, RELEASE, BACK = "b" * 40, "c" * 40, "d" * 40
MAIN, OLDER = "1" * 40, "2" * 40
MESSAGES = {
    BEFORE: f"Release toy 1\n\nAccepted.\n\nMain-commit: {OLDER}\nModel-sha256: {'0' * 64}\nImage: toy@sha256:0\n",
    RELEASE: f"Release toy 2\n\nAccepted.\n\nMain-commit: {MAIN}\nModel-sha256: {'1' * 64}\nImage: toy@sha256:1\n",
    BACK: f'Revert "Release toy 2"\n\nThis goes back to toy 1 of commit {BEFORE}.\n\n'
    f"Rolled-back-commit: {MAIN}\nBack-to-commit: {OLDER}\nRolled-back-model: {'1' * 64}",
}


def at(minutes: float) -> str:
    """Return the time that many minutes before NOW, as Kubernetes writes it."""
    return (NOW - datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def application(
    revision: str | None,
    sync: str,
    health: str,
    *,
    since: float = 5,
    synced: str | None = RELEASE,
    phase: str = "Succeeded",
    finished: float = 5,
    message: str = "successfully synced (all tasks run)",
    **status: Any,
) -> Application:
    """Return an Application as Argo CD 3.5 leaves it; `synced` is the revision of its last operation, None: there was none."""
    operation = {"sync": {"revision": synced, "prune": True}, "initiatedBy": {"automated": True}}
    state: dict[str, Any] = {"operation": operation, "phase": phase, "message": message, "startedAt": at(finished + 0.1)}
    if phase != "Running":
        state["finishedAt"] = at(finished)
    state["syncResult"] = {"revision": synced, "source": {"path": "manifests"}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {
            "name": "m-churn-production",
            "namespace": "argocd",
            "annotations": {
                f"notifications.argoproj.io/subscribe.{name}.github": "" for name in ("live", "not-live", "not-applied")
            },
        },
        "spec": {
            "project": "m-churn-production",
            "source": {
                "repoURL": "https://github.com/owner/name.git",
                "targetRevision": "env/production",
                "path": "manifests",
            },
        },
        "status": {
            "health": {"status": health, "lastTransitionTime": at(since)},
            "operationState": state if synced else None,
            "reconciledAt": at(0.1),
            "resources": [{"kind": "Service", "name": "churn", "status": sync, "version": "v1"}],
            "summary": {"images": ["ghcr.io/owner/name@sha256:1"]},
            "sync": {"status": sync, "revision": revision} if revision else {"status": sync},
        }
        | status,
    }


REFUSED = "one or more synchronization tasks are not valid"

#: What Argo CD's controller writes in the course of a release, and which templates are sent then.
STATUSES: dict[str, tuple[Application, list[str]]] = {
    "live": (application(RELEASE, "Synced", "Healthy"), ["live", "live-comment"]),
    # health is still that of the release before, whose pods serve
    "not noticed yet": (application(RELEASE, "OutOfSync", "Healthy", synced=BEFORE, finished=900), []),
    "applying": (application(RELEASE, "OutOfSync", "Healthy", phase="Running"), []),
    "pods are starting": (application(RELEASE, "Synced", "Progressing", since=0.2, finished=0.2), []),
    "a canary waits": (application(RELEASE, "Synced", "Suspended", since=2, finished=9), []),
    "degraded for seconds": (application(RELEASE, "Synced", "Degraded", since=0.5), []),
    "degraded": (application(RELEASE, "Synced", "Degraded", since=2), ["not-live", "not-live-comment"]),
    # the crash-looping pods that it replaces are gone, and the Deployment's condition still is theirs
    "rolled back a second ago": (
        application(BACK, "Synced", "Degraded", since=9, synced=BACK, finished=0.05),
        [],
    ),
    "rolled back": (application(BACK, "Synced", "Healthy", since=0.1, synced=BACK, finished=0.3), ["live", "live-comment"]),
    "refused": (
        application(RELEASE, "OutOfSync", "Healthy", since=900, phase="Failed", message=REFUSED),
        ["not-applied", "not-applied-comment"],
    ),
    "refused and tried again": (application(RELEASE, "OutOfSync", "Healthy", phase="Running", message=REFUSED), []),
    # nothing of it had been applied, so that there is nothing to sync: the last operation is still the refused one
    "refused, then rolled back": (
        application(BACK, "Synced", "Healthy", since=900, phase="Failed", message=REFUSED),
        ["live", "live-comment"],
    ),
    "refused, and a fix not applied yet": (
        application(BACK, "OutOfSync", "Healthy", since=900, phase="Failed", message=REFUSED),
        [],
    ),
    "repository cannot be read": (
        application("env/production", "Unknown", "Healthy", synced="env/production", phase="Error", message="ComparisonError"),
        [],
    ),
    "project not there": (application(None, "Unknown", "Unknown", synced=None), []),
    "log only begun": (application("e" * 40, "Synced", "Healthy", synced=None, resources=None), []),
}
