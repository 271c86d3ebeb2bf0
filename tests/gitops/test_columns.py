"""The rules of a request: which row fits, which is refused and why, and the typed columns of those that fit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gitops.tabular.columns import Derived, derive, from_rows, given, seconds
from gitops.tabular.request_rows import RowError, check_row

SCHEMA: dict[str, Any] = {
    "target": {"name": "y", "classes": ["no", "yes"]},
    "missing_markers": ["", "?"],
    "features": [
        {"name": "size", "dtype": "number"},
        {"name": "colour", "dtype": "category", "categories": {"red": 0.5, "blue": 0.5}},
        {"name": "member", "dtype": "boolean"},
        {"name": "since", "dtype": "datetime"},
        {"name": "double", "dtype": "number", "derived": ["size"]},
    ],
}
ROW: dict[str, Any] = {"size": 1.5, "colour": "red", "member": True, "since": "2026-01-31T12:00:00Z"}


def test_rows_become_typed_columns() -> None:
    rows = [ROW, {"size": 2, "colour": " blue ", "member": False, "since": "2026-01-31"}, dict.fromkeys(ROW)]
    columns = from_rows([check_row(index, row, SCHEMA) for index, row in enumerate(rows)], SCHEMA)
    assert list(columns) == [feature["name"] for feature in given(SCHEMA)] == list(ROW)
    assert columns["colour"] == ["red", "blue", None]
    noon, midnight = seconds("2026-01-31T12:00:00Z"), seconds("2026-01-31")
    assert noon - midnight == 12 * 3600
    for name, expected in (
        ("size", [1.5, 2, math.nan]),
        ("member", [1, 0, math.nan]),
        ("since", [noon, midnight, math.nan]),
    ):
        torch.testing.assert_close(
            columns[name], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0, equal_nan=True
        )


def test_markers_and_padding_mean_what_they_mean_in_training() -> None:
    checked = check_row(0, ROW | {"colour": " ? ", "since": ""}, SCHEMA)
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
    with pytest.raises(RowError, match=f"^instance 7: column '{column}' is .* is expected$") as error:
        check_row(7, ROW | {column: value}, SCHEMA)
    assert (error.value.index, error.value.column) == (7, column)
    assert len(str(error.value)) < 300


def test_missing_unknown_and_derived_columns_are_refused() -> None:
    with pytest.raises(RowError, match="column 'member' is missing: send null"):
        check_row(0, {name: value for name, value in ROW.items() if name != "member"}, SCHEMA)
    with pytest.raises(RowError, match="column 'shape' is not in the schema: remove it"):
        check_row(0, ROW | {"shape": 1}, SCHEMA)
    with pytest.raises(RowError, match="column 'double' is derived from other columns: remove it"):
        check_row(0, ROW | {"double": 3.0}, SCHEMA)
    with pytest.raises(RowError, match="instance 0: a nested value is not an object"):
        check_row(0, [1, 2], SCHEMA)


def test_id_and_timestamp_are_taken_where_the_schema_names_them() -> None:
    """They are no features: the model does not see them, and a request may leave them out."""
    schema = SCHEMA | {"id": "customer", "timestamp": "seen"}
    assert check_row(0, ROW, schema) == check_row(0, ROW, SCHEMA)
    for given_id, text in ((" C-7 ", "C-7"), (42, "42"), (2**70, str(2**70)), ("?", None), (None, None)):
        assert check_row(0, ROW | {"customer": given_id}, schema)["customer"] == text
    both = check_row(0, ROW | {"seen": " 2026-01-31T12:00:00+01:00 ", "customer": "7"}, schema)
    assert (both["seen"], both["customer"]) == ("2026-01-31T12:00:00+01:00", "7")
    assert list(from_rows([both], schema)) == list(ROW)
    for column, value in (
        ("customer", 1.5),
        ("customer", True),
        ("customer", [7]),
        ("customer", 10**100),
        ("customer", "x" * 10_001),
        ("seen", "yesterday"),
        ("seen", 1234567890),
    ):
        with pytest.raises(RowError, match=f"column '{column}' is .* is expected$") as error:
            check_row(0, ROW | {column: value}, schema)
        assert error.value.column == column
    with pytest.raises(RowError, match="column 'customer' is not in the schema"):
        check_row(0, ROW | {"customer": "7"}, SCHEMA)


def test_derived_numbers_are_finite_or_missing() -> None:
    columns = {"a": torch.tensor([1.0, 1.0, -1.0, 0.0, math.nan]), "b": torch.tensor([2.0, 0.0, 0.0, 0.0, 1.0])}
    found = derive(columns, {"ratio": Derived(("a", "b"), torch.divide)}, ["ratio"])
    expected = torch.tensor([0.5, *[math.nan] * 4], dtype=torch.float64)
    torch.testing.assert_close(found["ratio"], expected, rtol=0, atol=0, equal_nan=True)
    assert "ratio" not in columns
    assert derive(columns, {"less": Derived(("a", "b"), torch.lt)}, ["less"])["less"].tolist()[:2] == [1.0, 0.0]
