"""`?explain=true`: what each column contributes to an answer, as Shapley values (docs/system-design.md, Explanations).

An answer is compared with that for a typical row, made of the schema's statistics: the median of a number, the more
frequent category or boolean, missing where more training rows are. No row of the table is in the archive for it. A
column's contribution is by how much the answer changes when the column takes the request's value in place of the
typical one, in the mean over orders in which the columns do so (baseline Shapley values: Sundararajan and Najmi, 2020,
"The Many Shapley Values for Model Explanation"). The orders are random ones, each with its reverse (Štrumbelj and
Kononenko, 2014; Mitchell et al., 2022, "Sampling Permutations for Shapley Value Estimation"), and the same for every
row. In each the changes add up to the whole, so contributions and base do as well. Where columns interact in pairs at
most, an order and its reverse are exact already. Gradients are no way: categories enter the graph as hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import torch

from gitops.tabular.columns import Columns, Row, Schema, from_rows, given, seconds

#: Orders of the columns, fewer for a wide table: pairs of one and its reverse.
ORDERS = 20

#: Values that go through the model for the explanations of one batch of requests, at most: rows times columns.
MAX_CELLS = 5_000_000

#: Rows that go through the model at once, about.
ROWS = 1024

SEED = 7

#: Returns the model's outputs for columns: values [rows] or probabilities [rows, classes].
Outputs = Callable[[Columns], torch.Tensor]


class NotExplained(Exception):
    """A request that is answered by `status` and the reason instead."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        self.status = status
        super().__init__(reason)


class Explainer:
    """Explains the answers of a model whose schema this is."""

    def __init__(self, schema: Schema, outputs: Outputs, decide: Callable[[Any, Schema], Any]) -> None:
        """Draw the orders; `decide` is that of the project's features.py."""
        self.schema, self.outputs, self.decide = schema, outputs, decide
        self.names = [feature["name"] for feature in given(schema)]
        self.typical = {each["name"]: typical(each) for each in given(schema)}
        width, generator = len(self.names), torch.Generator().manual_seed(SEED)
        pairs = min(ORDERS // 2, MAX_CELLS // (2 * width * (width + 1)))
        ranks = [torch.randperm(width, generator=generator) for _ in range(pairs)]
        #: At which step of an order each column takes the request's value, [orders, columns].
        self.ranks = torch.stack([*ranks, *(width - 1 - each for each in ranks)]) if pairs else torch.empty(0, width)

    @property
    def cells(self) -> int:
        """How many values go through the model for one row."""
        return self.ranks.numel() * (len(self.names) + 1)

    def within(self, cells: int, rows: list[Row]) -> tuple[list[dict[str, Any]], int]:
        """Return what `explain` returns, and how many of the `cells` that a batch may take are left.

        Raises NotExplained where that is too much for any batch, or for this one, and what `explain` raises.
        """
        self.check(len(rows))
        if (needed := len(rows) * self.cells) > cells:
            raise NotExplained(HTTPStatus.SERVICE_UNAVAILABLE, "other requests are being explained: send it again")
        return self.explain(rows), cells - needed

    def check(self, rows: int) -> None:
        """Raise NotExplained, with what would be right, for so many rows if no batch could explain them."""
        if not len(self.ranks):
            most = int(((1 + 2 * MAX_CELLS) ** 0.5 - 1) / 2)
            reason = f"explain=true is for models of at most {most} columns, and this one has {len(self.names)}"
            raise NotExplained(HTTPStatus.BAD_REQUEST, f"{reason}: send the request without it")
        if rows * self.cells > MAX_CELLS:
            most = MAX_CELLS // self.cells
            reason = f"explain=true takes at most {most} instances of {len(self.names)} columns in a request"
            raise NotExplained(HTTPStatus.BAD_REQUEST, f"{reason}, and this one has {rows}: send fewer")

    def explain(self, rows: list[Row]) -> list[dict[str, Any]]:
        """Return `base` and `contributions` by column for each row that request_rows has checked.

        For classes both are about the probability of the class that is answered. Raises ArithmeticError where the model
        answers no finite number on the way, and whatever it raises.
        """
        columns = from_rows([self.typical, *rows], self.schema)
        answers = self.outputs(columns)[1:]
        chosen = torch.as_tensor(self.decide(answers, self.schema)) if self.schema["target"]["classes"] else None
        orders, width = self.ranks.shape
        bases, found = torch.zeros(len(rows), dtype=torch.float64), torch.zeros(len(rows), width, dtype=torch.float64)
        which, order = torch.cartesian_prod(torch.arange(len(rows)), torch.arange(orders)).unbind(1)
        size = max(1, ROWS // (width + 1))
        for row, ranks in zip(which.split(size), self.ranks[order].split(size), strict=True):
            values = self._walk(columns, row + 1, ranks)
            if chosen is not None:
                values = values.gather(2, chosen[row].view(-1, 1, 1).expand(-1, width + 1, 1)).squeeze(2)
            bases.index_add_(0, row, values[:, 0])
            found.index_add_(0, row, values.diff(dim=1).gather(1, ranks))
        contributions = (found / orders).tolist()
        return [
            {"base": base, "contributions": dict(zip(self.names, each, strict=True))}
            for base, each in zip((bases / orders).tolist(), contributions, strict=True)
        ]

    def _walk(self, columns: Columns, row: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
        """Return the outputs, [walks, columns + 1] or with classes, on the way from the first row to the rows `row`.

        `row` [walks]; `ranks` [walks, columns]: at which step each column changes.
        """
        steps = torch.arange(len(self.names) + 1)
        changed = ranks.unsqueeze(1) < steps.view(1, -1, 1)
        places = (changed * row.view(-1, 1, 1)).flatten(0, 1)
        mixed: Columns = {}
        for name, place in zip(self.names, places.unbind(1), strict=True):
            values = columns[name]
            mixed[name] = values[place] if isinstance(values, torch.Tensor) else [values[at] for at in place.tolist()]
        outputs = self.outputs(mixed).double()
        return outputs.view(len(row), len(steps), *outputs.shape[1:])


def typical(feature: dict[str, Any]) -> Any:
    """Return the typical value of a feature in the training rows, as a request would give it; None for missing."""
    if feature.get("missing", 0) > 0.5:
        return None
    if feature["dtype"] == "boolean":
        return feature["mean"] >= 0.5
    if feature["dtype"] == "datetime":
        return datetime.fromtimestamp((seconds(feature["min"]) + seconds(feature["max"])) / 2, UTC).isoformat()
    if feature["dtype"] == "category":
        return max(feature["categories"], key=lambda text: feature["categories"][text])
    return feature["median"]
