"""The interface of the project's own package: five modules, with the attributes that this package uses of each.

The package's name is in pyproject.toml, tool.gitops.package. Apart from these modules, `core.params` uses the class
`Settings` of its settings.py, and stages in dvc.yaml run its modules. Each function here imports its module when it is
called: some imports take seconds, and `checks` needs the packages of another environment.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from gitops.core import params

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch
    from numpy.typing import NDArray

    from gitops.core.params import Params
    from gitops.core.value import Value
    from gitops.tabular.columns import Columns, Derived

    Array = NDArray[np.float64]
    Schema = dict[str, Any]


class Features(Protocol):
    """Encoding of typed columns into the model's inputs, and decoding of its outputs into answers."""

    DERIVED: Mapping[str, Derived]
    encode: Callable[[Columns, Schema], tuple[torch.Tensor, ...]]
    encode_target: Callable[[Any, Schema], torch.Tensor]
    decide: Callable[[Any, Schema], Any]
    answer: Callable[[torch.Tensor, Schema], list[Any]]


class Metric(Protocol):
    """One metric: `score(actual, outputs, predicted)`, in which direction it is better, of what it is a fraction."""

    @property
    def score(self) -> Callable[[Array, Array, Array], float]: ...
    @property
    def better(self) -> Literal["higher", "lower"]: ...
    @property
    def fraction_of(self) -> Literal["pairs", "positives", "rows", "classes"] | None: ...


class Metrics(Protocol):
    """Scores of predictions: `of(task, classes, value)` returns the metrics by name."""

    of: Callable[[str, Sequence[str], Value | None], Mapping[str, Metric]]


class Evaluate(Protocol):
    """Predictions for a split: `predict(program, frame, schema)`, probabilities [rows, classes] or values [rows]."""

    predict: Callable[[torch.nn.Module, pd.DataFrame, Schema], Array]


class Callback(Protocol):
    """Called after each epoch: an MLflow run, or a trial of tuning, which may raise to end the training."""

    def log(self, entry: dict[str, float]) -> None:
        """Record the entry of one epoch: "epoch", "train_loss", "val_loss"."""


class Splits(Protocol):
    """What a training is given; but for the validation rows its form is the project's own."""

    @property
    def val(self) -> Any: ...


class Train(Protocol):
    """One training: on the prepared splits, with any settings of `model` and `train`."""

    #: Raised when training stops because the loss is not finite.
    Diverged: type[Exception]

    def load_splits(self, settings: Params) -> Splits:
        """Return the training and validation splits in the form that `fit_model` takes."""

    def fit_model(self, settings: Params, splits: Any, checkpoint: Any, callback: Callback) -> tuple[Any, list[Any]]:
        """Return the fitted model and an entry for each epoch. Raises Diverged, and whatever `callback` raises."""

    def hold_out(self, splits: Any, fraction: float, seed: int) -> tuple[Any, Any]:
        """Return splits whose training rows lack a random part, whole groups of rows, and the rows of that part."""

    def predict(self, model: Any, splits: Any, rows: Any) -> tuple[Array, Array, Array]:
        """Return actual values, outputs and predictions of rows, as `Metrics.score` takes them.

        `rows` is `val` of the splits that the model was fitted to, or a part that was held out of them.
        """

    def validation_loss(self, model: Any, rows: Any) -> float:
        """Return the loss by which the best epoch is chosen, of any rows."""


class Checks(Protocol):
    """The Deepchecks checks of the two validation stages: `(settings, schema, train, test) -> checks`."""

    data_checks: Callable[[Any, Schema, pd.DataFrame, pd.DataFrame], list[Any]]
    model_checks: Callable[[Any, Schema, pd.DataFrame, pd.DataFrame], list[Any]]


def features() -> Features:
    """Return the project's features.py."""
    return cast(Features, _module("features"))


def metrics() -> Metrics:
    """Return the project's metrics.py."""
    return cast(Metrics, _module("metrics"))


def evaluate() -> Evaluate:
    """Return the project's evaluate.py."""
    return cast(Evaluate, _module("evaluate"))


def train() -> Train:
    """Return the project's train.py."""
    return cast(Train, _module("train"))


def checks() -> Checks:
    """Return the project's checks.py, in the environment `validate`."""
    return cast(Checks, _module("checks"))


def _module(name: str) -> Any:
    return importlib.import_module(f"{params.package()}.{name}")
