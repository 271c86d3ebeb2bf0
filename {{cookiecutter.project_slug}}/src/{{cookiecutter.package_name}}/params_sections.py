"""The sections of `params.yaml`: which settings there are, of which type and range, and what they mean.

Imports only pydantic, because the pipeline and the validate environment both use it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
