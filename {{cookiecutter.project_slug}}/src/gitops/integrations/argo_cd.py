"""What Argo CD would make of a release's objects, said before they are released.

That is what it would wait for, which is refused, and what it may not apply or does not know, which is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from gitops.core.artifacts import ProjectError

APP_PROJECT = Path("k8s/argocd/project.yaml")

#: Annotations that make a sync wait for the health of its objects. One that waits or is tried again takes in no newer
#: commit: `make rollback` would be held up by the release that it is to take back.
#: https://argo-cd.readthedocs.io/en/stable/user-guide/sync-waves/
WAITS = (
    "argocd.argoproj.io/hook",
    "argocd.argoproj.io/sync-wave",
    "helm.sh/hook",
    "helm.sh/hook-weight",  # a wave too, on any object
)

#: Groups of Kubernetes itself; the others come with an operator.
BUILT_IN = frozenset({"", "apps", "autoscaling", "batch", "policy"}) | {
    f"{name}.k8s.io"
    for name in (
        "admissionregistration",
        "apiextensions",
        "apiregistration",
        "certificates",
        "coordination",
        "discovery",
        "events",
        "networking",
        "node",
        "rbac.authorization",
        "resource",
        "scheduling",
        "storage",
    )
}

#: Who brings the kinds of a group.
OPERATORS = {
    "argoproj.io": "Argo Rollouts",
    "keda.sh": "KEDA",
    "monitoring.coreos.com": "the Prometheus operator",
}


def require_no_waits(rendered: dict[str, bytes], overlay: Path) -> None:
    """Raise ProjectError for an object with an annotation of WAITS. `rendered`: file name -> YAML."""
    for item in _objects(rendered):
        for name in sorted({*WAITS} & (item["metadata"].get("annotations") or {}).keys()):
            raise ProjectError(
                f"{overlay}: {item['kind']} {item['metadata']['name']} has the annotation {name}: Argo CD would wait "
                "during a release, and take in no rollback meanwhile. Remove it: a probe says whether a pod is ready, "
                "and a plain Job runs once for each release that changes it"
            )


def not_permitted(rendered: dict[str, bytes]) -> list[str]:
    """Return a warning for each kind of object that k8s/argocd/project.yaml does not list.

    Argo CD refuses a release as a whole if it may not apply one of its objects.
    """
    permitted = yaml.safe_load(APP_PROJECT.read_text(encoding="utf-8")) if APP_PROJECT.exists() else {"spec": {}}
    listed = permitted["spec"].get("namespaceResourceWhitelist", [{"group": "*", "kind": "*"}])
    return [
        f"{APP_PROJECT} does not list the kind {kind} (group {group!r}): Argo CD would refuse the release as a whole"
        for group, kind in sorted(_kinds(rendered))
        if not any(fnmatch(group, entry["group"]) and fnmatch(kind, entry["kind"]) for entry in listed)
    ]


def needed(rendered: dict[str, bytes], present: dict[str, bytes]) -> list[str]:
    """Return a line for each group with custom kinds that are new in `rendered`: not in `present`, the release before.

    Argo CD applies nothing of a release with a kind that the cluster does not know.
    """
    new = sorted(_kinds(rendered) - _kinds(present))
    lines = []
    for group in sorted({group for group, _ in new} - BUILT_IN):
        kinds = " and ".join(kind for each, kind in new if each == group)
        lines.append(
            f"The release needs {kinds} ({group}) in the cluster, which {OPERATORS.get(group, 'an operator')} brings: "
            "without that Argo CD applies nothing of it"
        )
    return lines


def _kinds(files: dict[str, bytes]) -> set[tuple[str, str]]:
    """Return group and kind of each object."""
    return {(item["apiVersion"].rpartition("/")[0], item["kind"]) for item in _objects(files)}


def _objects(files: dict[str, bytes]) -> Iterator[dict[str, Any]]:
    for content in files.values():
        if item := yaml.safe_load(content):
            yield item
