"""What deciding with production's model is worth a month, by today's amounts: from its record, or measured anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gitops.core import artifacts
from gitops.core.artifacts import GROUP, ROW, TEST, ProjectError
from gitops.core.params import Params
from gitops.core.value import EXPECTED_VALUE, Value
from gitops.integrations import dvc
from gitops.releases.record import Deployed, Release

Curve = list[dict[str, float]]
Schema = dict[str, Any]


@dataclass(frozen=True)
class ProductionValue:
    """`score`: value and interval a month; None where it is not known, and so are `low` and `high` where only it is.

    `basis`: how it was measured, where that is not as the candidate, or why it is not known. `difference`: how much
    more the candidate is worth, with its interval. `curve`: `threshold` and `model` of each point, where it is known.
    """

    score: dict[str, Any] | None
    basis: str = ""
    difference: dict[str, float] | None = None
    curve: Curve = field(default_factory=list)


def find(
    settings: Params, schema: Schema, metrics: dict[str, Any], gate: dict[str, Any] | None, production: Deployed | None
) -> ProductionValue | None:
    """Return production's value; None where nothing is in production, or no value is computed.

    `metrics` and `gate`: the contents of metrics.json, and of gate.json where the gate has compared this model. Where
    it has on the rows that production was measured on, production's predictions for them are at hand.
    """
    if settings.value is None or production is None:
        return None
    if gate is not None and gate["mode"] == "absolute":
        return ProductionValue(None, "it is for another task")
    record, same_rows = production.record, production.record.test_md5 == metrics["test_md5"]
    paired = gate is not None and gate["mode"] == "paired"
    recorded = record.comparable(settings.value).get(EXPECTED_VALUE)
    difference = gate["differences"].get(EXPECTED_VALUE) if gate else None
    found = _measure(settings, settings.value, schema, record) if paired and same_rows else None
    if same_rows and (recorded or found):
        score, curve = found or (None, [])
        return ProductionValue(recorded.model_dump() if recorded else score, "", difference, curve)
    if paired and difference:
        score = {"value": metrics["value"]["model"]["value"] - difference["value"], "low": None, "high": None}
        return ProductionValue(score, "its model was run on today's test rows", difference)
    if recorded:
        return ProductionValue(recorded.model_dump(), "on the test rows of its own run", difference)
    why = "its record has other amounts" if record.params.get("value") else "it was released without the section value"
    compared = "the gate could not run it on" if gate else "no gate has compared it on"
    return ProductionValue(None, f"{why}, and {compared} today's test rows")


def _measure(settings: Params, value: Value, schema: Schema, record: Release) -> tuple[dict[str, Any], Curve] | None:
    """Return value and curve by the release's predictions for today's test rows; None where these cannot be had."""
    import numpy as np

    from gitops.gate import opponents
    from gitops.value import curves, measured

    classes, target = schema["target"]["classes"], schema["target"]["name"]
    test = artifacts.read_parquet(TEST, [ROW, GROUP, target])
    try:
        its = opponents.read(dvc.fetch(record.predictions.md5), test, schema)
    except ProjectError:
        return None
    indices = {name: index for index, name in enumerate(classes)}
    actual = test[target].map(indices).to_numpy("int64") if classes else test[target].to_numpy("float64")
    rows = actual, its.outputs, its.predicted
    score = measured.score(value, classes, rows, test[GROUP].to_numpy(), settings.evaluate)
    if schema["task"] != "binary":
        return score, []
    threshold = 0.5 if record.threshold is None else record.threshold
    table = curves.value_curve(value, classes, actual, its.outputs[:, -1], np.zeros_like(actual), threshold)
    points = zip(table["threshold"], table["model"], strict=True)
    return score, [{"threshold": float(at), "model": float(amount)} for at, amount in points]
