"""The network with its preprocessing in one graph: it takes raw values and answers in the target's unit.

Numbers are imputed with the training median, then seen twice: standardised, and spread over quantile bins (piecewise-
linear encoding, Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022,
section 3.2). Categories are looked up by their hash and embedded. Dates are numbers, and have a cyclical
encoding by day, week and year. All of it is fitted to statistics of the training rows, never to the rows themselves.

The network is an ensemble of multilayer perceptrons that share all weights but a scaling of their inputs and their last
layer, and whose answers are averaged (TabM-mini: Gorishniy, Kotelnikov, Babenko, "TabM: Advancing Tabular Deep Learning
with Parameter-Efficient Ensembling", ICLR 2025).

Another network takes the place of `Network` alone; docs/your-model.md has two.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gitops.tabular.numbers import LEVELS
from gitops.tabular.numbers import Numbers as Statistics

from .features import MISSING, category_code, category_features, number_features
from .settings import Model

#: Standardised numbers beyond this many deviations say no more than that they are far out.
CLIP = 5.0

#: Periods of dates, in seconds.
DAY, WEEK, YEAR = 86_400.0, 604_800.0, 31_556_952.0


class Numbers(nn.Module):
    """[rows, N] float64 with NaN for missing -> [rows, N * (bins + 2) + 6 * dates] float32."""

    median: Tensor
    mean: Tensor
    scale: Tensor
    left: Tensor
    slope: Tensor
    dates: Tensor
    periods: Tensor

    def __init__(self, numbers: Statistics, bins: int, dates: list[int]) -> None:
        super().__init__()
        self.register_buffer("median", torch.tensor(numbers.median))
        self.register_buffer("mean", torch.tensor(numbers.mean))
        self.register_buffer("scale", torch.tensor(np.where(numbers.std > 0, numbers.std, 1.0)))
        left, slope = self._bins(numbers.quantiles, bins)
        self.register_buffer("left", left)
        self.register_buffer("slope", slope)
        self.register_buffer("dates", torch.tensor(dates, dtype=torch.int64))
        self.register_buffer("periods", torch.tensor([DAY, WEEK, YEAR], dtype=torch.float64))
        self.count, self.bins = len(numbers.names), bins
        self.width = self.count * (bins + 2) + 6 * len(dates)

    @staticmethod
    def _bins(quantiles: np.ndarray[Any, Any], bins: int) -> tuple[Tensor, Tensor]:
        """Return left edges and slopes, [N, bins] each; a column of few values has fewer bins, the rest stay 0.

        The edges are those of the `quantiles` [N, LEVELS + 1] that are nearest to 0, 1 / bins, ..., 1.
        """
        left, slope = np.zeros((2, len(quantiles), bins))
        chosen = quantiles[:, np.round(np.linspace(0, LEVELS, bins + 1)).astype(int)]
        for column, values in enumerate(chosen):
            edges = np.unique(values)
            left[column, : len(edges) - 1] = edges[:-1]
            slope[column, : len(edges) - 1] = 1 / np.diff(edges)
        return torch.tensor(left), torch.tensor(slope)

    def forward(self, numbers: Tensor) -> Tensor:
        missing = torch.isnan(numbers)
        filled = torch.where(missing, self.median, numbers)
        linear = ((filled - self.mean) / self.scale).clamp(-CLIP, CLIP)
        # The largest tensor, [rows, N, bins]. Float32 cannot tell the edges of a long-tailed column or of dates apart.
        binned = (filled.unsqueeze(2) - self.left).mul_(self.slope).clamp_(0, 1).flatten(1).float()
        angles = filled[:, self.dates].unsqueeze(2) * (2 * math.pi / self.periods)
        cyclical = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)
        return torch.cat([linear.float(), missing.float(), binned, cyclical.float()], dim=1)


class Categories(nn.Module):
    """[rows, C] int64 hashes -> [rows, C * length] float32; missing and unseen values have vectors of their own.

    One sorted table has the categories of all columns: the hash of a category, mixed with a number of its column.
    """

    marks: Tensor
    table: Tensor
    rows: Tensor
    unseen: Tensor

    def __init__(self, features: list[dict[str, Any]], length: int) -> None:
        super().__init__()
        self.count, self.length = len(features), length
        # Odd multiples of the golden ratio, so that a text has another key in each column.
        marks = (np.arange(1, self.count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).view(np.int64)
        self.register_buffer("marks", torch.tensor(marks))
        keys, rows, unseen, size = [np.empty(0, np.int64)], [np.empty(0, np.int64)], np.empty(self.count, np.int64), 0
        for column, feature in enumerate(features):
            codes = np.sort([MISSING, *(category_code(text) for text in feature["categories"])])
            keys.append(codes ^ marks[column])
            rows.append(np.arange(size, size + len(codes)))  # of the embedding
            unseen[column] = size + len(codes)
            size += len(codes) + 1
        order = np.concatenate(keys).argsort(kind="stable")
        table, places = np.concatenate(keys)[order], np.concatenate(rows)[order]
        for place in places[1:][table[1:] == table[:-1]]:
            name = features[unseen.searchsorted(place)]["name"]
            raise ValueError(f"two categories of column {name!r} share a hash: rename one of them")
        self.register_buffer("table", torch.tensor(table))
        self.register_buffer("rows", torch.tensor(places))
        self.register_buffer("unseen", torch.tensor(unseen))
        self.embedding = nn.Embedding(max(1, size), length)
        # Values that training never shows keep this vector, the middle of those it does show.
        nn.init.zeros_(self.embedding.weight)
        self.width = self.count * length

    def forward(self, codes: Tensor) -> Tensor:
        if not self.count:
            return self.embedding.weight.new_zeros(codes.shape[0], 0)
        wanted = codes ^ self.marks
        place = torch.searchsorted(self.table, wanted).clamp(max=len(self.table) - 1)
        rows = torch.where(self.table[place] == wanted, self.rows[place], self.unseen)
        vectors: Tensor = self.embedding(rows)
        return vectors.flatten(1)


class Inputs(nn.Module):
    """The preprocessing: numbers and categories as the encoder makes them -> [rows, width] float32."""

    def __init__(self, schema: dict[str, Any], numbers: Statistics, params: Model) -> None:
        """Fit it to the training rows' statistics."""
        super().__init__()
        features = number_features(schema)
        dates = [index for index, feature in enumerate(features) if feature["dtype"] == "datetime"]
        self.numbers = Numbers(numbers.of([feature["name"] for feature in features]), params.bins, dates)
        self.categories = Categories(category_features(schema), params.embedding)
        self.width = self.numbers.width + self.categories.width

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        return torch.cat([self.numbers(numbers), self.categories(categories)], dim=1)


