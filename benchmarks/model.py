"""The template's model beside scikit-learn's HistGradientBoosting, on the same split of a project's own table.

    demo/breast-cancer/.venv/pipeline/bin/python benchmarks/model.py demo/breast-cancer [SEEDS]

Prints score and seconds of both for SEEDS (3) different splits, and the mean ratio. The project's params.yaml says
which table, target and settings; the score is the gate's deciding metric.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor


class Nowhere:
    """Stands in for an MLflow run."""

    def log(self, entry: dict[str, float]) -> None:
        """Forget the entry."""


def main() -> None:
    """Compare on each split in turn."""
    os.chdir(sys.argv[1])
    package = next(Path("src").glob("*/__init__.py")).parent.name
    params, prepare = import_module(f"{package}.params"), import_module(f"{package}.prepare")
    settings = params.load()
    ratios = []
    for seed in range(int(sys.argv[2]) if len(sys.argv) > 2 else 3):
        splits, schema = prepare.prepare(settings.data.model_copy(update={"seed": seed}))
        ours, ours_seconds = fit_ours(package, settings, splits, schema, seed)
        theirs, theirs_seconds = fit_theirs(package, settings, splits, schema)
        ratios.append(ours / theirs)
        print(
            f"seed {seed}: {settings.gate.metric} {ours:.4f} in {ours_seconds:.1f} s, HistGradientBoosting "
            f"{theirs:.4f} in {theirs_seconds:.1f} s, ratio {ours / theirs:.3f}",
            flush=True,
        )
    print(f"mean ratio {np.mean(ratios):.3f}")


def fit_ours(package: str, settings: Any, splits: Any, schema: Any, seed: int) -> tuple[float, float]:
    """Return score and seconds of the project's own training."""
    features, train = import_module(f"{package}.features"), import_module(f"{package}.train")
    model_module, metrics = import_module(f"{package}.model"), import_module(f"{package}.metrics")

    def tensors(frame: pd.DataFrame) -> Any:
        target = features.encode_target(frame, schema)
        return *features.encode_frame(frame, schema), target.float() if target.is_floating_point() else target

    begin = time.perf_counter()
    rows = tensors(splits["train"])
    torch.manual_seed(seed)
    model = model_module.TabularModel(schema, rows[0], rows[2], settings.model)
    with tempfile.TemporaryDirectory() as folder:
        train.fit(model, rows, tensors(splits["val"]), settings.train, Path(folder) / "checkpoint.pt", Nowhere())
    with torch.inference_mode():
        outputs = model.eval().predict(*features.encode_frame(splits["test"], schema)).double().numpy()
    seconds = time.perf_counter() - begin
    actual = features.encode_target(splits["test"], schema).numpy()
    return metrics.score(schema["task"], actual, outputs)[settings.gate.metric], seconds


def fit_theirs(package: str, settings: Any, splits: Any, schema: Any) -> tuple[float, float]:
    """Return score and seconds of scikit-learn's model, on the same training rows, with its categories declared."""
    features, metrics = import_module(f"{package}.features"), import_module(f"{package}.metrics")

    def columns(frame: pd.DataFrame) -> pd.DataFrame:
        named = {}
        for feature in schema["features"]:
            column = frame[feature["name"]]
            if feature["kind"] == "category":
                named[feature["name"]] = pd.Categorical(column, categories=list(feature["categories"]))
            elif feature["kind"] == "datetime":
                named[feature["name"]] = column.astype("int64")
            else:
                named[feature["name"]] = column.astype("float64")
        return pd.DataFrame(named)

    regression = schema["task"] == "regression"
    estimator = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    begin = time.perf_counter()
    model = estimator(categorical_features="from_dtype", random_state=0)
    model.fit(columns(splits["train"]), features.encode_target(splits["train"], schema).numpy())
    test = columns(splits["test"])
    outputs = model.predict(test) if regression else model.predict_proba(test)
    seconds = time.perf_counter() - begin
    actual = features.encode_target(splits["test"], schema).numpy()
    return metrics.score(schema["task"], actual, outputs)[settings.gate.metric], seconds


if __name__ == "__main__":
    main()
