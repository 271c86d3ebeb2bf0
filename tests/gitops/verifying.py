"""Shared by the tests of `make verify`: a small project whose stages are those of a real one, and run in a second.

DVC, Git and the model file are real; training is a copy of a model that was exported before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import tiny_model
import yaml
from defaults import complete
from dvc.repo import Repo
from dvc.utils.serialize import dump_yaml, load_yaml
from gitops.deployment import verify
from releases import SETTINGS

STAGES = {
    "prepare": (
        ["data/raw.csv"],
        ["data/prepared/schema.json", "data/prepared/test.parquet", "data/prepared/train.parquet"],
    ),
    "validate_data": (["data/prepared/train.parquet"], ["reports/validate_data.json", "reports/validate_data.html"]),
    "train": (
        ["data/prepared/train.parquet", "data/prepared/schema.json", "train.py"],
        ["model/model.pt2", "model/decision.json", "model/run.json", "model/learning_curve.csv"],
    ),
    "evaluate": (
        ["model/model.pt2", "model/decision.json", "data/prepared/test.parquet"],
        [f"evaluation/{name}" for name in ("metrics.json", "predictions.parquet", "plots", "explanations.json")],
    ),
    "validate_model": (["evaluation/predictions.parquet"], ["reports/validate_model.json"]),
    "package": (["model/model.pt2", "handler.py"], ["package/toy.mar", "package/golden_response.json"]),
}  # fmt: skip

#: What each stage does. `trained` gets a line for each training.
PROGRAM = """
import hashlib, json, os, random, shutil, sys, zipfile
from pathlib import Path

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

def read(path):
    return Path(path).read_text()

def prepare():
    import pandas as pd
    table = pd.read_csv("data/raw.csv")
    schema = {"rows": {"raw": len(table)}, "task": "binary", "target": {"name": "y"}, "features": []}
    write("data/prepared/schema.json", json.dumps(schema))
    table.iloc[:30].to_parquet("data/prepared/train.parquet", index=False)
    table.iloc[30:].to_parquet("data/prepared/test.parquet", index=False)

def validate_data():
    write("reports/validate_data.json", json.dumps({"passed": True, "conditions": [], "not_run": []}))
    write("reports/validate_data.html", str(random.random()))

def train():
    with open(os.environ["TRAINED"], "a") as file:
        file.write("trained\\n")
    Path("model").mkdir(exist_ok=True)
    shutil.copyfile(read("train.py"), "model/model.pt2")
    write("model/run.json", json.dumps({"run_id": "0" * 32}))
    write("model/learning_curve.csv", "epoch\\n1\\n")
    write("model/decision.json", json.dumps({"threshold": 0.25, "metric": "f1", "value": 0.5}))

def evaluate():
    import pandas as pd
    model = hashlib.sha256(Path("model/model.pt2").read_bytes()).hexdigest()
    test = pd.read_parquet("data/prepared/test.parquet")
    score = (int(model, 16) % 1000) / 1000
    scores = {"roc_auc": {"value": score, "low": 0.1, "high": 1.0}}
    write("evaluation/metrics.json", json.dumps({"metrics": scores, "model_sha256": model}))
    test.assign(p=test["x"] * score).to_parquet("evaluation/predictions.parquet", index=False)
    write("evaluation/plots/roc.csv", f"fpr,tpr\\n0,{score}\\n")
    write("evaluation/explanations.json", json.dumps({"rows": 10, "features": [{"name": "x", "importance": 0.25}]}))

def validate_model():
    condition = {"check": "a", "condition": "b", "status": "passed", "details": "0.12"}
    write("reports/validate_model.json", json.dumps({"passed": True, "conditions": [condition], "not_run": []}))

def package():
    write("package/golden_response.json", json.dumps({"predictions": [0.25]}))
    with zipfile.ZipFile("package/toy.mar", "w") as archive:
        archive.writestr(zipfile.ZipInfo("handler.py"), read("handler.py"))
        archive.writestr(zipfile.ZipInfo("model.pt2"), Path("model/model.pt2").read_bytes())

