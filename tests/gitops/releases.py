"""Shared by the tests of releases and rollbacks: real repositories, a bare one as origin, clones as laptops and jobs.

Only DVC is replaced (test_store.py and test_verify.py test it), and the gate's computation, whose result is written by
hand.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from defaults import ROOT, complete
from gitops.core import params
from gitops.core.artifacts import ProjectError, digest
from gitops.deployment import deploy, plan, rollback
from gitops.deployment.planned import Plan
from gitops.integrations import dvc, dvc_remote, git, kustomize
from gitops.releases import release, trained, workspace
from gitops.releases.record import Training

SETTINGS = {
    "data": {"path": "data/raw.csv", "target": "y", "task": "binary"},
    "gate": {"primary_metric": "roc_auc", "thresholds": {"roc_auc": 0.5}},
    "package": {"model_name": "toy"},
}


#: What the stage `train` has decided.
DECISION = {"threshold": 0.25, "metric": "f1", "value": 0.5}

#: What the stage `prepare` has seen, and what `evaluate` has found of any model.
SCHEMA = {
    "task": "binary",
    "target": {"name": "y", "classes": ["no", "yes"]},
    "features": [{"name": "x", "dtype": "number", "missing": 0.0, "min": 0.5, "max": 9.5}],
    "rows": {"raw": 9, "train": 4, "val": 2, "test": 3},
}
EVALUATED = {
    "rows": 3,
    "groups": 3,
    "test_md5": "0" * 32,
    "slices": {},
    "calibration": {"temperature": 1.0, "error_before": 0.1, "error_after": 0.1},
}

#: By what staging's objects differ from production's here.
STAGED = {"environment": "staging"}

#: What `make verify` has found.
TRAINED = Training(trained_on="branch", inputs="1" * 64)

#: kustomize is the slow part, and asked for the same few models again and again.
render = kustomize.render
rendered_once = functools.cache(render)


class Job:
    """A clone of origin in which a pipeline has run, and what people and CI do there."""

    def __init__(self, origin: Path, path: Path) -> None:
        self.path = path
        self.git("clone", "--quiet", str(origin), str(path), at=origin)
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@localhost")
        self.write("model/run.json", '{"run_id": "run-1"}')
        self.write("model/decision.json", json.dumps(DECISION))
        self.write("data/prepared/schema.json", json.dumps(SCHEMA))

    def git(self, *arguments: str, at: Path | None = None) -> str:
        command = ["git", "-C", str(at or self.path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def merge(self, text: str) -> str:
        """Change main, on origin too, and return its commit."""
        self.write("README.md", text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", text)
        self.git("push", "--quiet", "origin", "HEAD:main")
        return self.git("rev-parse", "HEAD")

    def train(self, model: str, handler: str = "") -> None:
        """Write what the pipeline would, for a model that is only a text."""
        self.write("model/model.pt2", model)
        self.write("package/toy.mar", model + handler)
        self.write("evaluation/predictions.parquet", model)
        explained = {"metric": "roc_auc", "rows": 3, "features": [], "of": model}
        self.write("evaluation/explanations.json", json.dumps(explained))
        score = {"roc_auc": {"value": 0.9, "low": 0.8, "high": 1.0}}
        self.write("evaluation/metrics.json", json.dumps({"metrics": score, **EVALUATED}))

    def gate(self, **changes: Any) -> dict[str, Any]:
        """Write the gate's result for the model, compared with the release that origin has now."""
        with contextlib.chdir(self.path):
            present = release.production()
            result: dict[str, Any] = {
                "accepted": True,
                "reason": "Accepted.",
                "mode": "absolute",
                "rules": [],
                "model_sha256": digest(Path("model/model.pt2")),
                "release": present and present.commit,
            }
        result |= changes
        self.write("reports/gate.json", json.dumps(result))
        return result

    def plan(self, redeploy: bool = False) -> Plan | None:
        with contextlib.chdir(self.path):
            return plan.plan(params.load(), redeploy=redeploy)

    def deploy(self, image: str | None = None, redeploy: bool = False) -> str | None:
        """Plan, and release the plan, if there is something to release."""
        return self.carry_out(image, redeploy) if self.plan(redeploy) else None

    def carry_out(self, image: str | None = None, redeploy: bool = False) -> str | None:
        """Release the plan that is there, as the workflow's last job does."""
        with contextlib.chdir(self.path):
            commit: str | None = deploy.deploy(image, redeploy=redeploy)
        return commit

    def compete(self) -> str | None:
        """Release the plan that is there, and plan again where production has changed since the gate ran."""
        while True:
            try:
                return self.carry_out()
            except ProjectError as error:
                if "run `make gate` and `make plan` again" not in str(error):
                    raise
            self.gate()
            with contextlib.suppress(ProjectError):  # production has changed between these two as well
                if self.plan() is None:
                    return None

    def release(self, model: str) -> str:
        """Merge, train, run the gate, plan and deploy; return the new commit of env/production."""
        self.merge(f"Change to {model}")
        self.train(model)
        self.gate()
        commit = self.deploy()
        assert commit is not None
        return commit

    def card(self, commit: str | None) -> str:
        """Return the model card of a release."""
        with contextlib.chdir(self.path):
            found: str | None = release.card(str(commit))
        assert found is not None
        return found

    def without_card(self, commit: str, environment: str = "production") -> str:
        """Make an environment's release one without a card, as of before there were any; return its commit."""
        with contextlib.chdir(self.path):
            tree = deploy.contents(release.read(commit), git.run("rev-parse", f"{commit}:{release.MANIFESTS}"), None)
            bare: str = git.write_commit(tree, None, "Without a card")
        self.git("push", "--quiet", "--force", "origin", f"{bare}:refs/heads/env/{environment}")
        return bare

    def rollback(self, environment: str = "production") -> str | None:
        with contextlib.chdir(self.path):
            commit: str | None = rollback.rollback(environment)
        return commit

    def production(self, environment: str = "production") -> Any:
        with contextlib.chdir(self.path):
            present = release.present(environment)
        assert present is not None
        return present

    def releases(self) -> int:
        """Return how many commits env/production has on origin."""
        self.production()
        return int(self.git("rev-list", "--count", "origin/env/production"))

    def tree(self, commit: str) -> str:
        return self.git("rev-parse", f"{commit}^{{tree}}")

    def manifests(self, commit: str) -> dict[str, bytes]:
        with contextlib.chdir(self.path):
            objects: dict[str, bytes] = release.manifests(commit)
        return objects


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep out the settings of whoever runs the tests, and DVC."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "maintenance.auto")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "false")
    monkeypatch.setattr(kustomize, "PROGRAM", ROOT / kustomize.PROGRAM)
    monkeypatch.setattr(dvc, "stale", list)
    monkeypatch.setattr(dvc, "push", lambda: None)
    monkeypatch.setattr(dvc_remote, "ensure", lambda md5s: [])
    monkeypatch.setattr(dvc_remote, "in_repository", lambda: False)
    monkeypatch.setattr(trained, "push", lambda: None)
    monkeypatch.setattr(workspace, "verified", lambda candidate: candidate.model_copy(update={"training": TRAINED}))
    monkeypatch.setattr(kustomize, "render", rendered_once)


