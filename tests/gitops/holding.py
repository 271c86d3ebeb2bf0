"""Shared by the tests of what a rollback holds up: changes of main of each kind, and what is done about them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from gitops.core import params
from gitops.integrations import kustomize
from gitops.reporting import context, sections
from releases import Job, isolate, refused, render

STAGES = ["prepare", "validate_data", "train", "evaluate", "validate_model", "package"]


def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep out whoever runs the tests, and render each state of the manifests once."""
    isolate(monkeypatch)
    known: dict[Any, dict[str, bytes]] = {}

    def rendered(*arguments: Any) -> dict[str, bytes]:
        """Render what has not been rendered yet: kustomize is the slow part."""
        folder = arguments[4] / "k8s" if len(arguments) > 4 else Path("k8s")
        files = tuple(path.read_bytes() for path in sorted(folder.rglob("*.yaml")))
        key = (*arguments[:4], files)
        if key not in known:
            known[key] = render(*arguments)
        return known[key]

    monkeypatch.setattr(kustomize, "render", rendered)


def merge(job: Job, kind: str, text: str = "bad") -> str:
    """Change main by a model, a handler, a manifest, data or documents, run the pipeline, and return main's commit."""
    if kind == "manifest":
        path = job.path / "k8s/base/service.yaml"
        service = path.read_text()
        if "annotations:\n" not in service:
            service = service.replace("metadata:\n", "metadata:\n  annotations:\n", 1)
        path.write_text(service.replace("annotations:\n", f"annotations:\n    {text}: changed\n", 1))
    elif kind == "data":
        job.write("data/raw.csv.dvc", f"outs:\n- md5: {text[0] * 32}\n  path: raw.csv\n")
    elif kind == "documents":
        job.write("docs/operate.md", text)
    else:
        job.write(f"src/{kind}.py", text)
    commit = push(job, f"{kind}: {text}")
    run_pipeline(job)
    return commit


def push(job: Job, message: str) -> str:
    """Commit all that has changed to main, on origin too, and return the commit."""
    job.git("add", "--all")
    job.git("commit", "--quiet", "--allow-empty", "--message", message)
    job.git("push", "--quiet", "--force", "origin", "HEAD:main")
    return job.git("rev-parse", "HEAD")


def run_pipeline(job: Job) -> None:
    """Train the model that src/model.py and the data give, and pack it with the handler; run the gate."""
    paths = (job.path / f"src/{name}.py" for name in ("model", "handler"))
    model, handler = (path.read_text() if path.exists() else "" for path in paths)
    job.train(f"{model} of {(job.path / 'data/raw.csv.dvc').read_text()}", handler)
    job.gate()


def planned(job: Job) -> bool:
    return job.plan() is not None


def held(job: Job, match: str) -> None:
    """`make plan` plans nothing, and `make deploy` releases no plan that was made before."""
    with refused(match):
        job.plan()
    with refused("plan.json is missing"):
        job.carry_out()


def undone_on_main(job: Job, *commits: str) -> None:
    for commit in commits:
        job.git("revert", "--no-edit", *(["-m", "1"] if len(parents(job, commit)) > 1 else []), commit)
    job.git("push", "--quiet", "origin", "HEAD:main")
    run_pipeline(job)


def parents(job: Job, commit: str) -> list[str]:
    return job.git("log", "-1", "--format=%P", commit).split()


def began(job: Job, kind: str) -> tuple[str, str]:
    """Release twice and return the two commits of main; the second changes what `kind` says."""
    first = merge(job, "model", "good")
    assert job.deploy()
    second = merge(job, kind)
    assert job.deploy()
    return first, second


FOLLOWERS = {
    "the same job": lambda job: None,
    "documents": lambda job: merge(job, "documents", "new"),
    "a retraining": lambda job: merge(job, "data", "1"),
    "a fix on top": lambda job: merge(job, "handler", "fixed"),
    "another manifest": lambda job: merge(job, "manifest", "another"),
}


def reported(job: Job, stale: list[str] = STAGES) -> str:
    with contextlib.chdir(job.path):
        text: str = sections.rollbacks(context.gather(params.load(), stale))
    return text
