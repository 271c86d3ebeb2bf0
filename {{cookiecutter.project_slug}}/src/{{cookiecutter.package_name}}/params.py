"""The settings of `params.yaml` as one frozen, typed object: unknown keys and bad values are errors that name the key.

Imports only pydantic and PyYAML, because the pipeline and the validate environment both use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .artifacts import JOINED, PARAMS, ProjectError

Task = Literal["binary", "multiclass", "regression"]
Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[float, Field(ge=0, le=1)]

#: Metrics by task, the decisive one first, with the direction that is better. The gate knows no others.
METRICS: dict[str, dict[str, Literal["higher", "lower"]]] = {
    "binary": {"roc_auc": "higher", "pr_auc": "higher", "f1": "higher", "accuracy": "higher", "brier": "lower"},
    "multiclass": {"macro_f1": "higher", "accuracy": "higher", "log_loss": "lower"},
    "regression": {"rmse": "lower", "mae": "lower", "r2": "higher"},
}


#: Settings of `model` and `train` that tuning leaves alone: the best seed is luck, the device a matter of speed.
UNTUNABLE = ("train.seed", "train.device")


class Section(BaseModel):
    """A section of params.yaml: frozen, no unknown keys, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Data(Section):
    """Which table, what its columns are, and how it is split."""

    path: str
    target: str
    task: Task
    positive: str | None = None
    id: str | None = None
    timestamp: str | None = None
    drop: list[str] = []
    categorical: list[str] = []
    missing: list[str] = ["", "?", "NA", "N/A", "NaN", "nan", "null", "None"]
    max_categories: Annotated[int, Field(ge=2, le=1_000_000)] = 1000
    val_size: Share = 0.15
    test_size: Share = 0.2
    seed: int = 42

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.path.endswith((".csv", ".parquet")):
            raise ValueError(f"path is {self.path!r}: a file that ends in .csv or .parquet is needed")
        if self.val_size + self.test_size >= 0.9:
            raise ValueError(f"val_size {self.val_size} + test_size {self.test_size} leave under a tenth to train on")
        if self.positive is not None and self.task != "binary":
            raise ValueError(f"positive is {self.positive!r}, which only the binary task has; task is {self.task!r}")
        named = [name for name in (self.target, self.id, self.timestamp) if name is not None]
        if len(set(named)) < len(named) or set(named) & {*self.drop, *self.categorical}:
            raise ValueError("target, id, timestamp, drop and categorical name the same column twice")
        return self


class FeatureStore(Section):
    """The two tables that join.py makes data.path of; both have the column data.id (feature_store.py)."""

    labels: str
    features: str
    ttl_days: Annotated[float, Field(gt=0)] | None = None


class ValidateData(Section):
    """When the splits are fit to train and score a model (validate_data.py, deepchecks_suites.py).

    Shares are of rows. Drift is 0 for equal and 1 for wholly different distributions: Kolmogorov-Smirnov for numbers,
    Cramér's V for categories. Checks are named as in reports/validate_data.json.
    """

    max_duplicates: Limit = 0.05
    max_conflicting_labels: Limit = 0.01
    max_predictive_power: Limit = 0.9
    max_train_test_mix: Limit = 0.05
    max_new_categories: Limit = 0.1
    max_feature_drift: Limit = 0.2
    max_label_drift: Limit = 0.2
    skip: list[str] = []
    may_not_run: list[str] = []


class Model(Section):
    """Shape of the network (model.py)."""

    width: Count = 96
    depth: Count = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    members: Count = 8
    bins: Annotated[int, Field(ge=2)] = 8
    embedding: Count = 8


class Train(Section):
    """How the network is fitted (train.py)."""

    epochs: Count = 200
    patience: Count = 20
    batch_size: Count = 128
    learning_rate: Annotated[float, Field(gt=0)] = 0.002
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 42


class Evaluate(Section):
    """What evaluate.py reports."""

    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000
    slices: list[str] = []
    seed: int = 42


class ValidateModel(Section):
    """When the model's predictions hold on the test rows (validate_model.py, deepchecks_suites.py).

    Scored by ROC AUC (binary), macro F1 (multiclass) or R² (regression).
    """

    max_degradation: Limit = 0.3
    min_gain: Limit = 0.1
    max_prediction_drift: Limit = 0.2
    skip: list[str] = []
    may_not_run: list[str] = []


class Gate(Section):
    """When a candidate may replace the release in production (gate.py)."""

    metric: str
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    thresholds: dict[str, float]
    guards: dict[str, Annotated[float, Field(ge=0)]] = {}


class Package(Section):
    """What the model archive is called (package.py)."""

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")]


class RequestLog(Section):
    """What servers log of requests (serving/request_log.py)."""

    sample: Limit = 1.0
    mask: list[str] = []


class Range(Section):
    """The values that tuning tries for a setting: from `low` to `high`, on a logarithmic scale if so, or `choices`."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: Annotated[list[int | float | str], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("choices go without low, high and log")
        elif self.low is None or self.high is None:
            raise ValueError("low and high are needed, or choices")
        elif not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        elif self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}: a logarithmic scale begins above 0")
        return self


class Tune(Section):
    """What tuning searches (tune.py): settings of `model` and `train`, as `model.width`, each with its Range."""

    trials: Count = 40
    space: dict[str, Range] = {}


#: What the monitor judges, and may be told to skip.
MONITOR_CHECKS = (
    "feature drift",
    "prediction drift",
    "label drift",
    "missing values",
    "unseen categories",
    "out of range",
    "refused requests",
    "unreadable lines",
    "performance",
)


class Monitor(Section):
    """When requests in production are said to have drifted from the release's test rows (monitor_checks.py).

    Shares are of rows and count beyond the share in the reference; refused requests are a share of the requests. Drift
    is measured as in ValidateData. `skip` names checks, or one column's as "feature drift: COLUMN".
    """

    min_rows: Annotated[int, Field(ge=20)] = 100
    days: Count = 30
    max_feature_drift: Limit = 0.2
    max_prediction_drift: Limit = 0.2
    max_label_drift: Limit = 0.2
    max_missing: Limit = 0.05
    max_unseen: Limit = 0.05
    max_out_of_range: Limit = 0.05
    max_refused: Limit = 0.05
    max_performance_drop: Annotated[float, Field(ge=0)] = 0.05
    skip: list[str] = []

    @model_validator(mode="after")
    def _skip_is_known(self) -> Self:
        for name in self.skip:
            if name.partition(": ")[0] not in MONITOR_CHECKS:
                raise ValueError(f"skip names {name!r}, which is no check; there are {', '.join(MONITOR_CHECKS)}")
        return self


class Retrain(Section):
    """When and from what `make retrain` makes a candidate (retrain.py)."""

    cooldown_hours: Annotated[float, Field(ge=0)] = 24
    label_days: Count = 90
    tune_trials: Annotated[int, Field(ge=0)] = 0


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
