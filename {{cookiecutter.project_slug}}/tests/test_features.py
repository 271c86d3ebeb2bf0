"""A request and a row of a table become the same tensors, and outputs become answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from conftest import prepared
from project import features

from gitops.serving.package import instances
from gitops.tabular import arrow
from gitops.tabular.columns import from_rows
from gitops.tabular.request_rows import check_row


def test_a_table_and_requests_agree() -> None:
    splits, schema = prepared("binary")
    rows = [check_row(0, row, schema) for row in instances(splits["test"], schema)]
    of_rows = features.encode(from_rows(rows, schema), schema)
    of_table = features.encode(arrow.from_frame(splits["test"], schema), schema)
    for left, right in zip(of_rows, of_table, strict=True):
        assert len(left) == len(splits["test"])
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


def test_no_row_has_no_rows() -> None:
    _, schema = prepared("binary")
    assert [len(tensor) for tensor in features.encode(from_rows([], schema), schema)] == [0, 0]


@pytest.mark.parametrize("classes", [["no", "yes"], []])
def test_answers_are_json(classes: list[str]) -> None:
    schema: dict[str, Any] = {"target": {"classes": classes}}
    outputs = torch.tensor([[0.25, 0.75]]) if classes else torch.tensor([1.5])
    (answer,) = json.loads(json.dumps(features.answer(outputs, schema)))
    assert answer == ({"label": "yes", "probabilities": {"no": 0.25, "yes": 0.75}} if classes else 1.5)


@pytest.mark.parametrize(("threshold", "label"), [(0.25, "yes"), (0.26, "no"), (None, "no")])
def test_the_positive_class_is_answered_from_the_threshold_on(threshold: float | None, label: str) -> None:
    target = {"classes": ["no", "yes"]} | ({"threshold": threshold} if threshold else {})
    (answer,) = features.answer(torch.tensor([[0.75, 0.25]]), {"target": target})
    assert answer == {"label": label, "probabilities": {"no": 0.75, "yes": 0.25}}


@pytest.mark.parametrize("of", [torch.tensor, np.array])
def test_of_more_classes_the_likeliest_is_answered(of: Any) -> None:
    outputs = of([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])
    assert features.decide(outputs, {"target": {"classes": ["a", "b", "c"]}}).tolist() == [1, 0]


def test_category_codes_stay_what_they_are() -> None:
    """Models hold these numbers: with another hash, each category of an older model would be unseen."""
    codes = {features.category_code(f"value {number}") for number in range(1000)}
    assert len(codes) == 1000 and features.MISSING not in codes
    assert features.category_code("red") == 1002358433242564771
