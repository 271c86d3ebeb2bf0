"""The network with its preprocessing in one graph: it takes raw values and answers in the target's unit.

Numbers are imputed with the training median, then seen twice: standardised, and spread over quantile bins (piecewise-
linear encoding, Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022,
section 3.2). Categories are looked up by their hash and embedded. Dates are numbers, and have a cyclical
encoding by day, week and year.

The network is an ensemble of multilayer perceptrons that share all weights but a scaling of their inputs and their last
layer, and whose answers are averaged (TabM-mini: Gorishniy, Kotelnikov, Babenko, "TabM: Advancing Tabular Deep Learning
with Parameter-Efficient Ensembling", ICLR 2025).

Another network takes the place of `Network` alone; docs/your-model.md has two.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

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

    def __init__(self, numbers: Tensor, bins: int, dates: list[int]) -> None:
        super().__init__()
        count = numbers.shape[1]
        self.register_buffer("median", torch.nanquantile(numbers, 0.5, dim=0) if count else numbers.new_zeros(0))
        filled = torch.where(torch.isnan(numbers), self.median, numbers)
        deviation = filled.std(dim=0, correction=0)
        self.register_buffer("mean", filled.mean(dim=0))
        self.register_buffer("scale", torch.where(deviation > 0, deviation, torch.ones_like(deviation)))
        left, slope = self._bins(filled, bins)
        self.register_buffer("left", left)
        self.register_buffer("slope", slope)
        self.register_buffer("dates", torch.tensor(dates, dtype=torch.int64))
        self.register_buffer("periods", torch.tensor([DAY, WEEK, YEAR], dtype=torch.float64))
        self.count, self.bins = count, bins
        self.width = count * (bins + 2) + 6 * len(dates)

    @staticmethod
    def _bins(filled: Tensor, bins: int) -> tuple[Tensor, Tensor]:
        """Return left edges and slopes, [N, bins] each; a column of few values has fewer bins, the rest stay 0."""
        left, slope = filled.new_zeros(filled.shape[1], bins), filled.new_zeros(filled.shape[1], bins)
        quantiles = torch.linspace(0, 1, bins + 1, dtype=filled.dtype)
        for column in range(filled.shape[1]):
            ranked = filled[:, column].sort().values
            edges = ranked[(quantiles * (len(ranked) - 1)).round().long()].unique()
            left[column, : len(edges) - 1] = edges[:-1]
            slope[column, : len(edges) - 1] = 1 / edges.diff()
        return left, slope

    def forward(self, numbers: Tensor) -> Tensor:
        missing = torch.isnan(numbers)
        filled = torch.where(missing, self.median, numbers)
        linear = ((filled - self.mean) / self.scale).clamp(-CLIP, CLIP)
        binned = ((filled.unsqueeze(2) - self.left) * self.slope).clamp(0, 1).flatten(1)
        angles = filled[:, self.dates].unsqueeze(2) * (2 * math.pi / self.periods)
        cyclical = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)
        return torch.cat([linear, missing.to(linear.dtype), binned, cyclical], dim=1).float()


class Categories(nn.Module):
    """[rows, C] int64 hashes -> [rows, C * length] float32; missing and unseen values have vectors of their own."""

    def __init__(self, features: list[dict[str, Any]], length: int) -> None:
        super().__init__()
        self.count, self.length = len(features), length
        offset = 0
        for column, feature in enumerate(features):
            known = [category_code(text) for text in feature["categories"]]
            table = torch.tensor([MISSING, *known], dtype=torch.int64).sort().values
            if len(table.unique()) < len(table):
                raise ValueError(f"two categories of column {feature['name']!r} share a hash: rename one of them")
            self.register_buffer(f"table{column}", table)
            self.register_buffer(f"offset{column}", torch.tensor(offset))
            offset += len(table) + 1  # the last one is for unseen values
        self.embedding = nn.Embedding(max(1, offset), length)
        # Values that training never shows keep this vector, the middle of those it does show.
        nn.init.zeros_(self.embedding.weight)
        self.width = self.count * length

    def forward(self, codes: Tensor) -> Tensor:
        vectors = []
        for column in range(self.count):
            table, offset = self.get_buffer(f"table{column}"), self.get_buffer(f"offset{column}")
            wanted = codes[:, column].contiguous()
            index = torch.searchsorted(table, wanted).clamp(max=len(table) - 1)
            index = torch.where(table[index] == wanted, index, torch.full_like(index, len(table)))
            vectors.append(self.embedding(offset + index))
        return torch.cat(vectors, dim=1) if vectors else self.embedding.weight.new_zeros(codes.shape[0], 0)


class Inputs(nn.Module):
    """The preprocessing: numbers and categories as the encoder makes them -> [rows, width] float32."""

    def __init__(self, schema: dict[str, Any], numbers: Tensor, params: Model) -> None:
        """Fit it to the training rows' `numbers`, [rows, N]."""
        super().__init__()
        dates = [index for index, feature in enumerate(number_features(schema)) if feature["dtype"] == "datetime"]
        self.numbers = Numbers(numbers, params.bins, dates)
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

    def __init__(self, schema: dict[str, Any], numbers: Tensor, target: Tensor, params: Model) -> None:
        """Fit the preprocessing to the training rows: `numbers` [rows, N], `target` [rows], a value or class index."""
        super().__init__()
        self.inputs = Inputs(schema, numbers, params)
        self.network = Network(self.inputs, len(schema["target"]["classes"]) or 1, params)
        self.classifies = bool(schema["target"]["classes"])
        self.register_buffer("target_mean", torch.tensor(0.0) if self.classifies else target.float().mean())
        self.register_buffer("target_scale", torch.tensor(1.0) if self.classifies else target.float().std(correction=0))
        self.register_buffer("class_weights", torch.ones(len(schema["target"]["classes"]) or 1))
        self.register_buffer("temperature", torch.tensor(1.0))
        self.decision: dict[str, Any] = {}

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return raw outputs, [rows, ensemble size, outputs]."""
        outputs: Tensor = self.network(self.inputs(numbers, categories))
        return outputs

    def predict(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Return probabilities [rows, classes], or values [rows] in the target's unit."""
        outputs = self(numbers, categories)
        if self.classifies:
            # A loss with weights teaches the classes' probabilities times these: they are taken out again.
            each = torch.log_softmax(outputs - self.class_weights.log(), dim=2)
            return torch.softmax(each.logsumexp(dim=1) / self.temperature, dim=1)
        answer: Tensor = outputs.mean(dim=1).squeeze(1) * self.target_scale + self.target_mean
        return answer


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
