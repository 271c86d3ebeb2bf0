"""The template's model beside scikit-learn's HistGradientBoosting, on the same splits of a project's table.

    demo/breast-cancer/.venv/pipeline/bin/python benchmarks/model.py demo/breast-cancer [SEEDS]

Prints score and seconds of both for SEEDS (3) different splits, and the mean ratio. The project's params.yaml names
table, target and settings; the score is `gate.primary_metric`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from gitops import owner
from gitops.core import artifacts, params
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor


class NoRun:
    """Takes the place of an MLflow run."""

    def log(self, entry: dict[str, float]) -> None:
        """Discard the entry."""


def main() -> None:
    """Compare on each split in turn."""
    os.chdir(sys.argv[1])
    prepare = import_module(f"{params.package()}.prepare")
    settings = params.load()
    metric = settings.gate.primary_metric
    ratios = []
    for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3):
        data = settings.data.model_copy(update={"seed": seed})
        splits, schema = prepare.prepare(prepare.read(data), data, prepare.DERIVED)
        train = settings.train.model_copy(update={"seed": seed})
        ours, our_seconds = fit_ours(settings.model_copy(update={"train": train}), splits, schema)
        theirs, their_seconds = fit_theirs(metric, splits, schema)
        ratios.append(ours / theirs)
        print(
            f"seed {seed}: {metric} {ours:.4f} in {our_seconds:.1f} s, HistGradientBoosting {theirs:.4f} in "
            f"{their_seconds:.1f} s, ratio {ours / theirs:.3f}",
            flush=True,
        )
    print(f"mean ratio {np.mean(ratios):.3f}")


def fit_ours(settings: Any, splits: dict[str, pd.DataFrame], schema: dict[str, Any]) -> tuple[float, float]:
    """Return score and seconds of the project's training."""
    train = owner.train()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        artifacts.write_json(artifacts.SCHEMA, schema)
        artifacts.write_parquet(artifacts.TRAIN, splits["train"])
        artifacts.write_parquet(artifacts.VAL, splits["val"])
        begin = time.perf_counter()
        model, _ = train.fit_model(settings, train.load_splits(settings), Path("checkpoint.pt"), NoRun())
        artifacts.write_parquet(artifacts.VAL, splits["test"])  # what the model is scored on
        scored = train.load_splits(settings)
        arrays = train.predict(model, scored, scored.val)
        seconds = time.perf_counter() - begin
    known = owner.metrics().of(schema["task"], schema["target"]["classes"], settings.value)
    return known[settings.gate.primary_metric].score(*arrays), seconds


def fit_theirs(metric: str, splits: dict[str, pd.DataFrame], schema: dict[str, Any]) -> tuple[float, float]:
    """Return score and seconds of scikit-learn's model, on the same training rows, with its categories declared."""
    features, target = owner.features(), schema["target"]["name"]

    def columns(frame: pd.DataFrame) -> pd.DataFrame:
        named = {}
        for feature in schema["features"]:
            column = frame[feature["name"]]
            if feature["dtype"] == "category":
                named[feature["name"]] = pd.Categorical(column, categories=list(feature["categories"]))
            elif feature["dtype"] == "datetime":
                named[feature["name"]] = column.astype("int64")
            else:
                named[feature["name"]] = column.astype("float64")
        return pd.DataFrame(named)

    regression = schema["task"] == "regression"
    estimator = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    begin = time.perf_counter()
    model = estimator(categorical_features="from_dtype", random_state=0)
    model.fit(columns(splits["train"]), features.encode_target(splits["train"][target], schema).numpy())
    test = columns(splits["test"])
    outputs = model.predict(test) if regression else model.predict_proba(test)
    seconds = time.perf_counter() - begin
    actual = features.encode_target(splits["test"][target], schema).numpy()
    return owner.metrics().score(schema["task"], actual, outputs, features.decide(outputs, schema))[metric], seconds


if __name__ == "__main__":
    main()
