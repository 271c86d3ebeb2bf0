"""The settings of `params.yaml` as one frozen, typed object: unknown keys and bad values are errors that name the key.

Imports only pydantic and PyYAML, because the pipeline and the validate environment both use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError, model_validator

from .artifacts import JOINED, PARAMS, ProjectError
from .params_sections import (
    METRICS,
    Data,
    Evaluate,
    FeatureStore,
    Gate,
    Model,
    Monitor,
    Package,
    RequestLog,
    Retrain,
    Section,
    Train,
    Tune,
    ValidateData,
    ValidateModel,
)

#: Settings of `model` and `train` that tuning leaves alone: the best seed is luck, the device a matter of speed.
UNTUNABLE = ("train.seed", "train.device")


class Params(Section):
    """All of params.yaml."""

    data: Data
    feature_store: FeatureStore | None = None
    validate_data: ValidateData = ValidateData()
    model: Model = Model()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    validate_model: ValidateModel = ValidateModel()
    gate: Gate
    package: Package
    monitor: Monitor = Monitor()
    retrain: Retrain = Retrain()
    request_log: RequestLog = RequestLog()
    tune: Tune = Tune()

    @property
    def tables(self) -> list[Path]:
        """The files that new data comes in: the table, or those that it is joined of."""
        store = self.feature_store
        return [Path(store.labels), Path(store.features)] if store else [Path(self.data.path)]

    @model_validator(mode="after")
    def _join_fits_the_data(self) -> Self:
        if self.feature_store is not None:
            if self.data.path != str(JOINED):
                raise ValueError(f"data.path is {self.data.path!r}: with feature_store it is {str(JOINED)!r}")
            if self.data.id is None or self.data.timestamp is None:
                raise ValueError("feature_store needs data.id, the entity, and data.timestamp, when it was observed")
        return self

    @model_validator(mode="after")
    def _space_fits_the_settings(self) -> Self:
        for key, values in self.tune.space.items():
            name, _, setting = key.partition(".")
            section = {"model": self.model, "train": self.train}.get(name)
            if section is None or setting not in type(section).model_fields:
                raise ValueError(f"tune.space names {key!r}, which is no setting of model or train")
            if key in UNTUNABLE:
                raise ValueError(f"tune.space names {key!r}, which makes no model better: remove it")
            for value in values.choices or (values.low, values.high):
                try:
                    type(section).model_validate({**section.model_dump(), setting: value})
                except ValidationError as error:
                    raise ValueError(f"tune.space.{key} holds {value!r}: {error.errors()[0]['msg'].lower()}") from None
        return self

    @model_validator(mode="after")
    def _metrics_fit_the_task(self) -> Self:
        known = METRICS[self.data.task]
        for key, names in (
            ("metric", [self.gate.metric]),
            ("thresholds", self.gate.thresholds),
            ("guards", self.gate.guards),
        ):
            for name in names:
                if name not in known:
                    raise ValueError(
                        f"gate.{key} names {name!r}, which task {self.data.task!r} does not have; "
                        f"it has {', '.join(known)}"
                    )
        if self.gate.metric not in self.gate.thresholds:
            raise ValueError(
                f"gate.thresholds lacks {self.gate.metric!r}, the metric that decides: give its worst value"
            )
        return self


def load(path: Path = PARAMS) -> Params:
    """Read `path`. Raises ProjectError naming every key that is unknown, missing, of the wrong type or out of range."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProjectError(f"{path} is missing: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise ProjectError(f"{path} is not valid YAML: {error}") from error
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ProjectError("\n".join(_explain(path, problem) for problem in error.errors())) from error


def _explain(path: Path, problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    where = f"{path}: {key}" if key else f"{path}"
    if problem["type"] == "extra_forbidden":
        return f"{where} is not a setting: remove it or correct its spelling"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where} is {problem['input']!r}: {message[0].lower()}{message[1:]}"
