"""The sections of `params.yaml` that this package reads, and base classes of the project's own sections.

The project's settings.py extends the base classes. Imports only pydantic, because the environments `pipeline` and
`validate` both use it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["binary", "multiclass", "regression"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A section of params.yaml: frozen, no unknown keys, no silent conversion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StageSection(Section):
    """A section that a stage of dvc.yaml reads: no setting has a default, so each must be in params.yaml.

    DVC compares params.yaml to find stale stages; it would not notice that a default has changed.
    """

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Raise TypeError for a setting with a default."""
        for name, field in cls.model_fields.items():
            if not field.is_required():
                raise TypeError(
                    f"{cls.__name__}.{name} has a default: set the value in params.yaml instead, where DVC sees it"
                )


class Csv(StageSection):
    """How a CSV file writes its cells."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)]
    decimal: Literal[".", ","]
    thousands: Annotated[str, Field(min_length=1, max_length=1)] | None
    encoding: str

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.delimiter.isascii() or self.delimiter.isalnum() or self.delimiter in '"\r\n':
            raise ValueError(f"delimiter is {self.delimiter!r}: one of ',', ';', '\\t', '|' and the like is needed")
        sign = self.thousands or " "
        if sign == self.decimal or sign.isalnum() or sign in '+-"\r\n':
            raise ValueError(
                f"thousands is {self.thousands!r}, which cannot separate digits where decimal is {self.decimal!r}"
            )
        try:
            " ".encode(self.encoding)
        except (LookupError, ValueError):
            raise ValueError(f"encoding is {self.encoding!r}, which is none: utf-8, cp1252, utf-16 are some") from None
        return self


class Data(StageSection):
    """The table, its columns, and how it is split."""

    path: str
    csv: Csv
    query: str | None
    target: str
    task: Task
    positive: str | None
    id: str | None
    timestamp: str | None
    drop: list[str]
    slices: list[str]
    categorical: list[str]
    missing: list[str]
    missing_target: list[str] | None
    max_lost: Limit
    max_categories: Annotated[int, Field(ge=2, le=1_000_000)]
    duplicates: Literal["together", "drop", "keep"]
    repeated_ids: Literal["drop", "keep"]
    val_size: Fraction
    test_size: Fraction
    seed: int

    @property
    def left_out(self) -> list[str]:
        """The columns of `drop` that nothing needs: those in `slices` too stay in the splits, unseen by the model."""
        return [name for name in self.drop if name not in self.slices]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.query is None and not _is_table(self.path):
            raise ValueError(
                f"path is {self.path!r}: a file that ends in .csv or .parquet is needed, a folder of .parquet files (a "
                "name without a dot, or with / at its end), a pattern that ends in .parquet, or a query"
            )
        if self.val_size + self.test_size >= 0.9:
            raise ValueError(
                f"val_size {self.val_size} + test_size {self.test_size} leave less than a tenth for training"
            )
        if self.positive is not None and self.task != "binary":
            raise ValueError(f"positive is {self.positive!r}, which only the binary task has; task is {self.task!r}")
        named = [name for name in (self.target, self.id, self.timestamp) if name is not None]
        if len(set(named)) < len(named) or set(named) & {*self.drop, *self.categorical}:
            raise ValueError("target, id, timestamp, drop and categorical name the same column twice")
        return self


def _is_table(path: str) -> bool:
    """Tell whether `path` is a CSV file, or parquet: a file, a folder, or a pattern, also in object storage."""
    if path.endswith(".csv"):
        return "*" not in path and "://" not in path
    name = path.rpartition("/")[2]
    return path.endswith(".parquet") or (bool(path) and "." not in name and "*" not in name)


class FeatureStore(StageSection):
    """The two tables from which join.py makes data.path; both have the column data.id (feature_store/)."""

    labels: str
    features: str
    ttl_days: Annotated[float, Field(gt=0)] | None


class Training(StageSection):
    """The settings of the project's `train` section that tuning needs."""

    seed: int
    patience: Count  # epochs without a better validation loss before training stops
    threshold: str | None  # binary: the metric by which the decision threshold is chosen


class Evaluation(StageSection):
    """The settings of the project's `evaluate` section that gate and monitor need: the bootstrap of the intervals."""

    bootstrap: Annotated[int, Field(ge=100, le=100_000)]
    min_slice_rows: Count
    seed: int


class Validation(StageSection):
    """The settings that both validation stages need. Checks are named as in their JSON report."""

    skip: list[str]
    optional_checks: list[str]


class Gate(Section):
    """When a candidate may replace the release in production (gate/gate.py)."""

    decision: Literal["proved_worse", "not_worse"] = "proved_worse"
    primary_metric: str
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    thresholds: dict[str, float]
    guardrail_metrics: dict[str, Annotated[float, Field(ge=0)]] = {}
    slices: dict[str, float] = {}
    debt: Annotated[float, Field(ge=0, le=7)] | None = None  # smallest ML Test Score (debt/score.py); None: no limit


class Package(StageSection):
    """The model's name, which is also that of its archive (serving/package.py)."""

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")]


class RequestLog(StageSection):
    """Which requests servers log, and without which columns (serving/server/request_log.py)."""

    sample: Limit
    redact: list[str]


class Range(Section):
    """The values that tuning tries for a setting: from `low` to `high`, optionally on a log scale, or `choices`."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: Annotated[list[int | float | str], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("choices cannot be combined with low, high or log")
        elif self.low is None or self.high is None:
            raise ValueError("low and high are needed, or choices")
        elif not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        elif self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}: a logarithmic scale must begin above 0")
        return self


class Tune(Section):
    """What tuning searches (tuning/): settings of `model` and `train`, as `model.width`, each with its Range.

    `metric`: what is optimised on the validation split; None: the validation loss.
    """

    trials: Count = 40
    metric: str | None = None
    space: dict[str, Range] = {}


#: The monitor's checks, any of which `monitor.skip` may name, and the settings of `monitor` that hold their limits.
MONITOR_CHECKS = {
    "feature drift": "max_feature_drift",
    "prediction drift": "max_prediction_drift",
    "label drift": "max_label_drift",
    "missing values": "max_missing",
    "unseen categories": "max_unseen",
    "out of range": "max_out_of_range",
    "refused requests": "max_refused",
    "unreadable lines": "max_refused",
    "performance": "max_performance_drop",
}


class Monitor(Section):
    """Limits beyond which requests in production have drifted from the release's test rows (monitoring/).

    Fractions are of rows, in excess of the reference's; refused requests are a fraction of the requests. Drift is
    between 0, equal, and 1, completely different distributions: Kolmogorov-Smirnov for numbers, Cramér's V for
    categories. `skip` names checks, or one column's as "feature drift: COLUMN".
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
                raise ValueError(f"skip names {name!r}, which is not a check; known: {', '.join(MONITOR_CHECKS)}")
        return self


class Retrain(Section):
    """When `make retrain` trains a candidate, and on which labels (retraining/)."""

    cooldown_hours: Annotated[float, Field(ge=0)] = 24
    label_days: Count = 90
    tune_trials: Annotated[int, Field(ge=0)] = 0
    max_logged: Limit = 0.1


class Promotion(Section):
    """For how long a release has to be live on staging before it is proposed for production (deployment/soak.py)."""

    soak_hours: Annotated[float, Field(ge=0)] = 1
