"""A row and a frame become the same tensors, and a bad row is refused with its column."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from breast_cancer import features

SCHEMA: dict[str, Any] = {
    "target": {"name": "y", "classes": ["no", "yes"]},
    "missing_markers": ["", "?"],
    "features": [
        {"name": "size", "kind": "number"},
        {"name": "colour", "kind": "category", "categories": {"red": 0.5, "blue": 0.5}},
        {"name": "member", "kind": "boolean"},
        {"name": "since", "kind": "datetime"},
    ],
}
ROW: dict[str, Any] = {"size": 1.5, "colour": "red", "member": True, "since": "2026-01-31T12:00:00Z"}


def test_rows_and_frame_agree() -> None:
    rows = [ROW, {"size": None, "colour": " blue ", "member": None, "since": "2026-01-31"}, dict.fromkeys(ROW)]
    frame = pd.DataFrame(
        {
            "size": [1.5, np.nan, np.nan],
            "colour": ["red", "blue", None],
            "member": pd.array([True, None, None], dtype="boolean"),
            "since": pd.to_datetime(["2026-01-31T12:00:00Z", "2026-01-31T00:00:00Z", None], utc=True),
        }
    )
    by_row = features.encode_rows([features.check_row(0, row, SCHEMA) for row in rows], SCHEMA)
    by_column = features.encode_frame(frame, SCHEMA)
    for left, right in zip(by_row, by_column, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)
    assert by_row[0].dtype == torch.float64
    assert by_row[0].shape == (3, 3)
    assert by_row[1].tolist()[2] == [features.MISSING]


def test_markers_and_padding_mean_what_they_meant_in_training() -> None:
    checked = features.check_row(0, ROW | {"colour": " ? ", "since": ""}, SCHEMA)
    assert checked["colour"] is None
    assert checked["since"] is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("size", "1.5"),
        ("size", True),
        ("size", math.nan),
        ("size", math.inf),
        ("size", 10**400),
        ("size", [1]),
        ("colour", 3),
        ("colour", "x" * 10_001),
        ("colour", {"a": 1}),
        ("member", 1),
        ("member", "yes"),
        ("since", 1234567890),
        ("since", "tomorrow"),
    ],
)
def test_a_wrong_value_is_refused_with_its_column(column: str, value: Any) -> None:
    with pytest.raises(features.RowError, match=f"^instance 7: column '{column}' is .* is expected$") as error:
        features.check_row(7, ROW | {column: value}, SCHEMA)
    assert (error.value.index, error.value.column) == (7, column)
    assert len(str(error.value)) < 300


def test_missing_and_unknown_columns_are_refused() -> None:
    with pytest.raises(features.RowError, match="column 'member' is missing: send null"):
        features.check_row(0, {name: value for name, value in ROW.items() if name != "member"}, SCHEMA)
    with pytest.raises(features.RowError, match="'shape' is not in the schema"):
        features.check_row(0, ROW | {"shape": 1}, SCHEMA)
    with pytest.raises(features.RowError, match="instance 0: a nested value is not an object"):
        features.check_row(0, [1, 2], SCHEMA)


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
