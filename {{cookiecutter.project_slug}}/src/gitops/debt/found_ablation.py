"""Features that the model does as well without, by ablation: it is trained again without each, and nothing is kept.

A candidate is whose permutation importance (Breiman 2001) may be 0 by its interval. That alone says little: it is of
the model as it is, and of two columns that say the same neither may seem to matter, although the model needs one.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tqdm import tqdm

from gitops import owner
from gitops.core import artifacts, threads
from gitops.core.params import Params
from gitops.debt.finding import UNDERUTILIZED, Finding, found, unknown

Schema = dict[str, Any]

#: Trainings of each set of features, each from another seed.
SEEDS = 3

#: Features that are left out, each alone; those that matter least first.
CANDIDATES = 5

#: Values of the training split, rows times features, above which nobody waits for (CANDIDATES + 1) * SEEDS trainings.
VALUES = 3_000_000


class Unheard:
    """Hears of each epoch, and does nothing."""

    def log(self, entry: dict[str, float]) -> None:
        """Take the entry of an epoch."""


def find(settings: Params, schema: Schema, explanations: Schema, line: int | None) -> Iterator[Finding]:
    """Yield the features without which the mean validation loss is no higher, and what was not tried.

    `line`: that of `data.drop` in params.yaml.
    """
    small = schema["rows"]["train"] * len(schema["features"]) <= VALUES
    doubtful = sorted((one for one in explanations["features"] if one["low"] <= 0), key=lambda one: one["importance"])
    names = [one["name"] for one in doubtful if _without(schema, one["name"])][: CANDIDATES if small else 0]
    if names:
        total = (len(names) + 1) * SEEDS
        with tqdm(desc="train without a feature", unit="training", total=total, disable=None) as bar:
            whole = losses(settings, schema, None, bar)
            for name in names:
                without = losses(settings, schema, name, bar)
                if fmean(without) <= fmean(whole) < math.inf:
                    yield found(UNDERUTILIZED, _text(name, without, whole), artifacts.PARAMS, line)
    if left := len(doubtful) - len(names):
        why = f"{CANDIDATES} are tried at once" if small else f"above {VALUES} values, nothing is trained again"
        text = f"Whether the model does as well without {left} features whose importance may be 0: {why}"
        yield unknown(UNDERUTILIZED, text, artifacts.EXPLANATIONS)


def _text(name: str, without: list[float], whole: list[float]) -> str:
    less, more = (f"{fmean(each):.4g} ± {stdev(each):.2g}" for each in (without, whole))
    return (
        f"{name} adds nothing that shows: trained without it, the model has a validation loss of {less}, "
        f"with it {more} (mean and deviation of {SEEDS} seeds). Drop one feature at a time"
    )


def losses(settings: Params, schema: Schema, name: str | None, bar: Any) -> list[float]:
    """Return the best epoch's validation loss of a training from each seed, without the feature `name` if it is given.

    Infinite where a training diverges. Raises ProjectError where a split is missing.
    """
    train, values = owner.train(), []
    with _prepared(schema, name):
        threads.limit(artifacts.TRAIN)
        splits = train.load_splits(settings)
        for seed in range(1, SEEDS + 1):
            own = settings.train.model_copy(update={"seed": settings.train.seed + seed})
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "checkpoint.pt")
                try:
                    _, curve = train.fit_model(settings.model_copy(update={"train": own}), splits, path, Unheard())
                    values.append(min(float(entry["val_loss"]) for entry in curve))
                except train.Diverged:
                    values.append(math.inf)
            bar.update()
    return values


@contextmanager
def _prepared(schema: Schema, name: str | None) -> Iterator[None]:
    """Work in a folder with the prepared splits, whose schema lacks the feature and those that are derived from it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, artifacts.SCHEMA)
        copy.parent.mkdir(parents=True)
        for path in artifacts.SCHEMA.parent.iterdir():
            if path.name != copy.name:
                copy.with_name(path.name).symlink_to(path.resolve())
        artifacts.write_json(copy, schema | {"features": _without(schema, name)})
        with chdir(folder):
            yield


def _without(schema: Schema, name: str | None) -> list[Schema]:
    return [one for one in schema["features"] if name not in (one["name"], *one.get("derived", ()))]
