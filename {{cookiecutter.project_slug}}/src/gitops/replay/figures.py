"""What a replay writes down: numbers, names of columns and classes, and values of slices that training has named."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gitops.core import artifacts
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.gate.opponents import Predictions
from gitops.replay import changes, fitting, labelled, models, stake, where
from gitops.replay.logged import Logged, Sample
from gitops.replay.models import Pair
from gitops.tabular.columns import Columns

Array = NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What both models answer to those rows of a sample that the release would accept today, `kept`."""

    kept: list[int]
    groups: Array  # the number of whom each row is about
    old: Predictions
    new: Predictions
    old_columns: Columns
    new_columns: Columns
    refused: list[dict[str, str]]  # of each row, the columns for which the candidate would refuse it, and why


def answer(pair: Pair, sample: Sample) -> Answers | None:
    """Return both models' answers; None where no row is left. Raises ProjectError where a model fails."""
    if not sample.rows:
        return None
    fitted = fitting.fit(sample.rows, pair.production.schema)
    kept = [place for place, why in enumerate(fitted.refused) if not why]
    if not kept:
        return None
    old_columns = fitting.selected(fitted.columns, kept)
    candidate = fitting.fit([sample.rows[place] for place in kept], pair.candidate.schema)
    return Answers(
        kept,
        pd.factorize(pd.Series([sample.about[place] for place in kept], dtype="object"))[0],
        models.predict(pair.production, old_columns),
        models.predict(pair.candidate, candidate.columns),
        old_columns,
        candidate.columns,
        candidate.refused,
    )


def of(settings: Params, pair: Pair, logged: Logged, found: Answers) -> dict[str, Any]:
    """Return the figures of a replay. Raises ProjectError."""
    schemas = pair.production.schema, pair.candidate.schema
    made = changes.between(found.old, found.new, schemas, _deviation(schemas[1]))
    days = [logged.sample.days[place] for place in found.kept]
    return {
        "task": schemas[1]["task"],
        "from": min(days).isoformat(),
        "to": max(days).isoformat(),
        "rows": len(found.kept),
        "groups": len(np.unique(found.groups)),
        "logged": {"days": logged.days, "answered": logged.answered, "other_form": logged.other_form},
        "left_out": len(logged.sample.rows) - len(found.kept),
        "redacted": sorted(logged.sample.redacted & {*found.old_columns, *found.new_columns}),
        "changed": asdict(changes.mean(made.changed, found.groups, settings.evaluate)),
        "tolerance": None if models.names(schemas[1]) else changes.TOLERANCE,
        "transitions": changes.transitions(found.old, found.new, schemas) if models.names(schemas[1]) else [],
        "sizes": changes.sizes(made),
        "drift": changes.drift(found.old, found.new, schemas),
        "largest": _largest(settings, found, made),
        "slices": _slices(settings, found, made, schemas[1], logged.sample.redacted),
        "value": _value(settings, found, schemas),
        "labelled": _labelled(settings, pair, logged),
        "refusals": _refusals(logged, found, schemas),
        "latency": models.latency(pair, found.new_columns, found.old_columns),
    }


def _deviation(schema: dict[str, Any]) -> float:
    """Return the standard deviation of a target that is a number, in the test rows; 1 for classes."""
    if schema["target"]["classes"]:
        return 1.0
    name = schema["target"]["name"]
    return float(artifacts.read_parquet(artifacts.TEST, [name])[name].to_numpy("float64").std())


def _largest(settings: Params, found: Answers, made: changes.Changes) -> dict[str, Any] | None:
    """Return what sets the rows apart whose answers change most; None where these or the others are too few to say."""
    least = settings.evaluate.min_slice_rows
    chosen = where.largest(made.size, least)
    if min(chosen.sum(), (~chosen).sum()) < least:
        return None
    return {
        "rows": int(chosen.sum()),
        "from": float(made.size[chosen].min()),
        "columns": where.telling(found.new_columns, chosen),
    }


def _slices(
    settings: Params, found: Answers, made: changes.Changes, schema: dict[str, Any], redacted: set[str]
) -> dict[str, Any]:
    """Return for each slice with `evaluate.min_slice_rows` rows the share of changes, and of the largest ones."""
    slices: dict[str, Any] = {}
    chosen = where.largest(made.size, settings.evaluate.min_slice_rows)
    for column, value, rows in where.slices(found.new_columns, schema, redacted):
        if rows.sum() >= settings.evaluate.min_slice_rows:
            slices.setdefault(column, {})[value] = {
                "rows": int(rows.sum()),
                "changed": asdict(changes.mean(made.changed[rows], found.groups[rows], settings.evaluate)),
                "size": float(made.size[rows].mean()),
                "largest": float((rows & chosen).sum() / max(1, chosen.sum())),
            }
    return slices


def _value(settings: Params, found: Answers, schemas: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any] | None:
    """Return what the changes are worth by either model's own belief; None without `value`, or with other classes."""
    classes = models.names(schemas[1])
    old = changes.in_order(found.old, models.names(schemas[0]), classes)
    if settings.value is None or old is None:
        return None
    return stake.gains(settings.value, old, found.new, classes, found.groups, settings.evaluate)


def _labelled(settings: Params, pair: Pair, logged: Logged) -> dict[str, Any] | None:
    """Return how both models fare on the labelled rows; None where there are no labels. What fails is a reason."""
    if logged.labels_problem:
        return {"rows": 0, "metrics": {}, "reason": logged.labels_problem}
    try:
        return _compared(settings, pair, logged)
    except ProjectError as error:
        return {"rows": 0, "metrics": {}, "reason": str(error)}


def _compared(settings: Params, pair: Pair, logged: Logged) -> dict[str, Any] | None:
    found = answer(pair, logged.labelled)
    if found is None:
        return None
    classes = models.names(pair.candidate.schema)
    old = changes.in_order(found.old, models.names(pair.production.schema), classes)
    if old is None:
        return {"rows": len(found.kept), "metrics": {}, "reason": "the candidate has other classes"}
    labels = [logged.labelled.labels[place] for place in found.kept]
    return labelled.compare(settings, labels, old, found.new, classes, found.groups)


def _refusals(logged: Logged, found: Answers, schemas: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    """Return how many rows the candidate would refuse that the release accepts, and the reverse as far as is known."""
    return {
        # Every column is one of the two schemas': the release accepts these rows.
        "accepted": fitting.counted(found.refused),
        "refused": {"requests": logged.refused, "by_changed_columns": logged.refused_by_change},
        "changed_columns": fitting.changed(*schemas),
    }
