"""Windows with and without drift, judged as `make monitor` does: for test_monitor.py and the template's benchmark.

    .venv/validate/bin/python tests/monitor_simulation.py --windows 200 --rows 500 --task binary

prints as JSON, for each of `--references`, how many windows without drift raised an alarm and what was found in windows
with each injected drift. Thirty features that go together; the reference and the training rows are drawn once for all
windows, as in production: an unlucky reference would raise an alarm in many of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SRC = next((Path(__file__).resolve().parents[1] / "src").glob("*/__init__.py")).parent

CATEGORIES = {"plan": 3, "region": 10, "shop": 40}
NUMBERS = [f"x{place}" for place in range(27)]

#: As a schema holds them: a binary task's positive class last.
CLASSES: dict[str, list[str]] = {"binary": ["no", "yes"], "multiclass": ["high", "low", "middle"], "regression": []}

Frames = dict[str, pd.DataFrame]


def draw(rng: np.random.Generator, rows: int, task: str) -> Frames:
    """Return `window` (features), `outputs` and `labelled` of rows of the one population: some features skewed, one
    with missing values, one of whole numbers, two that never change.
    """
    together = rng.normal(size=(rows, 1))
    x = np.sqrt(0.4) * together + np.sqrt(0.6) * rng.normal(size=(rows, len(NUMBERS)))
    window = pd.DataFrame(x, columns=NUMBERS)
    window["x3"] = np.exp(window["x3"])
    window["x4"] = window["x4"].where(rng.random(rows) > 0.1)
    window["x5"] = rng.poisson(2, rows).astype(float)
    window["x6"], window["currency"] = 1.0, pd.Series(["euro"] * rows, dtype=object)
    for name, count in CATEGORIES.items():
        shares = 1 / np.arange(1, count + 1)
        window[name] = rng.choice(
            np.array([f"{name}-{n}" for n in range(count)], object), rows, p=shares / shares.sum()
        )
    return {"window": window} | answer(rng, window[["x0", "x1", "x2"]].sum(axis=1).to_numpy(), CLASSES[task])


def answer(rng: np.random.Generator, truth: Any, classes: list[str]) -> Frames:
    """Return what a model that knows the truth answers, and the labels."""
    if not classes:
        outputs = pd.DataFrame({"prediction": truth})
        return {"outputs": outputs, "labelled": outputs.assign(target=truth + rng.normal(size=len(truth)))}
    slopes = np.linspace(-1, 1, len(classes)) if len(classes) > 2 else np.array([0, 1])
    weights = np.exp(np.outer(truth, slopes))
    p = weights / weights.sum(axis=1, keepdims=True)
    names = np.array(classes, object)
    outputs = pd.DataFrame(p, columns=[f"p_{name}" for name in classes])
    outputs.insert(0, "prediction", names[p.argmax(axis=1)])
    drawn = (rng.random((len(p), 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return {"outputs": outputs, "labelled": outputs.assign(target=names[drawn])}


def schema(train: pd.DataFrame, task: str) -> dict[str, Any]:
    """Return what the monitor reads of schema.json, as schema.py derives it."""
    features: list[dict[str, Any]] = []
    for name, column in train.items():
        feature = {"name": name, "kind": "number", "missing": round(float(column.isna().mean()), 6)}
        if column.dtype == object:
            shares = column.value_counts(normalize=True)
            features.append(feature | {"kind": "category", "categories": {k: round(v, 6) for k, v in shares.items()}})
        else:
            features.append(feature | {"min": float(column.min()), "max": float(column.max())})
    target = {"name": "outcome", "classes": CLASSES[task]}
    return {"task": task, "target": target, "features": features, "rows": {"train": len(train)}}


def shift(rng: np.random.Generator, frames: Frames, by: float) -> None:
    """Move a column by so many of its standard deviations."""
    frames["window"]["x7"] += by * frames["window"]["x7"].std()


def scale(rng: np.random.Generator, frames: Frames, column: str, by: float) -> None:
    frames["window"][column] *= by


def unseen(rng: np.random.Generator, frames: Frames, share: float) -> None:
    column = frames["window"]["plan"]
    frames["window"]["plan"] = column.where(rng.random(len(column)) > share, "plan-new")


def missing(rng: np.random.Generator, frames: Frames, share: float) -> None:
    column = frames["window"]["x9"]
    frames["window"]["x9"] = column.where(rng.random(len(column)) > share)


def lost(rng: np.random.Generator, frames: Frames) -> None:
    frames["window"]["region"] = pd.Series([None] * len(frames["window"]), dtype=object)


def nothing(rng: np.random.Generator, frames: Frames) -> None:
    """Requests in which every column is there and empty."""
    frames["window"].loc[:] = None


def prior(rng: np.random.Generator, frames: Frames, kept: float) -> None:
    """Label shift: of the last class, or of the values above 0, all stay, of the others a share, with what goes with
    them.
    """
    target = frames["labelled"]["target"]
    often = target.gt(0) if target.dtype == float else target.eq(max(target))
    stays = often | (rng.random(len(target)) < kept)
    frames |= {name: frame[stays].reset_index(drop=True) for name, frame in frames.items()}


def renamed(rng: np.random.Generator, frames: Frames) -> None:
    """Labels in another spelling, or in another unit."""
    target = frames["labelled"]["target"]
    frames["labelled"]["target"] = target * 1000 + 5000 if target.dtype == float else target.str.upper()


Inject = Callable[[np.random.Generator, Frames], None]
Drift = tuple[Inject, tuple[str, str | None]]

#: Each drift with the check and the column that must name it in a window of five hundred rows.
INJECTED: dict[str, Drift] = {
    "shift by 1 standard deviation": (partial(shift, by=1), ("feature drift", "x7")),
    "scale × 3": (partial(scale, column="x8", by=3), ("out of range", "x8")),
    "unit × 1000": (partial(scale, column="x3", by=1000), ("feature drift", "x3")),
    "unseen category in 10 %": (partial(unseen, share=0.1), ("unseen categories", "plan")),
    "missing in 15 %": (partial(missing, share=0.15), ("missing values", "x9")),
    "missing column": (lost, ("missing values", "region")),
    "every column missing": (nothing, ("missing values", "x0")),
    "label shift": (partial(prior, kept=0.2), ("label drift", None)),
    "one class alone, before labels come": (partial(prior, kept=0), ("prediction drift", None)),
    "labels spelt otherwise": (renamed, ("label drift", None)),
}

#: Drifts about the size of the limits, which are named in some windows.
SMALL: dict[str, Drift] = {
    "shift by 0.75": (partial(shift, by=0.75), ("feature drift", "x7")),
    "shift by 0.5": (partial(shift, by=0.5), ("feature drift", "x7")),
    "scale × 2": (partial(scale, column="x8", by=2), ("out of range", "x8")),
    "unseen category in 6 %": (partial(unseen, share=0.06), ("unseen categories", "plan")),
    "missing in 8 %": (partial(missing, share=0.08), ("missing values", "x9")),
    "label shift, before labels come": (partial(prior, kept=0.2), ("prediction drift", None)),
    "label shift, half of the others": (partial(prior, kept=0.5), ("label drift", None)),
}


def simulate(
    windows: int, drifted: int, rows: int, train_rows: int, test_rows: int, task: str, seed: int
) -> dict[str, Any]:
    """Judge `windows` windows without drift and `drifted` ones with each drift, of `rows` rows each.

    Return `alarms` (windows without drift in which a check failed), `false` ("check: column" of those: alarms),
    `injected` and `small` (drift: check and column that must name it), `found` (drift: {"check: column": windows in
    which it failed}).
    """
    package = sys.modules.get("project") or importlib.import_module(SRC.name)
    checks = importlib.import_module(f"{package.__name__}.monitor_checks")
    monitor = importlib.import_module(f"{package.__name__}.params_sections").Monitor
    settings = monitor(min_rows=min(rows, monitor().min_rows))
    rng = np.random.default_rng(seed)
    known = schema(draw(rng, train_rows, task)["window"], task)
    reference = draw(rng, test_rows, task)
    fixed = {"reference": reference["window"], "reference_outputs": reference["labelled"]}

    def failed(frames: Frames) -> list[str]:
        results, _ = checks.judge(settings, known, [], fixed | frames)
        return [f"{check['check']}: {check['column']}" for check in results if not check["passed"]]

    def changed(inject: Inject) -> Frames:
        frames = draw(rng, 4 * rows, task)  # a label shift takes rows away
        inject(rng, frames)
        return {name: frame.head(rows) for name, frame in frames.items()}

    quiet = [failed(draw(rng, rows, task)) for _ in range(windows)]
    found = {
        name: Counter(failure for _ in range(drifted) for failure in failed(changed(inject)))
        for name, (inject, _) in (INJECTED | SMALL).items()
    }
    wanted = [{name: by for name, (_, by) in drifts.items()} for drifts in (INJECTED, SMALL)]
    return {
        "windows": windows,
        "alarms": sum(map(bool, quiet)),
        "false": Counter(failure for window in quiet for failure in window),
        "injected": wanted[0],
        "small": wanted[1],
        "found": found,
    }


if __name__ == "__main__":
    sys.path.insert(0, str(SRC.parent))
    warnings.simplefilter("ignore")  # deprecations in the old versions that Deepchecks needs
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    numbers = {"windows": 200, "drifted": 1, "rows": 500, "train-rows": 350, "test-rows": 150}
    for option, default in numbers.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--task", choices=CLASSES, default="binary")
    parser.add_argument("--references", type=int, default=1)
    options = vars(parser.parse_args())
    print(json.dumps([simulate(**options, seed=seed) for seed in range(options.pop("references"))]))
