"""The settings of `params.yaml` as one frozen, typed object: unknown keys and bad values are errors that name the key.

The project's settings.py declares the class `Settings`: `Params`, below, extended by the project's own sections.
Imports only pydantic and PyYAML, because the environments `pipeline` and `validate` both use it.
"""

from __future__ import annotations

import functools
import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import ValidationError, model_validator

from gitops.core import core_schema
from gitops.core.artifacts import JOINED, PARAMS, ProjectError, refuse_conflict
from gitops.core.sections import (
    Data,
    Evaluation,
    FeatureStore,
    Gate,
    Monitor,
    Package,
    Promotion,
    RequestLog,
    Retrain,
    Section,
    Training,
    Tune,
    Validation,
)
from gitops.core.value import EXPECTED_VALUE, Value

#: The repository's root.
ROOT = Path(__file__).resolve().parents[3]

#: Settings that cannot be tuned: the best seed is luck, and the others change only the speed.
UNTUNABLE = ("train.seed", "train.device", "train.processes")

#: What to do where a section is missing that older projects do not have.
ADDED = {"value": "add the line `value: null`, or say what answers are worth (docs/system-design.md, Value)"}

#: Earlier names of settings: an error names the new one.
RENAMED = {
    "evaluate.slices": "data.slices",
    "gate.metric": "gate.primary_metric",
    "gate.guards": "gate.guardrail_metrics",
    "model.members": "model.ensemble_size",
    "request_log.mask": "request_log.redact",
    "validate_data.may_not_run": "validate_data.optional_checks",
    "validate_model.may_not_run": "validate_model.optional_checks",
}


class Params(Section):
    """The sections of params.yaml that this package reads."""

    #: task -> metric -> which direction is better, as the project's metrics.py has them; its Settings fills it in.
    metrics: ClassVar[Mapping[str, Mapping[str, Literal["higher", "lower"]]]] = {}

    data: Data
    feature_store: FeatureStore | None = None
    value: Value | None
    validate_data: Validation
    model: Section
    train: Training
    evaluate: Evaluation
    validate_model: Validation
    gate: Gate
    package: Package
    request_log: RequestLog
    monitor: Monitor = Monitor()
    retrain: Retrain = Retrain()
    tune: Tune = Tune()
    promotion: Promotion = Promotion()

    @property
    def tables(self) -> list[Path]:
        """The files in which new data arrives: the table, or the two that it is joined from."""
        store = self.feature_store
        return [Path(store.labels), Path(store.features)] if store else [Path(self.data.path)]

    @property
    def better(self) -> dict[str, Literal["higher", "lower"]]:
        """The metrics of the task and which direction is better, the expected value among them where it is known."""
        known: dict[str, Literal["higher", "lower"]] = {**self.metrics[self.data.task]}
        return known | ({EXPECTED_VALUE: "higher"} if self.value else {})

    def sign(self, metric: str) -> int:
        """Return 1 where a larger value of the metric is better, else -1."""
        return 1 if self.better[metric] == "higher" else -1

    def unit(self, metric: str) -> str:
        """Return the unit of a metric, a text of params.yaml; none has one but the expected value."""
        return f"{self.value.unit} a month" if self.value and metric == EXPECTED_VALUE else ""

    def label(self, metric: str) -> str:
        """Return a metric's name for people to read: with its unit, where it has one."""
        unit = self.unit(metric)
        return f"{metric} ({unit})" if unit else metric

    @classmethod
    def load(cls, path: Path = PARAMS) -> Self:
        """Read `path`. Raises ProjectError naming each key that is unknown, missing, mistyped or out of range."""
        try:
            values: Any = core_schema.load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ProjectError(f"{path} is missing: run from the repository's root") from None
        except yaml.YAMLError as error:
            refuse_conflict(path)
            raise ProjectError(f"{path} is not valid YAML: {error}") from error
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ProjectError("\n".join(_explain(path, error))) from error

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
                why = f"is now {RENAMED[key]}" if key in RENAMED else "is not a setting of model or train"
                raise ValueError(f"tune.space names {key!r}, which {why}")
            if key in UNTUNABLE:
                raise ValueError(f"tune.space names {key!r}, which is not tunable: remove it")
            for value in values.choices or (values.low, values.high):
                try:
                    type(section).model_validate({**section.model_dump(), setting: value})
                except ValidationError as error:
                    raise ValueError(f"tune.space.{key} holds {value!r}: {error.errors()[0]['msg'].lower()}") from None
        return self

    @model_validator(mode="after")
    def _value_fits_the_task(self) -> Self:
        if self.value is not None:
            if why := self.value.refusal(self.data.task):
                raise ValueError(why)
            if self.data.positive is not None and self.data.positive not in self.value.classes:
                has = ", ".join(self.value.classes)
                raise ValueError(
                    f"value.answers lacks {self.data.positive!r}, which is data.positive; it has {has}: give what the "
                    "answers of this table are worth, or set value to null"
                )
        return self

    @model_validator(mode="after")
    def _metrics_fit_the_task(self) -> Self:
        known = self.better
        for key, names in (
            ("gate.primary_metric", [self.gate.primary_metric]),
            ("gate.thresholds", self.gate.thresholds),
            ("gate.guardrail_metrics", self.gate.guardrail_metrics),
            ("gate.slices", self.gate.slices),
            ("tune.metric", [self.tune.metric] if self.tune.metric else []),
            ("train.threshold", [self.train.threshold] if self.train.threshold and self.data.task == "binary" else []),
        ):
            for name in names:
                if name not in known:
                    if name == EXPECTED_VALUE:
                        raise ValueError(f"{key} names {name!r}, and value is null: say there what answers are worth")
                    raise ValueError(
                        f"{key} names {name!r}, which task {self.data.task!r} does not have; it has {', '.join(known)}"
                    )
        if self.gate.primary_metric not in self.gate.thresholds:
            raise ValueError(f"gate.thresholds lacks {self.gate.primary_metric!r}, the primary metric: add its limit")
        if self.gate.slices and not self.data.slices:
            raise ValueError("gate.slices has limits, and data.slices names no column: add those that must hold them")
        return self


