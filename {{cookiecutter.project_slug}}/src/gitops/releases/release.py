"""The release record: what runs in an environment, where it came from, and how to have it again.

The branch `env/<environment>` holds what Argo CD applies: `release.json`, described by `Release` below, and the
rendered Kubernetes objects in `manifests/`. Each release is one commit, or the merge of one, thus the branch's first
parents are the release log.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError, digest, read_json
from gitops.core.params import Params
from gitops.integrations import git, kustomize
from gitops.integrations.kustomize import PRODUCTION

Pushed = TypeVar("Pushed")

MAIN = "main"
BRANCH = f"env/{PRODUCTION}"  # what users see; branch() names the others
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
    release: str | None = None  # commit of env/production that it compared with; None where nothing was released


class Score(Part):
    """A metric on the test split with its 95 % interval."""

    value: float
    low: float
    high: float


class Candidate(Part):
    """What lies in the workspace, as the part of release.json that does not depend on the release before."""

    commit: str  # of main
    model: Model
    package: File
    predictions: File
    test_md5: str
    data: File
    rows: dict[str, int] = {}  # in the table and in each split
    columns: dict[str, str] = {}  # features: name to dtype
    params: dict[str, Any]
    metrics: dict[str, Score]
    mlflow_run_id: str | None
    image: str

    @property
    def title(self) -> str:
        """Name of the release for people."""
        return f"{self.model.name} {self.model.version}"


class Release(Candidate):
    """The contents of release.json."""

    gate: Verdict
    previous: str | None  # commit of the environment's branch that held the release before this one


@dataclass(frozen=True)
class Production:
    """What an environment's branch holds now, not only production's."""

    commit: str
    record: Release


def branch(environment: str) -> str:
    """Return the name of the branch that holds the environment's releases."""
    return f"env/{environment}"


def read(commit: str) -> Release:
    """Return the record that a commit of an environment's branch holds. Raises ProjectError where that is none."""
    try:
        return Release.model_validate_json(git.run("show", f"{commit}:{RECORD}"))
    except (git.GitError, ValidationError) as error:
        raise ProjectError(f"commit {commit[:12]} holds no release record, {RECORD}: {error}") from error


def manifests(commit: str) -> dict[str, bytes]:
    """Return file name -> YAML of the Kubernetes objects that a commit of the environment's branch holds."""
    names = git.run("ls-tree", "--name-only", "-z", f"{commit}:{MANIFESTS}").split("\0")
    return {name: f"{git.run('show', f'{commit}:{MANIFESTS}/{name}')}\n".encode() for name in names if name}


def production() -> Production | None:
    """Read the release that is in production from origin: present()."""
    return present(PRODUCTION)


def present(environment: str) -> Production | None:
    """Read the environment's present release from origin, or return None where nothing was ever released.

    Without a remote named origin there is no release either, which is said on standard error. Raises ProjectError where
    origin cannot be reached: "no release" and "not known" are different answers.
    """
    if not git.has_remote():
        print(f"This repository has no remote named {git.REMOTE}, so there is no release.", file=sys.stderr)
        return None
    return held(git.fetch(branch(environment)))


def held(commit: str | None) -> Production | None:
    """Return what a commit of an environment's branch holds; None where no commit before it ever held a record.

    Such is the branch's beginning that a first promotion is merged into (promote.py).
    """
    if commit is None or not git.run("rev-list", "--full-history", "-1", commit, "--", RECORD):
        return None
    return Production(commit, read(commit))


def candidate(settings: Params, image: str | None = None) -> Candidate:
    """Describe what lies in the workspace. Raises ProjectError naming the file that is missing.

    `image` is the reference of the image that holds it, kustomize.default_image by default.
    """
    archive = artifacts.PACKAGE / f"{settings.package.model_name}.mar"
    for path in (artifacts.MODEL, archive, artifacts.PREDICTIONS):
        if not path.exists():
            raise ProjectError(f"{path} is missing: run `make pipeline` first")
    schema, evaluated = (read_json(path, "make pipeline") for path in (artifacts.SCHEMA, artifacts.METRICS))
    sha256 = digest(artifacts.MODEL)
    model = Model(
        name=settings.package.model_name, version=sha256[:12], sha256=sha256, md5=digest(artifacts.MODEL, "md5")
    )
    return Candidate(
        commit=git.run("rev-parse", "HEAD"),
        model=model,
        package=_file(archive),
        predictions=_file(artifacts.PREDICTIONS),
        test_md5=evaluated["test_md5"],
        data=_file(Path(settings.data.path)),
        rows=schema["rows"],
        columns={feature["name"]: feature["dtype"] for feature in schema["features"]},
        params=settings.model_dump(mode="json"),
        metrics=evaluated["metrics"],
        mlflow_run_id=read_json(artifacts.RUN, "make pipeline").get("run_id"),
        image=image or kustomize.default_image(model.version),
    )


def publish(environment: str, make: Callable[[Production | None], tuple[str, str] | None]) -> str | None:
    """Push a commit of the tree and with the message that `make` returns, on top of the present release.

    Returns the commit, or None where `make` does. When another push came first, `make` is asked again, with what that
    one left. Raises ProjectError where origin goes on refusing.
    """
    target = branch(environment)

    def push() -> str | None:
        tip = git.fetch(target)
        made = make(held(tip))
        if made is None:
            return None
        tree, message = made
        commit = git.write_commit(tree, tip, message)
        git.push(commit, target)
        return commit

    return insist(push, target)


def insist(push: Callable[[], Pushed], target: str) -> Pushed:
    """Return what `push` returns, which is called again where origin refuses. Raises ProjectError where it goes on."""
    refusal: git.Refused
    for attempt in range(ATTEMPTS):
        try:
            return push()
        except git.Refused as error:
            refusal = error
        print(f"{git.REMOTE} has refused the push; looking again at what it holds ...", flush=True)
        time.sleep(random.uniform(0.1, 0.4) * 2**attempt)
    raise ProjectError(f"{git.REMOTE} has refused {ATTEMPTS} pushes to {target}, the last one so: {refusal}")


def _file(path: Path) -> File:
    return File(path=path.as_posix(), md5=artifacts.tracked_md5(path))
