"""What the files of a repository show: each question is answered by what is missing, an empty text for nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

PIPELINE = Path("dvc.yaml")
PRODUCTION = Path("k8s/overlays/production/kustomization.yaml")
APPLICATION = Path("k8s/argocd/application.yaml")

#: Starts or continues a run of MLflow.
LOGGED = re.compile(r"^[^#\n]*\btracking\.(start|resume)\(", re.MULTILINE)


class Repository:
    """The files of a project, each asked for what shows a practice. An answer is what is missing; empty for nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, Any] = {}

    def read(self, path: Path) -> Any:
        """Return a YAML file's content; None where there is none that can be read."""
        if path not in self._read:
            try:
                self._read[path] = yaml.safe_load((self.root / path).read_text(encoding="utf-8"))
            except (OSError, ValueError, yaml.YAMLError):
                self._read[path] = None
        return self._read[path]

    def files(self, *patterns: str) -> str:
        """Ask for a file of each pattern."""
        return ", ".join(pattern for pattern in patterns if not any(self.root.glob(pattern)))

    def stages(self, *names: str) -> str:
        """Ask for stages of the pipeline."""
        return _absent(f"stages of {PIPELINE}", names, _at(self.read(PIPELINE), "stages"))

    def runs(self, workflow: Path, *targets: str) -> str:
        """Ask for steps of a workflow that run `make TARGET` alone."""
        steps = [_at(step, "run") for step in self._steps(workflow)]
        return _absent(f"steps of {workflow}", [f"make {target}" for target in targets], steps)

    def uses(self, workflow: Path, action: str) -> str:
        """Ask for a step of a workflow that is this action, in any version."""
        actions = [str(_at(step, "uses")).partition("@")[0] for step in self._steps(workflow)]
        return _absent(f"steps of {workflow}", [action], actions)

    def starts(self, workflow: Path, *events: str) -> str:
        """Ask for events that start a workflow."""
        content = self.read(workflow)
        present = _at(content, "on") or _at(content, True)  # YAML 1.1 reads `on` as true
        return _absent(f"events of {workflow}", events, [present] if isinstance(present, str) else present)

    def component(self, name: str) -> str:
        """Ask for a component of production's overlay."""
        present = [Path(str(one)).name for one in _list(_at(self.read(PRODUCTION), "components"))]
        return _absent(f"components of {PRODUCTION}", [name], present)

    def depends(self, stage: str, path: str) -> str:
        """Ask for a file that a stage depends on."""
        return _absent(f"deps of {stage} in {PIPELINE}", [path], _at(self.read(PIPELINE), "stages", stage, "deps"))

    def logs(self, module: str) -> str:
        """Ask for a module of the project's own package that logs to MLflow."""
        for path in self.root.glob(f"src/*/{module}"):
            if LOGGED.search(path.read_text(encoding="utf-8", errors="replace")):
                return ""
        return f"a run of MLflow in src/*/{module}"

    def synced(self, branch: str) -> str:
        """Ask for Argo CD's automated sync of a branch."""
        spec = _at(self.read(APPLICATION), "spec")
        automated = _at(spec, "syncPolicy", "automated")
        return (
            ""
            if automated and _at(spec, "source", "targetRevision") == branch
            else f"automated sync of {branch} in {APPLICATION}"
        )

    def _steps(self, workflow: Path) -> list[Any]:
        jobs = _at(self.read(workflow), "jobs")
        names = jobs if isinstance(jobs, dict) else {}
        return [step for name in names for step in _list(_at(jobs, name, "steps"))]


def _at(content: Any, *keys: Any) -> Any:
    """Return what lies below these keys of nested mappings; None where one of them is not there."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _list(content: Any) -> list[Any]:
    return content if isinstance(content, list) else []


def _absent(what: str, wanted: Iterable[str], present: Any) -> str:
    there = present if isinstance(present, (list, dict)) else []
    absent = [name for name in wanted if name not in there]
    return f"{', '.join(absent)} among the {what}" if absent else ""