class Network(nn.Module):
    """[rows, width] float32 -> raw outputs [rows, ensemble size, outputs]; an ordinary network is an ensemble of 1."""

    def __init__(self, inputs: Inputs, outputs: int, params: Model) -> None:
        super().__init__()
        width = inputs.width
        self.scaling = nn.Parameter(torch.randint(0, 2, (params.ensemble_size, width)) * 2.0 - 1.0)
        layers: list[nn.Module] = []
        for _ in range(params.depth):
            layers += [nn.Linear(width, params.width), nn.ReLU(), nn.Dropout(params.dropout)]
            width = params.width
        self.trunk = nn.Sequential(*layers)
        bound = width**-0.5
        self.heads = nn.Parameter(torch.empty(params.ensemble_size, width, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(params.ensemble_size, outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.trunk(inputs.unsqueeze(1) * self.scaling)
        outputs: Tensor = torch.einsum("bmw,mwo->bmo", hidden, self.heads) + self.bias
        return outputs


class TabularModel(nn.Module):
    """Preprocessing and network. `forward` gives what training compares with the target, `predict` what is served.

    `class_weights` [classes] are those of the loss, `temperature` divides the logarithms of the answer, and `decision`
    is what model/decision.json holds (calibration.py).
    """

    target_mean: Tensor
    target_scale: Tensor
    class_weights: Tensor
    temperature: Tensor

    def __init__(self, schema: dict[str, Any], numbers: Statistics, params: Model) -> None:
        """Fit the preprocessing to the training rows' statistics: of each number and, in a regression, of the target.

        Raises ProjectError where one of these is not among them.
        """
        super().__init__()
        self.inputs = Inputs(schema, numbers, params)
        self.network = Network(self.inputs, len(schema["target"]["classes"]) or 1, params)
        self.classifies = bool(schema["target"]["classes"])
        target = None if self.classifies else numbers.of([schema["target"]["name"]])
        self.register_buffer("target_mean", torch.tensor(float(target.mean[0]) if target else 0.0))
        self.register_buffer("target_scale", torch.tensor(float(target.std[0]) if target else 1.0))
        self.register_buffer("class_weights", torch.ones(len(schema["target"]["classes"]) or 1))
        self.register_buffer("temperature", torch.tensor(1.0))
        self.decision: dict[str, Any] = {}

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return raw outputs, [rows, ensemble size, outputs]."""
        outputs: Tensor = self.network(self.inputs(numbers, categories))
        return outputs

    def predict(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return probabilities [rows, classes], or values [rows] in the target's unit."""
        return self.answer(self.scores(numbers, categories))

    def scores(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return what `answer` takes: before the temperature, which is chosen when these are known."""
        outputs = self(numbers, categories)
        if self.classifies:
            # A loss with weights teaches the classes' probabilities times these: they are taken out again.
            return torch.log_softmax(outputs - self.class_weights.log(), dim=2).logsumexp(dim=1)
        answer: Tensor = outputs.mean(dim=1).squeeze(1) * self.target_scale + self.target_mean
        return answer

    def answer(self, scores: Tensor) -> Tensor:
        """Return what is served, given the `scores` of the rows: see `predict`."""
        return torch.softmax(scores / self.temperature, dim=1) if self.classifies else scores


class _Predictor(nn.Module):
    """`predict` as a module's forward, which is what torch.export takes."""

    def __init__(self, model: TabularModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        return self.model.predict(numbers, categories)


def export(model: TabularModel, schema: dict[str, Any]) -> torch.export.ExportedProgram:
    """Return the whole graph, preprocessing included, for any number of rows, on the CPU."""
    example = (
        torch.zeros(2, len(number_features(schema)), dtype=torch.float64),
        torch.zeros(2, len(category_features(schema)), dtype=torch.int64),
    )
    rows = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(_Predictor(model.cpu().eval()), example, dynamic_shapes=(rows, rows))
    for node in program.graph.nodes:
        # It holds this machine's paths, which are private, and the same model must be the same bytes anywhere.
        node.meta.pop("stack_trace", None)
    return program
