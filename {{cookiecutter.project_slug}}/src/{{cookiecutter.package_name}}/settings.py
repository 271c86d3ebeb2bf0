"""Your settings: the sections of `params.yaml` that your modules read, with types and ranges.

A new setting is a line here and one in `params.yaml`. None has a default, so that DVC, which looks at `params.yaml`,
sees every change. Sections that are not here (data, gate, package, monitor, ...) stand in gitops/core/sections.py.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from gitops.core.params import Params
from gitops.core.sections import Count, Evaluation, Limit, StageSection, Training, Validation

from .metrics import METRICS, of


class ValidateData(Validation):
    """When the splits are fit to train and score a model (checks.py).

    Fractions are of rows. Drift is 0 for equal and 1 for wholly different distributions: Kolmogorov-Smirnov for
    numbers, Cramér's V for categories.
    """

    max_duplicates: Limit
    max_conflicting_labels: Limit
    max_predictive_power: Limit
    max_train_test_mix: Limit
    max_new_categories: Limit
    max_feature_drift: Limit
    max_label_drift: Limit


class Model(StageSection):
    """Shape of the network (model.py)."""

    width: Count
    depth: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    ensemble_size: Count
    bins: Annotated[int, Field(ge=2)]
    embedding: Count


class Train(Training):
    """How the network is fitted (train.py)."""

    epochs: Count
    batch_size: Count
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    class_weights: Literal["balanced"] | None
    calibration: Literal["temperature"] | None
    device: Literal["auto", "cpu", "cuda"]
    processes: Count


class Evaluate(Evaluation):
    """What evaluate.py reports."""


class ValidateModel(Validation):
    """When the model's predictions hold on the test rows (checks.py).

    Scored by ROC AUC (binary), macro F1 (multiclass) or R² (regression).
    """

    max_degradation: Limit
    min_gain: Limit
    max_prediction_drift: Limit


class Settings(Params):
    """All of params.yaml."""

    metrics: ClassVar = {
        task: {name: metric.better for name, metric in known.items()} for task, known in METRICS.items()
    }

    validate_data: ValidateData
    model: Model
    train: Train
    evaluate: Evaluate
    validate_model: ValidateModel

    @model_validator(mode="after")
    def _threshold_matters(self) -> Self:
        """Refuse a metric that is the same at any threshold: it cannot choose one."""
        name = self.train.threshold
        if name is not None and self.data.task == "binary":
            metric = of("binary", self.value.classes if self.value else [], self.value)[name]
            actual, outputs = np.array([0, 0, 1, 1]), np.tile([0.4, 0.6], (4, 1))
            decisions = actual, 1 - actual, np.zeros(4, dtype=int), np.ones(4, dtype=int)
            if len({metric.score(actual, outputs, predicted) for predicted in decisions}) == 1:
                raise ValueError(f"train.threshold names {name!r}, which no decision changes: f1 is one that it does")
        return self
