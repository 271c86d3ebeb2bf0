"""The release record: what runs in an environment, where it came from, and how to have it again.

The branch `env/production` holds what Argo CD applies: `release.json`, described by `Release` below, and the rendered
Kubernetes objects in `manifests/`. Each release is one commit, thus its history is the release log.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from . import artifacts, git
from .artifacts import ProjectError, digest, read_json
from .params import Params

MAIN = "main"
BRANCH = "env/production"
RECORD = "release.json"
MANIFESTS = "manifests"

#: Pushes that may lose against another one before a release gives up.
ATTEMPTS = 5


class Part(BaseModel):
    """A part of the record. Unknown keys are left alone: a later version of the project may have written them."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class File(Part):
    """A file that DVC keeps, under its md5."""

    path: str
    md5: str


class Model(Part):
    """The model file: TorchServe's name for it, the version that answers carry, its digests."""

    name: str
    version: str
    sha256: str
    md5: str


class Verdict(Part):
    """What the gate said."""

    accepted: bool
    mode: str
    reason: str


class Score(Part):
    """A metric on the test split with its 95 % interval."""

    value: float
    low: float
    high: float


class Release(Part):
    """The contents of release.json."""

    commit: str  # of main
    model: Model
    package: File
    predictions: File
    test_md5: str
    data: File
    params: dict[str, Any]
    metrics: dict[str, Score]
    gate: Verdict
    mlflow_run_id: str | None
    image: str
    previous: str | None  # commit of the environment's branch that held the release before this one

    @property
    def title(self) -> str:
        """Name of the release for people."""
        return f"{self.model.name} {self.model.version}"

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """Read a release.json. Raises ProjectError, naming `source`, where it is no release record."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ProjectError(f"{source} is not a release record: {error}") from error


@dataclass(frozen=True)
class Production:
    """What the environment's branch holds now."""

    commit: str
    record: Release


def at(commit: str) -> Release:
    """Return the record that a commit of the environment's branch holds."""
    try:
        text = git.run("show", f"{commit}:{RECORD}")
    except git.GitError as error:
        raise ProjectError(f"commit {commit[:12]} of {BRANCH} holds no {RECORD}, but only `make deploy` writes there") from error
    return Release.parse(text, f"{RECORD} of commit {commit[:12]} on {BRANCH}")


def production() -> Production | None:
    """Read the present release from origin, or return None where nothing was ever released.

    Without a remote named origin there is no release either, which is said on standard error. Raises ProjectError where
    origin cannot be reached: "no release" and "not known" are different answers.
    """
    if not git.has_remote():
        print(f"This repository has no remote named {git.REMOTE}, so there is no release.", file=sys.stderr)
        return None
    commit = git.fetch(BRANCH)
    return Production(commit, at(commit)) if commit else None


def candidate(settings: Params, image: str, verdict: dict[str, Any]) -> Release:
    """Describe what lies in the workspace as a release. Raises ProjectError naming the file that is missing."""
    archive = artifacts.PACKAGE / f"{settings.package.model_name}.mar"
    for path in (artifacts.MODEL, archive, artifacts.PREDICTIONS):
        if not path.exists():
            raise ProjectError(f"{path} is missing: run `make pipeline` first")
    metrics = read_json(artifacts.METRICS, "make pipeline")
    sha256 = digest(artifacts.MODEL)
    return Release(
        commit=git.run("rev-parse", "HEAD"),
        model=Model(
            name=settings.package.model_name, version=sha256[:12], sha256=sha256, md5=digest(artifacts.MODEL, "md5")
        ),
        package=_file(archive),
        predictions=_file(artifacts.PREDICTIONS),
        test_md5=metrics["test_md5"],
        data=_data(Path(settings.data.path)),
        params=settings.model_dump(mode="json"),
        metrics=metrics["metrics"],
        gate=Verdict.model_validate(verdict),
        mlflow_run_id=read_json(artifacts.RUN, "make pipeline").get("run_id"),
        image=image,
        previous=None,
    )


def publish(make: Callable[[Production | None, bool], str | None]) -> str | None:
    """Push the commit that `make` puts on top of the present release, and return it; None where it makes none.

    When another push came first, `make` is asked again with what that one left. It gets the present release and whether
    it is asked again. Raises ProjectError where origin goes on refusing.
    """
    for attempt in range(ATTEMPTS):
        commit = make(production(), attempt > 0)
        if commit is None:
            return None
        try:
            git.push(commit, BRANCH)
            return commit
        except git.GitError as error:
            refusal = error
        print(f"{git.REMOTE} has refused the push; looking again at what it holds ...", flush=True)
        time.sleep(random.uniform(0.1, 0.4) * 2**attempt)
    raise ProjectError(f"{git.REMOTE} has refused {ATTEMPTS} pushes to {BRANCH}; the last time: {refusal}")


def _file(path: Path) -> File:
    return File(path=path.as_posix(), md5=digest(path, "md5"))


def _data(path: Path) -> File:
    """Describe the data set by its DVC pointer: the table itself need not lie here when its results were pulled."""
    pointer = path.with_name(f"{path.name}.dvc")
    if not pointer.exists():
        return _file(path)
    return File(path=path.as_posix(), md5=yaml.safe_load(pointer.read_text(encoding="utf-8"))["outs"][0]["md5"])
