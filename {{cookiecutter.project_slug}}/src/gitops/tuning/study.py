"""The Optuna study of `make tune`: what makes its trials comparable, and what one trial is."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from gitops import owner
from gitops.core import artifacts, code, params
from gitops.core.artifacts import ProjectError
from gitops.core.params import Params

#: Files that a trial's score depends on, beside settings and code.
INPUTS = (artifacts.TRAIN, artifacts.VAL, artifacts.SCHEMA, artifacts.NUMBERS)

#: The distance of the seeds of trainings: an epoch adds its number to the seed.
APART = 1_000_003

Values = dict[str, Any]


class NoScore(Exception):
    """A training without a score, and why: it diverged, or the validation rows do not define the metric."""


def objective_name(settings: Params) -> str:
    """Return what the search optimises: the metric `tune.metric`, or the validation loss."""
    return settings.label(settings.tune.metric) if settings.tune.metric else "validation loss"


def sign(settings: Params) -> int:
    """Return 1 where a larger score is better, else -1."""
    return settings.sign(settings.tune.metric) if settings.tune.metric else -1


class Trainer:
    """Trains on the prepared training split, as the stage `train` does, and scores on the validation split.

    It uses one thread unless OMP_NUM_THREADS is set: several workers use the cores better, and do not slow each other
    down. Raises ProjectError where a split is missing.
    """

    def __init__(self, settings: Params) -> None:
        for path in INPUTS:
            if not path.exists():
                raise ProjectError(f"{path} is missing: run `make pipeline` first, or `dvc pull {path}`")
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
        self.settings = settings
        self.splits = owner.train().load_splits(settings)
        schema = artifacts.read_json(artifacts.SCHEMA, "make pipeline")
        self.rows: int = schema["rows"]["train"]
        self.classes: list[str] = schema["target"]["classes"]

    def score(self, settings: Params, trial: Trial | None = None) -> float:
        """Return the validation loss of the best epoch, or `tune.metric` of that epoch's weights.

        Raises NoScore, and TrialPruned where `trial` falls behind the trials of its study.
        """
        train = owner.train()
        model, curve = self._fit(settings, self.splits, trial)
        if settings.tune.metric is None:
            return float(min(entry["val_loss"] for entry in curve))
        undefined = "the validation rows do not define {}: raise data.val_size or change tune.metric"
        return self._metric(settings, train.predict(model, self.splits, self.splits.val), undefined)

    def held_out(self, settings: Params, fraction: float) -> tuple[float, float]:
        """Return the score, as above, of rows that are held out of the training split, and their fraction of it.

        `train.seed` is that of the training and chooses the rows. Raises NoScore.
        """
        train = owner.train()
        splits, rows = train.hold_out(self.splits, fraction, settings.train.seed)
        model, _ = self._fit(settings, splits)
        arrays = train.predict(model, splits, rows)
        held = len(arrays[0]) / self.rows
        if settings.tune.metric is None:
            return train.validation_loss(model, rows), held
        return self._metric(settings, arrays, "the held-out training rows do not define {}: change tune.metric"), held

    def _fit(self, settings: Params, splits: Any, trial: Trial | None = None) -> tuple[Any, list[dict[str, float]]]:
        train = owner.train()
        with tempfile.TemporaryDirectory() as folder:
            try:
                return train.fit_model(
                    settings, splits, Path(folder, "checkpoint.pt"), _Callback(trial, sign(settings))
                )
            except train.Diverged as error:
                raise NoScore(str(error)) from error

    def _metric(self, settings: Params, arrays: tuple[Any, ...], undefined: str) -> float:
        metric = settings.tune.metric or ""
        known = owner.metrics().of(settings.data.task, self.classes, settings.value)
        value = known[metric].score(*arrays)
        if not math.isfinite(value):
            raise NoScore(undefined.format(metric))
        return float(value)

    def objective(self, trial: Trial) -> float:
        """Return the score of a training with values that `trial` suggests. Raises TrialPruned where it has none."""
        values = {key: self._suggest(trial, key) for key in self.settings.tune.space}
        trial.set_user_attr("values", values)
        try:
            return self.score(with_values(self.settings, values), trial)
        except NoScore as error:
            trial.set_user_attr("no_score", str(error))
            raise optuna.TrialPruned(str(error)) from error

    def _suggest(self, trial: Trial, key: str) -> Any:
        """Return a value for `key`; fractional numbers are rounded to three significant digits, for people to read."""
        wanted, now = self.settings.tune.space[key], present(self.settings)[key]
        if wanted.choices is not None:
            return trial.suggest_categorical(key, wanted.choices)
        low, high = wanted.low, wanted.high
        if isinstance(now, int):
            return trial.suggest_int(key, low, high, log=wanted.log)  # type: ignore[arg-type]
        value = trial.suggest_float(key, low, high, log=wanted.log)  # type: ignore[arg-type]
        return value if value == now else min(max(float(f"{value:.3g}"), low), high)  # type: ignore[type-var]


class _Callback:
    """Reports each epoch to the trial, if there is one, and ends a training that is worse than the median by then.

    Optuna compares these losses in the direction of the scores: where larger scores are better, losses are negated.
    """

    def __init__(self, trial: Trial | None, sign: int) -> None:
        self._trial = trial
        self._sign = sign

    def log(self, entry: dict[str, float]) -> None:
        if self._trial is None:
            return
        self._trial.report(-self._sign * entry["val_loss"], int(entry["epoch"]))
        if self._trial.should_prune():
            raise optuna.TrialPruned


def present(settings: Params) -> Values:
    """Return the value of params.yaml for each setting of the search space."""
    return {key: settings.model_dump()[section][name] for key in settings.tune.space for section, name in [_split(key)]}


def with_values(settings: Params, values: Values) -> Params:
    """Return the settings with other values of `model` and `train`, validated as if they had been read."""
    changed = settings.model_dump()
    for key, value in values.items():
        section, name = _split(key)
        changed[section][name] = value
    return type(settings).model_validate(changed)


def study_name(settings: Params) -> str:
    """Return a name that only studies with comparable trials share.

    It depends on the data, the code that trains and scores, the metric, the search space, and the settings outside it.
    """
    scored = {"value"} if settings.tune.metric and settings.value else set()
    fixed = settings.model_dump(include={"model", "train"} | scored, exclude={"train": {"device", "processes"}})
    for key in settings.tune.space:
        section, name = _split(key)
        del fixed[section][name]
    digest = hashlib.sha256(repr((fixed, settings.tune.model_dump_json(include={"metric", "space"}))).encode())
    modules = ["train.py", "metrics.py"] if settings.tune.metric else ["train.py"]
    sources = {path for name in modules for path in code.computing(code.SOURCE / params.package() / name)}
    for path in (*INPUTS, *sorted(sources)):
        digest.update(artifacts.digest(path).encode())
    return f"{settings.package.model_name}-{digest.hexdigest()[:12]}"


def open_study(settings: Params, storage: BaseStorage) -> optuna.Study:
    """Return the study, which has the present values among its trials, as the first where it is new.

    Raises ProjectError where the space does not contain the present values.
    """
    now = present(settings)
    for key, wanted in settings.tune.space.items():
        inside = now[key] in wanted.choices if wanted.choices else wanted.low <= now[key] <= wanted.high
        if not inside:
            raise ProjectError(f"tune.space.{key} does not contain the present value {now[key]!r}: widen it")
    common: dict[str, Any] = {
        "study_name": study_name(settings),
        "storage": storage,
        # Without a seed: workers that share one, and a search that is continued, would draw the same values again.
        "sampler": optuna.samplers.TPESampler(),
        # As patient as the training itself, which may start slowly and end well.
        "pruner": optuna.pruners.MedianPruner(n_warmup_steps=settings.train.patience),
    }
    try:
        study = optuna.create_study(direction="maximize" if sign(settings) > 0 else "minimize", **common)
        study.enqueue_trial(now)
    except DuplicatedStudyError:
        study = optuna.load_study(**common)
        trials = study.trials
        # A study without trials has just been created by another worker, which adds the present values now.
        if trials and not any(values_of(trial) == now for trial in trials if trial.state != TrialState.FAIL):
            study.enqueue_trial(now)
    return study


def values_of(trial: FrozenTrial) -> Values | None:
    """Return the values that a trial was or will be trained with; None where it ended before they were drawn."""
    values: Values | None = trial.user_attrs.get("values") or trial.system_attrs.get("fixed_params")
    return values


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count: complete or pruned."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have a score, the best first."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    larger = study.direction == optuna.study.StudyDirection.MAXIMIZE
    return sorted(trials, key=lambda trial: trial.value or 0.0, reverse=larger)


def _split(key: str) -> tuple[str, str]:
    section, _, name = key.partition(".")
    return section, name
