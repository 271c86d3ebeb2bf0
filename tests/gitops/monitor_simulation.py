"""Windows with and without drift, evaluated as by `make monitor`: for test_monitor.py and benchmarks/monitor.py.

    .venv/validate/bin/python .../tests/gitops/monitor_simulation.py --windows 200 --rows 500 --task binary

run in a generated project, prints as JSON, for each of `--references`, how many windows without drift raised an alarm
and what was found in windows with each injected drift. The thirty features are correlated. The reference and the
training rows are drawn once for all windows, as in production, where an unusual reference raises alarms in many.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from gitops.core.sections import Monitor
from gitops.monitoring import drift

CATEGORIES = {"plan": 3, "region": 10, "shop": 40}
NUMBERS = [f"x{index}" for index in range(27)]

#: As a schema holds them: a binary task's positive class last.
CLASSES: dict[str, list[str]] = {"binary": ["no", "yes"], "multiclass": ["high", "low", "middle"], "regression": []}

Frames = dict[str, pd.DataFrame]


def draw(rng: np.random.Generator, rows: int, task: str) -> Frames:
    """Return `current` (features), `current_outputs` and `labelled` of rows of one population.

    Some features are skewed, one has missing values, one is of integers, two are constant.
    """
    common = rng.normal(size=(rows, 1))
    x = np.sqrt(0.4) * common + np.sqrt(0.6) * rng.normal(size=(rows, len(NUMBERS)))
    features = pd.DataFrame(x, columns=NUMBERS)
    features["x3"] = np.exp(features["x3"])
    features["x4"] = features["x4"].where(rng.random(rows) > 0.1)
    features["x5"] = rng.poisson(2, rows).astype(float)
    features["x6"], features["currency"] = 1.0, pd.Series(["euro"] * rows, dtype=object)
    for name, count in CATEGORIES.items():
        weights = 1 / np.arange(1, count + 1)
        features[name] = rng.choice(
            np.array([f"{name}-{n}" for n in range(count)], object), rows, p=weights / weights.sum()
        )
    return {"current": features} | predict(rng, features[["x0", "x1", "x2"]].sum(axis=1).to_numpy(), CLASSES[task])


def predict(rng: np.random.Generator, truth: Any, classes: list[str]) -> Frames:
    """Return the outputs of a model that knows the truth, and the labels."""
    if not classes:
        outputs = pd.DataFrame({"prediction": truth})
        return {"current_outputs": outputs, "labelled": outputs.assign(target=truth + rng.normal(size=len(truth)))}
    slopes = np.linspace(-1, 1, len(classes)) if len(classes) > 2 else np.array([0, 1])
    weights = np.exp(np.outer(truth, slopes))
    p = weights / weights.sum(axis=1, keepdims=True)
    names = np.array(classes, object)
    outputs = pd.DataFrame(p, columns=[f"p_{name}" for name in classes])
    outputs.insert(0, "prediction", names[p.argmax(axis=1)])
    drawn = (rng.random((len(p), 1)) > p.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return {"current_outputs": outputs, "labelled": outputs.assign(target=names[drawn])}


def schema(train: pd.DataFrame, task: str) -> dict[str, Any]:
    """Return the parts of schema.json that the monitor reads, as schema.py derives them."""
    features: list[dict[str, Any]] = []
    for name, column in train.items():
        feature = {"name": name, "dtype": "number", "missing": round(float(column.isna().mean()), 6)}
        if column.dtype == object:
            fractions = column.value_counts(normalize=True)
            features.append(
                feature | {"dtype": "category", "categories": {k: round(v, 6) for k, v in fractions.items()}}
            )
        else:
            features.append(feature | {"min": float(column.min()), "max": float(column.max())})
    target = {"name": "outcome", "classes": CLASSES[task]}
    return {"task": task, "target": target, "features": features, "rows": {"train": len(train)}}


def shift(rng: np.random.Generator, frames: Frames, by: float) -> None:
    """Shift a column by `by` standard deviations."""
    frames["current"]["x7"] += by * frames["current"]["x7"].std()


def scale(rng: np.random.Generator, frames: Frames, column: str, by: float) -> None:
    frames["current"][column] *= by


def unseen(rng: np.random.Generator, frames: Frames, fraction: float) -> None:
    column = frames["current"]["plan"]
    frames["current"]["plan"] = column.where(rng.random(len(column)) > fraction, "plan-new")


def missing(rng: np.random.Generator, frames: Frames, fraction: float) -> None:
    column = frames["current"]["x9"]
    frames["current"]["x9"] = column.where(rng.random(len(column)) > fraction)


def lost(rng: np.random.Generator, frames: Frames) -> None:
    frames["current"]["region"] = pd.Series([None] * len(frames["current"]), dtype=object)


def nothing(rng: np.random.Generator, frames: Frames) -> None:
    """Make every value of every column missing."""
    frames["current"].loc[:] = None


def prior(rng: np.random.Generator, frames: Frames, kept: float) -> None:
    """Label shift: keep all rows of the last class, or with values above 0, and a fraction `kept` of the others."""
    target = frames["labelled"]["target"]
    always = target.gt(0) if target.dtype == float else target.eq(max(target))
    stays = always | (rng.random(len(target)) < kept)
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
    "unseen category in 10 %": (partial(unseen, fraction=0.1), ("unseen categories", "plan")),
    "missing in 15 %": (partial(missing, fraction=0.15), ("missing values", "x9")),
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
    "unseen category in 6 %": (partial(unseen, fraction=0.06), ("unseen categories", "plan")),
    "missing in 8 %": (partial(missing, fraction=0.08), ("missing values", "x9")),
    "label shift, before labels come": (partial(prior, kept=0.2), ("prediction drift", None)),
    "label shift, half of the others": (partial(prior, kept=0.5), ("label drift", None)),
}


def simulate(
    windows: int, drifted: int, rows: int, train_rows: int, test_rows: int, task: str, seed: int
) -> dict[str, Any]:
    """Evaluate `windows` windows without drift and `drifted` ones with each drift, of `rows` rows each.

    Return `alarms` (windows without drift in which a check failed), `false` ("check: column" of those: alarms),
    `injected` and `small` (drift: check and column that must name it), `found` (drift: {"check: column": windows in
    which it failed}).
    """
    settings = Monitor(min_rows=min(rows, Monitor().min_rows))
    rng = np.random.default_rng(seed)
    known = schema(draw(rng, train_rows, task)["current"], task)
    reference = draw(rng, test_rows, task)
    fixed = {"reference": reference["current"], "reference_outputs": reference["labelled"]}

    def failed(frames: Frames) -> list[str]:
        results, _ = drift.evaluate(settings, known, [], fixed | frames)
        return [f"{check['check']}: {check['column']}" for check in results if not check["passed"]]

    def changed(inject: Inject) -> Frames:
        frames = draw(rng, 4 * rows, task)  # a label shift takes rows away
        inject(rng, frames)
        return {name: frame.head(rows) for name, frame in frames.items()}

    without_drift = [failed(draw(rng, rows, task)) for _ in range(windows)]
    found = {
        name: Counter(failure for _ in range(drifted) for failure in failed(changed(inject)))
        for name, (inject, _) in (INJECTED | SMALL).items()
    }
    wanted = [{name: by for name, (_, by) in drifts.items()} for drifts in (INJECTED, SMALL)]
    return {
        "windows": windows,
        "alarms": sum(map(bool, without_drift)),
        "false": Counter(failure for window in without_drift for failure in window),
        "injected": wanted[0],
        "small": wanted[1],
        "found": found,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # deprecations in the old versions that Deepchecks needs
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    numbers = {"windows": 200, "drifted": 1, "rows": 500, "train-rows": 350, "test-rows": 150}
    for option, default in numbers.items():
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--task", choices=CLASSES, default="binary")
    parser.add_argument("--references", type=int, default=1)
    options = vars(parser.parse_args())
    print(json.dumps([simulate(**options, seed=seed) for seed in range(options.pop("references"))]))
