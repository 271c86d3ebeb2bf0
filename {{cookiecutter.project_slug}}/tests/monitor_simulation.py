"""Windows with and without drift, judged as `make monitor` does: for test_monitor.py and the template's benchmark.

    .venv/validate/bin/python tests/monitor_simulation.py --windows 200 --rows 500

prints as JSON how many windows without drift raised an alarm, and which checks each injected drift has failed.
Thirty features that go together; the reference and the training rows are drawn once for all windows, as in production.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SRC = next((Path(__file__).resolve().parents[1] / "src").glob("*/__init__.py")).parent

CATEGORIES = {"plan": 3, "region": 10, "shop": 40}
NUMBERS = [f"x{place}" for place in range(27)]

Frames = dict[str, pd.DataFrame]


def draw(rng: np.random.Generator, rows: int) -> Frames:
    """Return `window` (features), `outputs` and `labelled` of rows of the one population: some features skewed, one
    with missing values, one of whole numbers.
    """
    together = rng.normal(size=(rows, 1))
    x = np.sqrt(0.4) * together + np.sqrt(0.6) * rng.normal(size=(rows, len(NUMBERS)))
    window = pd.DataFrame(x, columns=NUMBERS)
    window["x3"] = np.exp(window["x3"])
    window["x4"] = window["x4"].where(rng.random(rows) > 0.1)
    window["x5"] = rng.poisson(2, rows).astype(float)
    for name, count in CATEGORIES.items():
        shares = 1 / np.arange(1, count + 1)
        window[name] = rng.choice(
            np.array([f"{name}-{n}" for n in range(count)], object), rows, p=shares / shares.sum()
        )
    return {"window": window} | answer(rng, window)


def answer(rng: np.random.Generator, window: pd.DataFrame) -> Frames:
    """Return what a model that knows the truth answers, and the labels."""
    p = 1 / (1 + np.exp(-window[["x0", "x1", "x2"]].sum(axis=1).to_numpy()))
    outputs = pd.DataFrame({"prediction": np.where(p > 0.5, "yes", "no"), "p_no": 1 - p, "p_yes": p})
    return {"outputs": outputs, "labelled": outputs.assign(target=np.where(rng.random(len(p)) < p, "yes", "no"))}


def schema(train: pd.DataFrame) -> dict[str, Any]:
    """Return what the monitor reads of schema.json, as schema.py derives it."""
    features: list[dict[str, Any]] = []
    for name, column in train.items():
        feature = {"name": name, "kind": "number", "missing": round(float(column.isna().mean()), 6)}
        if name in CATEGORIES:
            shares = column.value_counts(normalize=True)
            features.append(feature | {"kind": "category", "categories": {k: round(v, 6) for k, v in shares.items()}})
        else:
            features.append(feature | {"min": float(column.min()), "max": float(column.max())})
    target = {"name": "churned", "classes": ["no", "yes"]}
    return {"task": "binary", "target": target, "features": features, "rows": {"train": len(train)}}


def shift(rng: np.random.Generator, frames: Frames) -> None:
    frames["window"]["x7"] += frames["window"]["x7"].std()


def scale(rng: np.random.Generator, frames: Frames) -> None:
    frames["window"]["x8"] *= 3


def unit(rng: np.random.Generator, frames: Frames) -> None:
    frames["window"]["x3"] *= 1000


def unseen(rng: np.random.Generator, frames: Frames) -> None:
    column = frames["window"]["plan"]
    frames["window"]["plan"] = column.where(rng.random(len(column)) > 0.1, "plan-new")


def missing(rng: np.random.Generator, frames: Frames) -> None:
    column = frames["window"]["x9"]
    frames["window"]["x9"] = column.where(rng.random(len(column)) > 0.15)


def lost(rng: np.random.Generator, frames: Frames) -> None:
    frames["window"]["region"] = pd.Series([None] * len(frames["window"]), dtype=object)


def prior(rng: np.random.Generator, frames: Frames) -> None:
    """Label shift: the positive class comes more often, and what goes with it."""
    kept = frames["labelled"]["target"].eq("yes") | (rng.random(len(frames["window"])) < 0.2)
    frames |= {name: frame[kept].reset_index(drop=True) for name, frame in frames.items()}


def renamed(rng: np.random.Generator, frames: Frames) -> None:
    """Labels in another spelling."""
    frames["labelled"]["target"] = frames["labelled"]["target"].str.upper()


#: Each drift with the check and the column that must name it.
INJECTED: dict[str, tuple[Callable[[np.random.Generator, Frames], None], tuple[str, str | None]]] = {
    "shift": (shift, ("feature drift", "x7")),
    "scale": (scale, ("out of range", "x8")),
    "unit": (unit, ("feature drift", "x3")),
    "unseen category": (unseen, ("unseen categories", "plan")),
    "missing values": (missing, ("missing values", "x9")),
    "missing column": (lost, ("missing values", "region")),
    "label shift": (prior, ("label drift", None)),
    "label shift, before labels come": (prior, ("prediction drift", None)),
    "labels spelt otherwise": (renamed, ("unseen categories", "churned")),
}


def simulate(windows: int, rows: int, train_rows: int = 350, test_rows: int = 150, seed: int = 0) -> dict[str, Any]:
    """Return `windows`, `alarms` (of those without drift), `false` (check and column: alarms) and `found` (drift: the
    failed checks with their columns), `named` (drift: whether the right one is among them).
    """
    package = sys.modules.get("project") or importlib.import_module(SRC.name)
    checks = importlib.import_module(f"{package.__name__}.monitor_checks")
    settings = importlib.import_module(f"{package.__name__}.params").Monitor()
    rng = np.random.default_rng(seed)
    known = schema(draw(rng, train_rows)["window"])
    reference = draw(rng, test_rows)
    fixed = {"reference": reference["window"], "reference_outputs": reference["labelled"]}

    def failed(frames: Frames) -> list[tuple[str, str | None]]:
        results, _ = checks.judge(settings, known, [], fixed | frames)
        return [(check["check"], check["column"]) for check in results if not check["passed"]]

    said = [failed(draw(rng, rows)) for _ in range(windows)]
    found = {}
    for name, (inject, _) in INJECTED.items():
        frames = draw(rng, rows)
        inject(rng, frames)
        found[name] = failed(frames)
    false: dict[str, int] = {}
    for check, column in (one for window in said for one in window):
        false[f"{check}: {column}"] = false.get(f"{check}: {column}", 0) + 1
    named = {name: wanted in found[name] for name, (_, wanted) in INJECTED.items()}
    return {"windows": windows, "alarms": sum(map(bool, said)), "false": false, "found": found, "named": named}


if __name__ == "__main__":
    sys.path.insert(0, str(SRC.parent))
    warnings.simplefilter("ignore")  # deprecations in the old versions that Deepchecks needs
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for option, default in (("windows", 200), ("rows", 500), ("train-rows", 350), ("test-rows", 150), ("seed", 0)):
        parser.add_argument(f"--{option}", type=int, default=default)
    print(json.dumps(simulate(**vars(parser.parse_args()))))
