"""Typed columns become the model's tensors, and its outputs answers."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from breast_cancer import features
from gitops.tabular.columns import Columns

SCHEMA: dict[str, Any] = {
    "target": {"name": "y", "classes": ["no", "yes"]},
    "missing_markers": ["", "?"],
    "features": [
        {"name": "size", "dtype": "number"},
        {"name": "colour", "dtype": "category", "categories": {"red": 0.5, "blue": 0.5}},
        {"name": "member", "dtype": "boolean"},
        {"name": "since", "dtype": "datetime"},
    ],
}


def test_columns_become_two_tensors() -> None:
    columns: Columns = {
        "size": torch.tensor([1.5, math.nan], dtype=torch.float64),
        "colour": ["red", None],
        "member": torch.tensor([1.0, 0.0], dtype=torch.float64),
        "since": torch.tensor([0.0, 1.0], dtype=torch.float64),
    }
    numbers, categories = features.encode(columns, SCHEMA)
    expected = torch.tensor([[1.5, 1, 0], [math.nan, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(numbers, expected, rtol=0, atol=0, equal_nan=True)
    assert categories.dtype == torch.int64
    assert categories.tolist() == [[features.category_code("red")], [features.MISSING]]


def test_category_codes_are_stable_and_never_missing() -> None:
    codes = {features.category_code(f"value {number}") for number in range(10_000)}
    assert len(codes) == 10_000
    assert features.MISSING not in codes
    # Models hold these numbers: another hash would make every category of an old model unseen.
    assert features.category_code("red") == 1002358433242564771


def test_answers_are_json() -> None:
    answers = features.answer(torch.tensor([[0.25, 0.75]]), SCHEMA)
    assert answers == [{"label": "yes", "probabilities": {"no": 0.25, "yes": 0.75}}]
    assert json.loads(json.dumps(features.answer(torch.tensor([1.5]), {"target": {"classes": []}}))) == [1.5]
