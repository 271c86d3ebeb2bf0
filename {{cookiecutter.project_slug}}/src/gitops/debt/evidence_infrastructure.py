"""Evidence of the tests of infrastructure: Infra 1 to 7."""

from __future__ import annotations

import zipfile

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.debt.evidence_data import tested
from gitops.debt.project import Project, Seen
from gitops.integrations import kustomize
from gitops.integrations.github import GitHub
from gitops.releases import history

#: The module of the archive that explains an answer.
EXPLAINER = "shapley.py"

#: Who says on GitHub that a job has ended, which says nothing of the cluster.
ACTIONS = "github-actions[bot]"


def reproducible(project: Project) -> Seen:
    """Infra 1: the test that trains twice."""
    return tested(project, ("train", "test_the_same_training_is_the_same_file"))


def specification(project: Project) -> Seen:
    """Infra 2: the tests of the network and of the settings."""
    return tested(project, ("model", ""), ("settings", ""))


def integrated(project: Project) -> Seen:
    """Infra 3: the whole pipeline has run on this commit."""
    if not artifacts.LOCK.exists() or project.stale:
        return Seen(0, f"out of date: {', '.join(project.stale) or artifacts.LOCK}")
    return Seen(1, "no stage is out of date")


def validated(project: Project) -> Seen:
    """Infra 4: the gate has looked at this model."""
    return Seen(1, "the gate has judged this model") if project.gate else Seen(0, "no gate's result for this model")


def debuggable(project: Project) -> Seen:
    """Infra 5: the packaged model explains a single answer, term by term (`"explain": true` in a request)."""
    path = artifacts.PACKAGE / f"{project.settings.package.model_name}.mar"
    if "package" in project.stale or not path.exists():
        return Seen(0, "no archive of this model")
    with zipfile.ZipFile(path) as archive:
        explains = any(name.endswith(EXPLAINER) for name in archive.namelist())
    return Seen(float(explains), f"the archive {'explains' if explains else 'does not explain'} single answers")


def canary(project: Project) -> Seen:
    """Infra 6: production's release is a Rollout with steps, and the cluster has said that it went through."""
    rollouts = [one for one in project.objects() if one["kind"] == "Rollout"]
    if not any(one["spec"].get("strategy", {}).get("canary", {}).get("steps") for one in rollouts):
        return Seen(0, "production's release has no canary")
    return _live(project, "production's release has a canary")


def rolled_back(project: Project) -> Seen:
    """Infra 7: a release was taken back."""
    for environment in kustomize.environments():
        for one in project.releases(environment):
            if any(period.rolled_back for period in one.periods):
                return Seen(1, f"{one.record.title} was taken back on {environment}")
    return Seen(0, "no release was ever taken back")


def _live(project: Project, text: str) -> Seen:
    """Return a full point where the cluster reports production's release as live, half a point where it does not."""
    present = history.deployed(project.releases())
    try:
        state = project.once("live", lambda: _reported(project.github, present.record.commit)) if present else None
    except ProjectError:
        return Seen(0.5, f"{text}; what the cluster did with it is not known", known=False)
    return Seen(1 if state == "success" else 0.5, f"{text}; the cluster reports: {state or 'nothing'}")


def _reported(client: GitHub, commit: str) -> str | None:
    """Return the newest state that the cluster has reported of a commit of main in production."""
    deployments = client.every("deployments", sha=commit, environment=kustomize.PRODUCTION)
    statuses = [
        status
        for one in deployments
        if one["creator"]["login"] != ACTIONS
        for status in client.every(f"deployments/{int(one['id'])}/statuses")
    ]
    newest = max(statuses, key=lambda status: int(status["id"]), default=None)
    return str(newest["state"]) if newest else None


def alerts(project: Project, name: str) -> Seen:
    """Return whether production's release has Prometheus' alert `name`, and is live."""
    rules = [one for one in project.objects() if one["kind"] == "PrometheusRule"]
    named = {rule.get("alert") for one in rules for group in one["spec"]["groups"] for rule in group["rules"]}
    return _live(project, f"production has the alert {name}") if name in named else Seen(0, f"no alert {name}")
