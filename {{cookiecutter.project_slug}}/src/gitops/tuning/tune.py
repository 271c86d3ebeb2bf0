"""`make tune TRIALS=N`: search for better settings of `model` and `train`, on the training and validation split alone.

The study holds N trials in the end: what an earlier run, killed or not, or another worker has done counts. Then the
best sets and the present one are trained again, from other seeds than the search's, on which the lowest loss of many is
partly luck. Only what is better beyond the spread between seeds is written to params.yaml. The test split is for the
gate: nothing here reads it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import statistics
from typing import Any

import optuna
from tqdm import tqdm

from gitops import owner
from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.tuning import tune_params, tune_report
from gitops.tuning.tune_study import Objective, Trainer, finished, open_study, present, values_of, with_values

#: Best sets of the search that are compared with the present one.
FINALISTS = 3

#: Trainings of each set that decide between them, and how far apart their seeds lie: an epoch adds its number to one.
SEEDS, APART = 3, 1_000_003


class NoCallback:
    """For a training of the comparison, which is not part of the study."""

    def log(self, entry: dict[str, float]) -> None:
        """Nothing."""


def main() -> int:
    """Search, compare, write params.yaml and the reports; exit status 130 after Ctrl-C, which keeps what is done."""
    options = _options()
    settings = params.load()
    trials = options.trials or settings.tune.trials
    if not settings.tune.space:
        raise ProjectError(f"{artifacts.PARAMS}: tune.space is empty: name settings of model and train")
    tune_params.places(artifacts.PARAMS.read_text(encoding="utf-8"), list(settings.tune.space))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainer = Trainer(settings)
    study = open_study(settings)
    whole = search(study, Objective(settings, trainer), trials)
    if options.worker:
        return 0 if whole else 130
    comparison: dict[str, Any] | None = None
    with contextlib.suppress(KeyboardInterrupt):
        comparison = compare(study, settings, trainer) if whole else None
    if comparison and comparison["better"]:
        tune_params.write(with_values(settings, comparison["best"]["values"]))
    print(tune_report.write(study, settings, comparison))
    return 0 if comparison else 130


def search(study: optuna.Study, objective: Objective, trials: int) -> bool:
    """Run trials until the study has `trials` finished ones, whoever ran them; False where Ctrl-C came first.

    The trial that Ctrl-C breaks off does not count. One that another worker has begun is not waited for.
    """
    with tqdm(desc="tune", unit="trial", total=trials, initial=len(finished(study)), disable=None) as bar:
        try:
            while len(finished(study)) < trials:
                study.optimize(objective, n_trials=1, callbacks=[lambda _, trial: bar.write(tune_report.line(trial))])
                bar.n = min(trials, len(finished(study)))
                bar.set_postfix_str(tune_report.best(study))
        except KeyboardInterrupt:
            return False
    return True


def compare(study: optuna.Study, settings: Params, trainer: Trainer) -> dict[str, Any]:
    """Train the present set and the FINALISTS, each from SEEDS other seeds.

    Returns `seeds`; `present`, `finalists` and the `best` of these, each set with `trial`, `values`, `losses` (None: it
    diverged), `mean` and `deviation`; `better`: whether the best mean is below the present one by more than either
    deviation. Raises ProjectError where no trial ended well.
    """
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not complete:
        raise ProjectError("no trial was trained to its end: narrow tune.space, its learning rates first")
    now = present(settings)
    sets: list[dict[str, Any]] = [{"trial": None, "values": now}]
    for trial in sorted(complete, key=lambda trial: trial.value or 0.0):
        if len(sets) <= FINALISTS and values_of(trial) not in [one["values"] for one in sets]:
            sets.append({"trial": trial.number, "values": values_of(trial)})
    seeds = [settings.train.seed + APART * number for number in range(1, SEEDS + 1)]
    todo = [(one, seed) for one in sets for seed in seeds]
    for one, seed in tqdm(todo, desc="compare", unit="training", disable=None):
        losses = one.setdefault("losses", [])
        losses.append(_loss(trainer, with_values(settings, {**one["values"], "train.seed": seed})))
    for one in sets:
        whole = None not in one["losses"]
        one["mean"] = statistics.fmean(one["losses"]) if whole else None
        one["deviation"] = statistics.stdev(one["losses"]) if whole else None
    best = min(sets[1:] or sets, key=lambda one: math.inf if one["mean"] is None else one["mean"])
    return {"seeds": seeds, "present": sets[0], "finalists": sets[1:], "best": best, "better": _better(sets[0], best)}


def _loss(trainer: Trainer, settings: Params) -> float | None:
    try:
        return trainer.loss(settings, NoCallback())
    except owner.train().Diverged:
        return None


def _better(now: dict[str, Any], best: dict[str, Any]) -> bool:
    if now["mean"] is None or best["mean"] is None:  # what diverges from some seed is worse than what does not
        return best["mean"] is not None
    return bool(now["mean"] - best["mean"] > max(now["deviation"], best["deviation"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tune", description="Search for better settings of model and train.")
    parser.add_argument(
        "--trials",
        type=int,
        default=os.environ.get("TRIALS") or None,
        help="trials that the study shall hold, with those it has (default: the variable TRIALS, or tune.trials)",
    )
    parser.add_argument("--worker", action="store_true", help="only add trials: another run compares and writes")
    options = parser.parse_args()
    if options.trials is not None and options.trials < 1:
        parser.error(f"argument --trials: {options.trials} is none")
    return options


if __name__ == "__main__":
    artifacts.run(main)
