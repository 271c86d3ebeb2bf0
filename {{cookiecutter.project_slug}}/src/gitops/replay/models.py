"""The two models of a replay, each out of its archive as a server has it, and how long they take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gitops import owner
from gitops.core.artifacts import MODEL, PACKAGE, ProjectError, digest
from gitops.core.params import Params
from gitops.gate.opponents import Predictions
from gitops.inference import model
from gitops.inference.model import Model
from gitops.integrations import dvc
from gitops.releases.record import Release
from gitops.replay.fitting import selected
from gitops.tabular.columns import Columns, raised

#: How often each model is timed, by the rows that it gets at once.
REPEATS = {1: 100, 100: 30}


@dataclass(frozen=True)
class Pair:
    """The candidate and the release in production."""

    candidate: Model
    production: Model

    @property
    def same(self) -> bool:
        """Whether the two answer any request alike: the same graph, columns and threshold."""
        return (self.candidate.version, self.candidate.schema) == (self.production.version, self.production.schema)


def archive(settings: Params) -> Path:
    """Return the path of the candidate's archive."""
    return PACKAGE / f"{settings.package.model_name}.mar"


def load(settings: Params, record: Release) -> Pair:
    """Return the workspace's model and the one released. Raises ProjectError where one cannot be had or run here."""
    if not MODEL.exists():
        raise ProjectError(f"{MODEL} is missing: run `make pipeline` first")
    candidate = model.load(archive(settings), digest(MODEL))
    released = dvc.fetch(record.package.md5)
    try:
        return Pair(candidate, model.load(released, record.model.sha256))
    except ProjectError as error:
        raise ProjectError(f"production's model cannot be run by this code: {error}") from None
    except Exception as error:  # as of a derived feature that this code does not have any more
        raise ProjectError(f"production's model cannot be run by this code: {raised(error)}") from None


def predict(its: Model, columns: Columns) -> Predictions:
    """Return a model's outputs and decisions. Raises ProjectError where they are not finite, or it fails."""
    try:
        outputs = its.predict(columns)
        predicted = np.asarray(owner.features().decide(outputs, its.schema))
    except Exception as error:  # its text may quote a row
        raise ProjectError(f"model {its.version} fails on logged requests: {raised(error)}") from None
    if not np.isfinite(outputs).all():
        raise ProjectError(f"model {its.version} gives outputs that are no finite numbers")
    return Predictions(outputs, predicted)


def latency(pair: Pair, candidate: Columns, production: Columns) -> dict[str, dict[str, float]]:
    """Return the median milliseconds that each model takes for its first 1 and first 100 rows, encoding included.

    The two take turns, so that whatever else the machine does falls on both. Fewer rows than 100 count as they are.
    """
    found: dict[str, dict[str, float]] = {"candidate": {}, "production": {}}
    columns = {"candidate": candidate, "production": production}
    for rows, repeats in REPEATS.items():
        parts = {name: selected(given, [*range(min(rows, _length(given)))]) for name, given in columns.items()}
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(repeats):
            for name, its in (("candidate", pair.candidate), ("production", pair.production)):
                began = time.perf_counter()
                its.predict(parts[name])
                times[name].append(time.perf_counter() - began)
        for name, taken in times.items():
            found[name][str(rows)] = float(np.median(taken)) * 1000
    return found


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def names(schema: dict[str, Any]) -> list[str]:
    """Return a model's classes; none for regression."""
    return list(schema["target"]["classes"])
