"""Features that add nothing: those of one value, those the model does without, and those that say what another says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gitops.core import artifacts
from gitops.core.params import Params
from gitops.debt import found_ablation
from gitops.debt.finding import UNDERUTILIZED, Finding, found, lines, unknown
from gitops.statistics import rank_correlation
from gitops.tabular import in_parts

Schema = dict[str, Any]

#: Where a feature is left out.
DROP = "data.drop"


def find(settings: Params, schema: Schema | None) -> Iterator[Finding]:
    """Yield the features of `schema`, which is None where nothing was prepared yet, that could be dropped."""
    if schema is None:
        yield unknown(UNDERUTILIZED, f"{artifacts.SCHEMA} is missing: run `make pipeline`", artifacts.PARAMS)
        return
    line = lines().get(DROP)
    features = [feature for feature in schema["features"] if not feature.get("derived")]
    yield from (found(UNDERUTILIZED, text, artifacts.PARAMS, line) for text in constant(features))
    yield from (found(UNDERUTILIZED, text, artifacts.PARAMS, line) for text in redundant(schema, features))
    if not _current(artifacts.EXPLANATIONS):
        why = f"{artifacts.EXPLANATIONS} is missing, or of another model: run `make pipeline`"
        yield unknown(UNDERUTILIZED, f"Which features add nothing: {why}", artifacts.PARAMS)
        return
    explanations = artifacts.read_json(artifacts.EXPLANATIONS, "make pipeline")
    yield from found_ablation.find(settings, schema, explanations, line)
    if left := explanations["of_columns"] - len(explanations["features"]):
        text = f"Whether {left} of {explanations['of_columns']} features add something: they were not shuffled"
        yield unknown(UNDERUTILIZED, text, artifacts.EXPLANATIONS)


def constant(features: list[Schema]) -> Iterator[str]:
    """Yield a text for each feature that has one value in all training rows."""
    for feature in features:
        values = len(feature["categories"]) if "categories" in feature else None
        single = values is not None and values < 2
        single |= "min" in feature and feature["min"] == feature["max"]
        single |= feature["dtype"] == "boolean" and feature.get("mean") in (0.0, 1.0)
        if single and not 0 < feature["missing"] < 1:  # a missing value is a second one
            yield f"{feature['name']} has one value in all training rows: drop it"


def redundant(schema: Schema, features: list[Schema]) -> Iterator[str]:
    """Yield a text for each group of numbers that order the training rows alike."""
    numbers = [feature["name"] for feature in features if feature["dtype"] == "number"]
    if len(numbers) < 2 or not artifacts.TRAIN.exists():
        return
    for first, *others in rank_correlation.groups(_sample(artifacts.TRAIN, numbers, schema["rows"]["train"])):
        names = ", ".join(others)
        yield f"{first} orders the rows as {names}: rank correlation of {rank_correlation.SAME:g} or more; keep one"


def _sample(path: Path, names: list[str], rows: int) -> Any:
    """Return some rows of a split, about rank_correlation.ROWS of them, the same ones each time."""
    import pandas as pd

    rng, fraction = np.random.default_rng(0), rank_correlation.ROWS / max(rows, 1)
    parts = (part.loc[rng.random(len(part)) < fraction, names] for part in in_parts.read(path))
    return pd.concat(parts, ignore_index=True)


def _current(path: Path) -> bool:
    """Tell whether the explanations are there, and of the model that is there."""
    if not path.exists() or not artifacts.MODEL.exists():
        return False
    explained: str = artifacts.read_json(path, "make pipeline")["model_sha256"]
    return explained == artifacts.digest(artifacts.MODEL)
