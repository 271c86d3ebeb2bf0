"""A model of two columns that needs no training, for the tests of packing and serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SCHEMA: dict[str, Any] = {
    "version": 1,
    "task": "binary",
    "target": {"name": "left", "classes": ["no", "yes"]},
    "features": [
        {"name": "age", "dtype": "number", "median": 30.0},
        {"name": "customer's plan", "dtype": "category", "categories": {"basic": 0.6, "gold": 0.4}},
    ],
    "missing_markers": ["", "NA"],
}

#: The same with a derived feature, the last number: the model then takes it in place of the age.
DERIVED_SCHEMA = SCHEMA | {
    "features": [*SCHEMA["features"], {"name": "months", "dtype": "number", "derived": ["age"]}],
}

#: The age for which the model answers NaN.
UNLUCKY = 666.0


class Tiny(torch.nn.Module):
    """Probability of "yes": it grows with the last number, and with a plan that is known."""

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor) -> torch.Tensor:
        age, last = (torch.nan_to_num(numbers[:, index]).float() for index in (0, -1))
        fails = (age - UNLUCKY) / (age - UNLUCKY)
        yes = torch.sigmoid((last / 100 + (categories[:, 0] != 0).float()) * fails)
        return torch.stack([1 - yes, yes], dim=1)


def save(path: Path, schema: dict[str, Any] = SCHEMA) -> Path:
    """Write the exported model to `path`, and return it."""
    numbers = sum(feature["dtype"] != "category" for feature in schema["features"])
    example = (torch.zeros(2, numbers, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.int64))
    rows = {0: torch.export.Dim.DYNAMIC}
    torch.export.save(torch.export.export(Tiny(), example, dynamic_shapes=(rows, rows)), path)
    return path