@functools.cache
def package() -> str:
    """Return the name of the project's own package, from pyproject.toml. Raises ProjectError where that lacks it."""
    path = ROOT / "pyproject.toml"
    try:
        return str(tomllib.loads(path.read_text(encoding="utf-8"))["tool"]["gitops"]["package"])
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise ProjectError(f"{path}: tool.gitops.package must name the project's own package in src/") from error


def load(path: Path = PARAMS) -> Params:
    """Read `path` as the project's own `Settings`. Raises ProjectError as Params.load does."""
    declared: type[Params] = importlib.import_module(f"{package()}.settings").Settings
    return declared.load(path)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _explain(path: Path, error: ValidationError) -> list[str]:
    """Return a line for each problem; a setting that is missing because its old name is there is one problem."""
    problems = [(".".join(map(str, problem["loc"])), problem) for problem in error.errors()]
    renamed = {RENAMED[key] for key, _ in problems if key in RENAMED}
    missing = [key for key, problem in problems if problem["type"] == "missing" and key in renamed]
    return [_line(path, key, problem) for key, problem in problems if key not in missing]


def _line(path: Path, key: str, problem: Any) -> str:
    where = f"{path}: {key}" if key else f"{path}"
    if problem["type"] == "extra_forbidden":
        if key in RENAMED:
            return f"{where} is now {RENAMED[key]}: rename it"
        return f"{where} is not a setting: remove it or correct its spelling"
    if problem["type"] == "missing":
        return f"{where} is missing" + (f": {ADDED[key]}" if key in ADDED else "")
    if problem["type"] == "string_type" and isinstance(problem["input"], int | float):
        return f"{where} is {problem['input']!r}: a text is expected, put it in quotes"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where} is {problem['input']!r}: {message[0].lower()}{message[1:]}"
