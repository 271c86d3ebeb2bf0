"""The study that `make tune` searches in: what makes its trials comparable, and what one trial is."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import DuplicatedStudyError
from optuna.trial import FrozenTrial, Trial, TrialState

from gitops import owner
from gitops.core import artifacts, code, params
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params
from gitops.tuning import tune_storage

#: What a trial's validation loss depends on, beside settings and code.
INPUTS = (artifacts.TRAIN, artifacts.VAL, artifacts.SCHEMA)

Values = dict[str, Any]


class Trainer:
    """Trains on the prepared training split and scores on the validation split, as the stage `train` does.

    In one thread where OMP_NUM_THREADS does not say otherwise: workers use cores better, and do not hold each other up.
    Raises ProjectError where a split is missing.
    """

    def __init__(self, settings: Params) -> None:
        for path in INPUTS:
            if not path.exists():
                raise ProjectError(f"{path} is missing: run `make pipeline` first, or `dvc pull {path}`")
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
        self.splits = owner.train().load_splits(settings)

    def loss(self, settings: Params, callback: owner.Callback) -> float:
        """Return the validation loss of the best epoch. Raises train.Diverged, and whatever `callback` raises."""
        with tempfile.TemporaryDirectory() as folder:
            _, curve = owner.train().fit_model(settings, self.splits, Path(folder, "checkpoint.pt"), callback)
        return float(min(entry["val_loss"] for entry in curve))


class Objective:
    """One trial: suggested values, a training that is given up where it falls behind, its validation loss."""

    def __init__(self, settings: Params, trainer: Trainer) -> None:
        self.settings = settings
        self.trainer = trainer

    def __call__(self, trial: Trial) -> float:
        values = {key: self._suggest(trial, key) for key in self.settings.tune.space}
        trial.set_user_attr("values", values)
        try:
            return self.trainer.loss(with_values(self.settings, values), _Callback(trial))
        except owner.train().Diverged as error:
            trial.set_user_attr("diverged", str(error))
            raise optuna.TrialPruned(str(error)) from error

    def _suggest(self, trial: Trial, key: str) -> Any:
        """Return a value for `key`; a number with a fraction has three significant digits, fit to be read and kept."""
        wanted, now = self.settings.tune.space[key], present(self.settings)[key]
        if wanted.choices is not None:
            return trial.suggest_categorical(key, wanted.choices)
        low, high = wanted.low, wanted.high
        if isinstance(now, int):
            return trial.suggest_int(key, low, high, log=wanted.log)  # type: ignore[arg-type]
        value = trial.suggest_float(key, low, high, log=wanted.log)  # type: ignore[arg-type]
        return value if value == now else min(max(float(f"{value:.3g}"), low), high)  # type: ignore[type-var]


class _Callback:
    """Tells the study of each epoch, and ends a training that is worse than most were by then."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def log(self, entry: dict[str, float]) -> None:
        self._trial.report(entry["val_loss"], int(entry["epoch"]))
        if self._trial.should_prune():
            raise optuna.TrialPruned


def present(settings: Params) -> Values:
    """Return what params.yaml holds now for each setting of the search space."""
    return {key: settings.model_dump()[section][name] for key in settings.tune.space for section, name in [_split(key)]}


def with_values(settings: Params, values: Values) -> Params:
    """Return the settings with other values of `model` and `train`, checked as if they had been read."""
    changed = settings.model_dump()
    for key, value in values.items():
        section, name = _split(key)
        changed[section][name] = value
    return type(settings).model_validate(changed)


def study_name(settings: Params) -> str:
    """Return a name that only studies share whose trials are comparable.

    It holds the data, the training's code, the search space and those settings that are not searched.
    """
    fixed = settings.model_dump(include={"model", "train"})
    del fixed["train"]["device"]
    for key in settings.tune.space:
        section, name = _split(key)
        del fixed[section][name]
    digest = hashlib.sha256(repr((fixed, settings.tune.model_dump_json(include={"space"}))).encode())
    for path in (*INPUTS, *code.computing(code.SOURCE / params.package() / "train.py")):
        digest.update(artifacts.digest(path).encode())
    return f"{settings.package.model_name}-{digest.hexdigest()[:12]}"


def open_study(settings: Params) -> optuna.Study:
    """Return the study, with the present values among its trials, first in a new one.

    Raises ProjectError where the database cannot be used, or where the space does not hold the present values.
    """
    now = present(settings)
    for key, wanted in settings.tune.space.items():
        held = now[key] in wanted.choices if wanted.choices else wanted.low <= now[key] <= wanted.high
        if not held:
            raise ProjectError(f"tune.space.{key} does not hold the present value {now[key]!r}: widen it")
    common: dict[str, Any] = {
        "study_name": study_name(settings),
        "storage": tune_storage.connect(),
        # Without a seed: workers that share one, and a search that goes on, would draw the same values again.
        "sampler": optuna.samplers.TPESampler(),
        # As patient as the training itself, which may begin slowly and end well.
        "pruner": optuna.pruners.MedianPruner(n_warmup_steps=settings.train.patience),
    }
    try:
        study = optuna.create_study(direction="minimize", **common)
        study.enqueue_trial(now)
    except DuplicatedStudyError:
        study = optuna.load_study(**common)
        trials = study.trials
        # In one without trials, who has just created it is about to do so.
        if trials and not any(values_of(trial) == now for trial in trials if trial.state != TrialState.FAIL):
            study.enqueue_trial(now)
    return study


def values_of(trial: FrozenTrial) -> Values | None:
    """Return the values that a trial has or is to be trained with; None where it ended before they were drawn."""
    values: Values | None = trial.user_attrs.get("values") or trial.system_attrs.get("fixed_params")
    return values


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: trained to their end, or pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _split(key: str) -> tuple[str, str]:
    section, _, name = key.partition(".")
    return section, name