def make_origin(tmp_path: Path, *, staging: bool = False) -> Path:
    """A bare repository whose main holds what a release is rendered from, with or without staging as it is asked."""
    bare, first = tmp_path / "origin.git", tmp_path / "first"
    for path, options in ((bare, ["--bare"]), (first, [])):
        subprocess.run(["git", "init", "--quiet", "--initial-branch=main", *options, path], check=True)
    shutil.copytree(ROOT / "k8s", first / "k8s")
    overlays = first / "k8s/overlays"
    shutil.rmtree(overlays / "staging", ignore_errors=True)
    if staging:
        settings = yaml.safe_load((overlays / "production/kustomization.yaml").read_text())
        (overlays / "staging").mkdir()
        (overlays / "staging/kustomization.yaml").write_text(yaml.safe_dump(settings | {"commonAnnotations": STAGED}))
    (first / "serving").mkdir()
    for name in (".gitignore", "serving/config.properties"):
        shutil.copy(ROOT / name, first / name)
    (first / "params.yaml").write_text(yaml.safe_dump(complete(SETTINGS)))
    (first / "data").mkdir()
    (first / "data/raw.csv.dvc").write_text(f"outs:\n- md5: {'d' * 32}\n  path: raw.csv\n")
    subprocess.run(["git", "-C", bare, "config", "receive.denyDeleteCurrent", "ignore"], check=True)
    commands = ["add --all", "-c user.name=Tester -c user.email=t@localhost commit -qm First", f"push -q {bare} main"]
    for command in commands:
        subprocess.run(["git", "-C", first, *command.split()], check=True)
    return bare


def together(actions: list[Callable[[], object]]) -> list[int | None]:
    """Run each action in a process of its own, all at the same time, and return their exit statuses."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(len(actions))

    def act(action: Callable[[], object]) -> None:
        start.wait()
        action()

    processes = [context.Process(target=act, args=(action,)) for action in actions]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def refused(match: str) -> Any:
    return pytest.raises(ProjectError, match=match)