globals()[sys.argv[1]]()
"""


class Project:
    """The project on main, in which nothing has been run; `branch` is a clone in which a branch has run everything."""

    def __init__(self, folder: Path) -> None:
        self.path, self.trained = folder / "project", folder / "trained"
        self.honest = tiny_model.save(folder / "honest.pt2")
        for name in ("project", "project/data"):
            (folder / name).mkdir(exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")
        ignored = "data/prepared", "model", "evaluation", "reports", "package", "build", "dvc-remote"
        self.write(".gitignore", "".join(f"/{name}/\n" for name in ignored) + "__pycache__/\n")
        self.write("stages.py", PROGRAM)
        self.write("params.yaml", yaml.safe_dump(complete(SETTINGS)))
        self.write("train.py", str(self.honest))
        self.write("handler.py", "# answers requests\n")
        self.write("data/raw.csv", "x,y\n" + "".join(f"{row},{row % 2}\n" for row in range(40)))
        self.write("dvc.yaml", yaml.safe_dump({"stages": {name: self._stage(name) for name in STAGES}}))
        with contextlib.chdir(self.path):
            Repo.init().close()
            config = "[core]\n  remote = storage\n  analytics = false\n['remote \"storage\"']\n  url = ../dvc-remote\n"
            self.write(".dvc/config", config)
            with Repo() as repository:
                repository.add(["data/raw.csv"])
                repository.push()
        self.commit("Begin")

    def _stage(self, name: str) -> dict[str, Any]:
        deps, outs = STAGES[name]
        return {"cmd": f"{sys.executable} stages.py {name}", "deps": deps, "outs": outs}

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=Tester", "-c", "user.email=t@localhost")
        command = ["git", "-C", str(self.path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def pipeline(self) -> None:
        """Run everything that is stale, as on a branch."""
        command = [sys.executable, "-m", "dvc", "repro", "--quiet"]
        subprocess.run(command, cwd=self.path, env=self.environment(), check=True)

    def environment(self) -> dict[str, str]:
        return os.environ | {"TRAINED": str(self.trained), "DVC_NO_ANALYTICS": "1"}

    def trainings(self) -> int:
        return len(self.trained.read_text().splitlines()) if self.trained.exists() else 0

    def forget(self, *, cache: bool = True) -> None:
        """Leave what a fresh runner has: the commit and the DVC remote, and with `cache` the cache."""
        for name in ("data/prepared", "model", "evaluation", "reports", "package", "build"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        if not cache:
            shutil.rmtree(self.path / ".dvc/cache", ignore_errors=True)
            (self.path / "data/raw.csv").unlink(missing_ok=True)

    def lock(self) -> dict[str, Any]:
        found: dict[str, Any] = load_yaml(str(self.path / "dvc.lock"))
        return found

    def forge(self, stage: str, path: str, content: bytes, ending: str = "") -> None:
        """Let dvc.lock and DVC's cache say that a stage has this output, and that others have read it."""
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + ending
        lock = self.lock()
        for name, entry in lock["stages"].items():
            for item in [*entry["deps"], *(entry["outs"] if name == stage else [])]:
                if item["path"] == path:
                    item |= {"md5": md5, "size": len(content)}
        dump_yaml(str(self.path / "dvc.lock"), lock)
        self.plant(md5, content)

    def plant(self, md5: str, content: bytes) -> None:
        """Put an object into DVC's cache and its remote, under any name."""
        for root in (".dvc/cache", "dvc-remote"):
            path = self.path / root / "files/md5" / md5[:2] / md5[2:]
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                path.chmod(0o644)
            path.write_bytes(content)
            path.chmod(0o444)  # DVC trusts what cannot be written

    def verify(self, *, train: bool = False) -> dict[str, Any]:
        with contextlib.chdir(self.path):
            os.environ["TRAIN_ON_MAIN"] = "1" if train else ""
            verify.main()
            found: dict[str, Any] = json.loads(Path("reports/verification.json").read_text())
        return found

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text())
