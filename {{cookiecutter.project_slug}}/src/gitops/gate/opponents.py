"""The earlier releases that a candidate is compared with, and their predictions for today's test rows.

They are the models of the last releases to production that no rollback has taken back, and the one that production's
record names as the best of its time. Where a release was measured on these very rows its own predictions are fetched;
else its model is, and run on them. Rows that `make retrain` appended leave all others in their splits. After another
change of the table a release may have been trained on some of these test rows, which favours it and never the
candidate.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gitops import owner
from gitops.core import artifacts
from gitops.core.artifacts import ROW, ProjectError
from gitops.core.params import Params
from gitops.integrations import dvc
from gitops.releases import history
from gitops.releases.history import Released
from gitops.releases.record import Deployed, Release
from gitops.tabular import in_parts

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]

#: Settings of `data` that define the prediction target: where one differs, metrics are not comparable.
SUBJECT = ("task", "target", "positive")

#: Distinct models of the newest releases that a candidate is compared with.
NEWEST = 20

SAME_ROWS = "on the same test rows"
RUN = "on today's test rows, on which the release's model was run"


@dataclass(frozen=True)
class Predictions:
    """A model's outputs, probabilities [rows, classes] or values [rows], and what it predicts by them, [rows]: class
    indices, or the values again.
    """

    outputs: Array
    predicted: Array


@dataclass(frozen=True)
class Opponent:
    """A release, the commit of env/production that first held it, and whether it is the one deployed now.

    `predictions` are None where they cannot be had, and `basis` then says why, else how they came about.
    """

    commit: str
    record: Release
    deployed: bool
    basis: str
    predictions: Predictions | None

    @property
    def title(self) -> str:
        """The release's name in messages."""
        return f"{self.record.title}, release {self.commit[:12]}"


def other_subject(settings: Params, record: Release) -> list[str]:
    """Return the settings by which a release was for another task than the candidate."""
    now, then = settings.data.model_dump(), record.params.get("data", {})
    return [f"data.{key}" for key in SUBJECT if now[key] != then.get(key)]


def find(present: Deployed) -> list[tuple[str, Release]]:
    """Return commit and record of each release to compare with, production's first, then the newest one first.

    Of releases of the same model it is the newest. Raises ProjectError in a shallow clone.
    """
    standing = history.standing(present.commit)
    by_commit = {one.first.commit: one for one in standing}
    deployed = history.deployed(standing)
    chosen: dict[str, Released] = {deployed.record.model.sha256: deployed} if deployed else {}
    for one in reversed(standing):
        if len(chosen) < NEWEST:
            chosen.setdefault(one.record.model.sha256, one)
    best = present.record.gate.best
    if best and (named := by_commit.get(best.commit)):
        chosen.setdefault(named.record.model.sha256, named)
    found = [(one.first.commit, one.record) for one in chosen.values()]
    return found if deployed else [(present.commit, present.record), *found]


def meet(
    settings: Params, schema: dict[str, Any], test: pd.DataFrame, test_md5: str, releases: list[tuple[str, Release]]
) -> list[Opponent]:
    """Return the opponents, production first, each with its predictions for the rows of `test` or why it has none."""
    reasons: dict[str, list[str]] = {}
    predictions: dict[str, tuple[str, Predictions]] = {}
    same_task = []
    for commit, record in releases:
        if changed := other_subject(settings, record):
            reasons[commit] = [f"it is for another task ({', '.join(changed)} changed)"]
        else:
            same_task.append((commit, record))
    for basis in (SAME_ROWS, RUN):
        wanted = {}
        for commit, record in same_task:
            if basis == SAME_ROWS and record.test_md5 != test_md5:
                reasons[commit] = ["the test split has changed"]
            elif commit not in predictions:
                wanted[commit] = record
        files = {commit: (one.predictions if basis == SAME_ROWS else one.package).md5 for commit, one in wanted.items()}
        fetched = dvc.fetch_all(files.values())
        for commit, record in wanted.items():
            try:
                predictions[commit] = basis, _predict(fetched[files[commit]], basis, record, test, schema)
            except ProjectError as error:
                reasons.setdefault(commit, []).append(str(error))
    return [
        Opponent(commit, record, index == 0, *(predictions.get(commit) or ("; ".join(reasons[commit]), None)))
        for index, (commit, record) in enumerate(releases)
    ]


def read(path: Path, test: pd.DataFrame, schema: dict[str, Any]) -> Predictions:
    """Return what a predictions.parquet holds for the rows of `test`. Raises ProjectError if it lacks some."""
    classes = schema["target"]["classes"]
    try:
        table = artifacts.read_parquet(path, where=("split", "==", "test"))
        table = table.set_index("row").loc[test[ROW]]
        outputs = table[[f"p_{name}" for name in classes] or "prediction"].to_numpy("float64")
        indices = {name: index for index, name in enumerate(classes)}
        predicted = table["prediction"].map(indices).to_numpy("int64") if classes else outputs
    except (KeyError, ValueError, OSError) as error:
        raise ProjectError(f"the predictions in {path} do not fit the test split: {error}") from error
    return Predictions(outputs, predicted)


def _predict(
    fetched: Path | ProjectError, basis: str, record: Release, test: pd.DataFrame, schema: dict[str, Any]
) -> Predictions:
    """Return a release's predictions from a file of it. Raises ProjectError where there are none for these rows."""
    if isinstance(fetched, ProjectError):
        raise fetched
    found = read(fetched, test, schema) if basis == SAME_ROWS else run(fetched.read_bytes(), record, schema)
    if not np.isfinite(found.outputs).all():
        raise ProjectError("the release's outputs are not all finite numbers")
    return found


def run(archive: bytes, record: Release, schema: dict[str, Any]) -> Predictions:
    """Run the model of a TorchServe archive on the test split, a part of its rows at a time, and decide by its own
    threshold, which its schema holds.

    Raises ProjectError where it does not fit the columns.
    """
    import torch

    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        model, old = files.read(artifacts.MODEL.name), json.loads(files.read(artifacts.SCHEMA.name))
    if hashlib.sha256(model).hexdigest() != record.model.sha256:
        raise ProjectError(f"{record.package.path} of the release does not hold the model that its record names")
    dtypes = {feature["name"]: feature["dtype"] for feature in schema["features"]}
    if lost := [feature["name"] for feature in old["features"] if dtypes.get(feature["name"]) != feature["dtype"]]:
        raise ProjectError(f"the release's model needs columns that were removed or changed: {', '.join(lost)}")
    classes, old_classes = schema["target"]["classes"], old["target"]["classes"]
    if sorted(classes) != sorted(old_classes):
        raise ProjectError(f"the release's model has other classes: {', '.join(old_classes)}")
    try:
        program, predict = torch.export.load(io.BytesIO(model)).module(), owner.evaluate().predict
        outputs = np.concatenate([predict(program, part, old) for part in in_parts.read(artifacts.TEST)])
        predicted = np.asarray(owner.features().decide(outputs, old))
    except Exception as error:  # a program of an older torch can fail in any way; the gate then falls back
        raise ProjectError(f"the release's model does not run: {error}") from error
    if not classes:
        return Predictions(outputs, outputs)
    places = np.array([classes.index(name) for name in old_classes])
    return Predictions(outputs[:, [old_classes.index(name) for name in classes]], places[predicted])
