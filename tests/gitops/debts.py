"""A project with all the evidence of `make debt`, in small: real files, a real release log, and GitHub's stand-in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import yaml
from breast_cancer.settings import Settings
from conftest import SETTINGS
from defaults import ROOT, complete
from github_server import GitHub
from gitops.core import artifacts
from gitops.debt import score
from gitops.debt.evidence_data import LEAK
from gitops.debt.evidence_model import SIMPLE
from gitops.debt.project import TESTS, Project
from gitops.design.questions import OPEN
from gitops.integrations import git
from gitops.releases.record import RECORD, Release

Found = dict[str, Any]

#: Test -> points, where all that there is to find is there. Nothing measures what a column costs.
FULL = {f"{section} {number}": 1.0 for section in ("Data", "Model", "Infra", "Monitor") for number in range(1, 8)}
FULL["Data 3"] = 0.5

VALUE = {
    "unit": "EUR",
    "decisions": 1,
    "running_cost": 0,
    "answers": {"no": {"no": 0, "yes": -1}, "yes": {"no": -9, "yes": -1}},
    "error": None,
    "today": {"column": "x", "at_least": 3.0, "answer": "yes", "otherwise": "no"},
}
#: The steps by which workflows repeat what `make` does.
STEPS = {
    "ci.yaml": ["Tests", "Pipeline", "Gate", "Release"],
    "monitor.yaml": ["Monitor"],
    "retrain.yaml": ["Retrain"],
    "rollback.yaml": ["Roll back"],
}


class World:
    """The project in `folder`, with origin beside it."""

    def __init__(self, folder: Path, github: GitHub) -> None:
        self.folder, self.github, self.stale = folder / "project", github, list[str]()
        self.columns, self.alerts, self.kind, self.rollback = ["x", "y"], ["ModelStale", "ModelSlow"], "Rollout", True
        self.debts: dict[str, Found] = {}  # by version, what its release has recorded
        values = complete(SETTINGS | {"value": VALUE, "retrain": {"tune_trials": 10}})
        values["data"] = values["data"] | {"slices": ["site"], "positive": "yes"}
        values["gate"] = values["gate"] | {"slices": {"roc_auc": 0.5}}
        self.settings = Settings.model_validate(values)
        for name in ("docs", "tests", ".github", "src"):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__", "gitops"))
        for path in self.folder.glob("docs/*.md"):
            self.write(path, path.read_text().replace(OPEN, "Answered."))
        overlay = self.folder / "k8s/overlays/production/kustomization.yaml"
        for path in (overlay, self.folder / "requirements/pipeline.txt", self.folder / "data/raw.csv"):
            self.write(path, "one")
        self.write(self.folder / "params.yaml", yaml.safe_dump(values))
        self.write(self.folder / ".gitignore", "/build/\n/reports/\n/data/\n/evaluation/\n/package/\n/dvc.lock\n")
        subprocess.run(["git", "init", "--quiet", "--bare", folder / "origin.git"], check=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", str(folder / "origin.git"))
        self.commit("Owner")
        self.write(self.folder / "requirements/pipeline.txt", "two")
        self.commit("dependabot[bot]")
        self.results()
        self.tested()
        self.released()
        self.repeated()

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", "-C", self.folder, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def write(self, path: Path | str, content: Any) -> None:
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    def read(self, path: Path) -> Any:
        return json.loads((self.folder / path).read_text())

    def change(self, path: Path, **changes: Any) -> None:
        self.write(path, self.read(path) | changes)

    def reopen(self, path: str, question: str) -> None:
        """Take the answer to a question away."""
        text, found = (self.folder / path).read_text(), rf"(\*\*{re.escape(question)}\*\*\n<!--.*-->\n\n)[^*#]*"
        assert re.search(found, text)
        self.write(path, re.sub(found, rf"\1{OPEN}\n\n", text))

    def commit(self, author: str) -> None:
        self.git("add", "--all")
        self.git("-c", f"user.name={author}", "-c", "user.email=a@localhost", "commit", "--quiet", "--message", "One")

    def results(self) -> None:
        """Write what pipeline, gate, tuning and monitor would."""
        passed = [{"check": check, "status": "passed"} for check in (LEAK, SIMPLE)]
        slices = {"site": {"a": {"rows": 90, "metrics": {"roc_auc": {"value": 0.9}}}}}
        release = {"model_version": "v0", "difference": {"value": 0.1}}
        checks = [{"check": check, "passed": True} for check in ("refused requests", "feature drift")]
        for path, content in {
            artifacts.SCHEMA: {"features": [{"name": "x"}]},
            artifacts.DATA_VERDICT: {"passed": True, "conditions": passed},
            artifacts.MODEL_VERDICT: {"passed": True, "conditions": passed},
            artifacts.METRICS: {"model_sha256": "s", "slices": slices},
            artifacts.EXPLANATIONS: {"of_columns": 1, "features": [{"name": "x", "importance": 0.1}]},
            artifacts.GATE: {"model_sha256": "s", "releases": [release]},
            artifacts.TUNE: {"finished": 40},
            artifacts.MONITOR: {"rows": 200, "checks": checks, "performance": {"passed": True, "reason": "as before"}},
            Path("reports/erase.md"): "Erased.",
            artifacts.LOCK: "schema: '2.0'\n",
        }.items():
            self.write(path, content)
        self.archive("gitops/serving/server/shapley.py")

    def archive(self, name: str) -> None:
        path = self.folder / "package/tumour.mar"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, "")

    def tested(self, failing: str = "") -> None:
        """Write what `make test` leaves: all tests that tests/ defines have passed, but `failing`."""
        cases = [
            f'<testcase classname="tests.{path.stem}" name="{name}">{"<failure/>" * (name == failing)}</testcase>'
            for path in sorted(self.folder.glob("tests/test_*.py"))
            for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
        ]
        self.write(TESTS, f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")

    def released(self) -> None:
        """Write production's log anew: two releases, of which one was taken back, and came again."""
        tip = None
        old, new = self.record("v0", ["x"]), self.record("v1", self.columns)
        for record in [old, new, old, new] if self.rollback else [old, new]:
            files = {f"{at}.yaml": yaml.safe_dump(one).encode() for at, one in enumerate(self.objects())}
            tree = git.write_tree({RECORD: record.model_dump_json().encode(), "manifests": git.write_tree(files)})
            parent: list[str] = ["-p", tip] if tip else []
            identity = ["-c", "user.name=release", "-c", "user.email=a@localhost"]
            tip = self.git(*identity, "commit-tree", tree, *parent, "-m", "Release")
        self.git("push", "--quiet", "--force", "origin", f"{tip}:refs/heads/env/production")
        self.github.deployments.clear()
        self.github.report(new.commit, "production", "success")

    def record(self, version: str, columns: list[str]) -> Release:
        file = {"path": "p", "md5": version}
        return Release.model_validate(
            {
                "commit": self.git("rev-parse", "HEAD"),
                "model": {"name": "tumour", "version": version, "sha256": version, "md5": version},
                "package": file,
                "predictions": file,
                "test_md5": "t",
                "data": file,
                "params": {},
                "metrics": {},
                "columns": dict.fromkeys(columns, "number"),
                "gate": {"accepted": True, "mode": "absolute", "reason": ""},
                "mlflow_run_id": None,
                "image": "i",
                "previous": None,
                **(score.recorded(self.debts[version]) if version in self.debts else {}),
            }
        )

    def objects(self) -> list[dict[str, Any]]:
        strategy = {"canary": {"steps": [{"setWeight": 20}]}}
        rules = [{"alert": name} for name in self.alerts]
        return [
            {"kind": self.kind, "spec": {"strategy": strategy}},
            {"kind": "PrometheusRule", "spec": {"groups": [{"rules": rules}]}},
        ]

    def repeated(self, without: str = "") -> None:
        """Let each workflow have run once, with all its steps but `without`."""
        self.github.runs.clear()
        self.github.rules = [{"type": "pull_request", "parameters": {"required_approving_review_count": 1}}]
        for identity, (workflow, steps) in enumerate(STEPS.items(), 1):
            self.github.ran(identity, "a" * 40, workflow=workflow)
            done = [{"name": name, "conclusion": "skipped" if name == without else "success"} for name in steps]
            self.github.jobs[identity] = [{"steps": done}]

    def debt(self) -> Found:
        """Return what `make debt` finds."""
        found: Found = score.evaluate(Project(self.settings, self.stale))
        return found

    def points(self) -> dict[str, float]:
        return {test["id"]: test["value"] for test in self.debt()["tests"]}
