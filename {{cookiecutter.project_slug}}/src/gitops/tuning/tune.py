"""`make tune TRIALS=N`: search for better settings of `model` and `train`, on the training and validation split alone.

The study has N trials in the end, those of earlier runs and other workers included. The best score of many is partly
luck, so the best sets and the present one are then trained again from other seeds, the best of these is judged on rows
that did not choose it (judge.py), and only what is better there is written to params.yaml. The test split is for the
gate: nothing here reads it.

Trials are kept in the database TUNE_STORAGE, or `sqlite:///tune.db` in the repository. Workers on any number of
machines share them through PostgreSQL; a worker that dies loses no trial.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import statistics
import time
import warnings
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from gitops.core import artifacts, params
from gitops.core.artifacts import ProjectError
from gitops.core.console import echo, printable
from gitops.core.figures import decimals
from gitops.core.params import Params
from gitops.integrations import logged_study
from gitops.tuning import judge, report
from gitops.tuning.study import (
    APART,
    NoScore,
    Trainer,
    complete,
    finished,
    open_study,
    present,
    sign,
    values_of,
    with_values,
)

DEFAULT_STORAGE = "sqlite:///tune.db"

#: Seconds between a worker's heartbeats, and after which another worker repeats a trial without one.
HEARTBEAT, GRACE = 10, 60

#: How often a trial is repeated whose worker died: one that needs too much memory kills each.
RETRIES = 2

#: Best sets of the search that are compared with the present one.
FINALISTS = 3

#: Trainings of each set in the comparison.
SEEDS = 3


def main() -> int:
    """Search, compare, write params.yaml and the reports; return 130 after Ctrl-C, which keeps all trials."""
    options = _options()
    settings = params.load()
    trials = options.trials or settings.tune.trials
    if not settings.tune.space:
        raise ProjectError(f"{artifacts.PARAMS}: tune.space is empty: name settings of model and train")
    report.value_spans(artifacts.PARAMS.read_text(encoding="utf-8"), list(settings.tune.space))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainer = Trainer(settings)
    study = open_study(settings, connect())
    whole = search(study, trainer, trials)
    if options.worker:
        return 0 if whole else 130
    comparison: dict[str, Any] | None = None
    with contextlib.suppress(KeyboardInterrupt):
        comparison = compare(study, settings, trainer) if whole else None
    if comparison and comparison["better"]:
        report.write_params(with_values(settings, comparison["best"]["values"]))
    echo(report.write(study, settings, comparison))
    logged_study.log(settings, study.study_name, len(finished(study)))
    return 0 if comparison else 130


def connect() -> RDBStorage:
    """Return the storage of TUNE_STORAGE, with its tables. Raises ProjectError, which does not contain a password."""
    address = os.environ.get("TUNE_STORAGE") or DEFAULT_STORAGE
    try:
        url = sqlalchemy.make_url(address)
    except sqlalchemy.exc.ArgumentError:
        raise ProjectError("TUNE_STORAGE is not an address such as postgresql://USER:PASSWORD@HOST/DATABASE") from None
    if url.drivername == "postgresql":  # SQLAlchemy would use psycopg 3, which is not in the lock
        url = url.set(drivername="postgresql+psycopg2")
    last: Exception
    for attempt in range(4):
        time.sleep(attempt * random.uniform(0.5, 1.5))
        try:
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                return RDBStorage(
                    url.render_as_string(hide_password=False),
                    engine_kwargs={"pool_pre_ping": True},  # a training may outlive its connection
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
                )
        except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
            last = error  # for example when another worker creates the tables at the same moment
    reason = str(getattr(last, "orig", None) or last).strip()
    raise ProjectError(f"TUNE_STORAGE {url.render_as_string(hide_password=True)} cannot be used: {reason}") from None


def search(study: optuna.Study, trainer: Trainer, trials: int) -> bool:
    """Run trials until the study has `trials` finished ones, also by other workers; return False after Ctrl-C.

    The trial that Ctrl-C interrupts does not count. Running trials of other workers are not waited for.
    """
    with tqdm(desc="tune", unit="trial", total=trials, initial=len(finished(study)), disable=None) as bar:
        try:
            while len(finished(study)) < trials:
                study.optimize(
                    trainer.objective, n_trials=1, callbacks=[lambda _, trial: bar.write(printable(_line(trial)))]
                )
                bar.n = min(trials, len(finished(study)))
                bar.set_postfix_str(_best(study))
        except KeyboardInterrupt:
            return False
    return True


def _line(trial: FrozenTrial) -> str:
    """Return one line about a trial that has just ended."""
    values = " ".join(f"{key}={value}" for key, value in (values_of(trial) or {}).items())
    if trial.state == TrialState.COMPLETE:
        ending = decimals(trial.value or 0.0)
    elif "no_score" in trial.user_attrs:
        ending = f"no score ({trial.user_attrs['no_score']})"
    else:
        ending = f"pruned in epoch {trial.last_step}"
    return f"trial {trial.number}: {ending}, {values}"


def _best(study: optuna.Study) -> str:
    """Return the best score so far, for the progress bar."""
    ranked = complete(study)
    return f"best {decimals(ranked[0].value or 0.0)}" if ranked else ""


def compare(study: optuna.Study, settings: Params, trainer: Trainer) -> dict[str, Any]:
    """Train the present set and the FINALISTS, each from SEEDS other seeds, and judge the best of these.

    Returns `seeds`; `present`, `finalists` and the `best` of these, each set with `trial`, `values`, `scores` (None
    for a training without a score), `mean` and `deviation`; `judged`, what judge.judge returns, None where the present
    set has the best mean already; `better`. Raises ProjectError where no trial has a score.
    """
    ranked = complete(study)
    if not ranked:
        reasons = [trial.user_attrs["no_score"] for trial in finished(study) if "no_score" in trial.user_attrs]
        raise ProjectError(f"no trial has a score ({reasons[0]}): narrow tune.space, its learning rates first")
    sets: list[dict[str, Any]] = [{"trial": None, "values": present(settings)}]
    for trial in ranked:
        if len(sets) <= FINALISTS and values_of(trial) not in [one["values"] for one in sets]:
            sets.append({"trial": trial.number, "values": values_of(trial)})
    seeds = [settings.train.seed + APART * number for number in range(1, SEEDS + 1)]
    todo = [(one, seed) for one in sets for seed in seeds]
    for one, seed in tqdm(todo, desc="compare", unit="training", disable=None):
        scores = one.setdefault("scores", [])
        scores.append(_score(trainer, with_values(settings, {**one["values"], "train.seed": seed})))
    for one in sets:
        whole = None not in one["scores"]
        one["mean"] = statistics.fmean(one["scores"]) if whole else None
        one["deviation"] = statistics.stdev(one["scores"]) if whole else None

    def rank(one: dict[str, Any]) -> float:
        """Of a set without a score from some seed it is worse than of any other."""
        return -math.inf if one["mean"] is None else sign(settings) * one["mean"]

    now, best = sets[0], max(sets[1:] or sets, key=rank)
    judged = None
    if rank(best) > rank(now):
        judged = judge.judge(settings, trainer, now["values"], best["values"], SEEDS + 1)
    better = judged is not None and judged["better"]
    return {"seeds": seeds, "present": now, "finalists": sets[1:], "best": best, "judged": judged, "better": better}


def _score(trainer: Trainer, settings: Params) -> float | None:
    try:
        return trainer.score(settings)
    except NoScore:
        return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tune", description="Search for better settings of model and train.")
    parser.add_argument(
        "--trials",
        type=int,
        default=os.environ.get("TRIALS") or None,
        help="trials of the study, those that it has included (default: the variable TRIALS, or tune.trials)",
    )
    parser.add_argument("--worker", action="store_true", help="only add trials; another run compares and writes")
    options = parser.parse_args()
    if options.trials is not None and options.trials < 1:
        parser.error(f"argument --trials is {options.trials}: at least 1 is needed")
    return options


if __name__ == "__main__":
    artifacts.run(main)
