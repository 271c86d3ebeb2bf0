"""Checking rows of a batch at once gives what checking them cell by cell gives: rows, columns, and each error.

The functions of the first part are the plain rules, a value at a time; random and hostile batches are put to both.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gitops.serving.server import checks
from gitops.tabular import columns as typed
from gitops.tabular import request_rows
from gitops.tabular.columns import from_rows, given
from gitops.tabular.request_rows import MAX_ID, MAX_TEXT, RowError, check_rows, fits, optional, refusal

FEATURES = {
    "size": "number",
    "colour": "category",
    "member": "boolean",
    "since": "datetime",
    "weight": "number",
    "plan": "category",
    "until": "datetime",
    "paid": "boolean",
    "height": "number",
}
SCHEMA: dict[str, Any] = {
    "target": {"name": "y", "classes": ["no", "yes"]},
    "missing_markers": ["", "?", "NA"],
    "id": "customer",
    "timestamp": "seen",
    "features": [
        *({"name": name, "dtype": dtype} for name, dtype in FEATURES.items()),
        {"name": "double", "dtype": "number", "derived": ["size"]},
    ],
}

#: Values of each dtype that fit.
USUAL: dict[str, list[Any]] = {
    "number": [0, -0.0, 1.5, 10**20, -(2**70), 5e-324, 1.7976931348623157e308, None],
    "category": ["red", "blue", "", " ? ", "NA", " padded ", "x" * MAX_TEXT, "\ud800", "1", "True", None],
    "boolean": [True, False, None],
    "datetime": ["2026-01-31", " 2026-01-31T12:00:00+01:00 ", "0001-01-01T00:00:00Z", "?", "NA", None],
    "id": ["C-7", " 8 ", 42, -7, 2**70, "?", "", None],
}

#: Others: they fit some dtypes, and most fit none.
STRANGE: list[Any] = [
    *(0, 1, 1.0, True, False, "1", "1.5", "true", " NA ", "", "tomorrow", "9999-12-31T23:59:59-14:00", "x" * 10_001),
    *(math.nan, math.inf, -math.inf, 10**400, -(10**100), 1234567890, [], [1], {}, {"a": 1}, "red\n", "\x00", None),
]


def plain_check_row(index: int, row: Any, schema: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise RowError(index, None, f"{request_rows._show(row)} is not an object with a value for each column")
    dtypes = {feature["name"]: feature["dtype"] for feature in given(schema)}
    others = optional(schema)
    for column in row:
        if column not in dtypes and column not in others:
            derived = any(feature["name"] == column for feature in schema["features"])
            why = "is derived from other columns" if derived else "is not in the schema"
            shown = request_rows._show(column)
            raise RowError(index, str(column)[: request_rows.SHOWN], f"column {shown} {why}: remove it")
    checked = {}
    for column, dtype in (dtypes | others).items():
        if column not in row:
            if column in others:
                continue
            raise RowError(index, column, f"column {column!r} is missing: send null if the value is unknown")
        value = row[column]
        if dtype == "id" and isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_ID:
            value = str(value)
        if isinstance(value, str):
            value = value.strip()
            value = None if value in schema["missing_markers"] else value
        if value is not None and not fits(value, dtype):
            raise RowError(index, column, refusal(column, row[column], dtype))
        checked[column] = value
    return checked


def plain_check(instances: list[Any], problems: list[Any], schema: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    rows, problems = [], problems[:]
    for index, instance in enumerate(instances):
        try:
            rows.append(plain_check_row(index, instance, schema))
        except RowError as error:
            problems.append({"instance": error.index, "column": error.column, "error": str(error)})
            if len(problems) == checks.MAX_ERRORS:
                break
    return ([], problems) if problems else (rows, [])


def plain_from_rows(rows: list[dict[str, Any]], schema: dict[str, Any]) -> dict[str, Any]:
    return {
        feature["name"]: typed.column([row[feature["name"]] for row in rows], feature["dtype"])
        for feature in given(schema)
    }


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Assert that columns are the same, to the bit."""
    assert [*left] == [*right]
    for name, column in left.items():
        if isinstance(column, list):
            assert column == right[name]
        else:
            assert column.dtype == right[name].dtype == torch.float64
            assert column.tolist() == pytest.approx(right[name].tolist(), rel=0, abs=0, nan_ok=True)
            assert torch.equal(column.signbit(), right[name].signbit())


def random_row(chance: random.Random, columns: dict[str, str], strange: float) -> Any:
    row: Any = {
        name: chance.choice(STRANGE if chance.random() < strange else USUAL[dtype]) for name, dtype in columns.items()
    }
    if chance.random() < strange:
        row.pop(chance.choice([*row]))
    if chance.random() < strange:
        row[chance.choice(["double", "shape", "", "\ud800", "customer", "seen"])] = chance.choice(STRANGE)
    return chance.choice(STRANGE) if chance.random() < strange / 4 else row


def random_request(chance: random.Random) -> tuple[list[Any], list[Any]]:
    """Return a request's rows, often without any that is wrong, and the problems found before, most often none."""
    if chance.random() < 0.1:
        return [], [{"instance": None, "column": None, "error": "the body is not valid JSON"}]
    columns = FEATURES | {name: dtype for name, dtype in optional(SCHEMA).items() if chance.random() < 0.5}
    shuffled = chance.sample([*columns], len(columns)) if chance.random() < 0.3 else [*columns]
    strange = chance.choice([0, 0, 0.01, 0.3])
    rows = [
        random_row(chance, {name: columns[name] for name in shuffled}, strange) for _ in range(chance.randint(1, 9))
    ]
    if chance.random() < 0.3:
        rows = [dict(chance.sample([*row.items()], len(row))) if isinstance(row, dict) else row for row in rows]
    return rows, []


@pytest.mark.parametrize("seed", range(20))
def test_a_batch_checked_at_once_is_a_batch_checked_cell_by_cell(seed: int) -> None:
    chance, ways = random.Random(seed), [0, 0]
    for _ in range(30):
        requests = [random_request(chance) for _ in range(chance.randint(1, 4))]
        before = copy.deepcopy(requests)
        checked, columns = checks.check_batch(requests, SCHEMA)
        assert repr(requests) == repr(before), "what was given has changed"
        expected = [plain_check(*request, SCHEMA) for request in requests]
        assert repr(checked) == repr(expected)  # with types and the order of columns, which == does not see
        rows = [row for found, _ in expected for row in found]
        if columns is not None:
            same(columns, plain_from_rows(rows, SCHEMA))
        same(from_rows(rows, SCHEMA), plain_from_rows(rows, SCHEMA))
        ways[columns is None] += 1
    assert all(ways), "of batches that all fit, or of none, this would prove nothing"


@pytest.mark.parametrize("name", FEATURES)
def test_one_strange_value_among_usual_ones(name: str) -> None:
    chance = random.Random(1)
    rows = [random_row(chance, FEATURES, 0) for _ in range(20)]
    for value in STRANGE:
        rows[17][name] = value
        ((checked, problems),) = checks.check_batch([(rows, [])], SCHEMA)[0]
        assert repr((checked, problems)) == repr(plain_check(rows, [], SCHEMA)), repr(value)[:30]


def test_the_first_errors_are_listed_and_good_requests_beside_them_answered() -> None:
    good = dict.fromkeys(FEATURES)
    bad = [good | {"size": "x"}, {}, good | {"shape": 1}, 7] * 40
    requests: list[Any] = [([good], []), (bad, []), ([good, good], [])]
    checked, columns = checks.check_batch(requests, SCHEMA)
    assert columns is None and checked == [plain_check(*request, SCHEMA) for request in requests]
    assert len(checked[1][1]) == checks.MAX_ERRORS


def test_a_cell_of_a_wide_request_costs_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own calls, not the time, which depends on the machine: one for each distinct text, and a few."""
    schema = SCHEMA | {
        "features": [{"name": f"{dtype} {index}", "dtype": dtype} for dtype in USUAL for index in range(50)]
    }
    schema["features"] = [feature for feature in schema["features"] if feature["dtype"] != "id"]
    usual = {"number": 1.5, "category": "red", "boolean": True, "datetime": "2026-01-31"}
    rows = json.loads(json.dumps([{each["name"]: usual[each["dtype"]] for each in schema["features"]}] * 100))
    calls = 0

    def counted(of: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            return of(*arguments)

        return call

    names = {request_rows: ("fits", "_cell", "_cells", "typed", "seconds"), typed: ("seconds", "number", "column")}
    for module, functions in names.items():
        for name in functions:
            monkeypatch.setattr(module, name, counted(getattr(module, name)))
    found = check_rows(rows, schema)
    assert found is not None and found[0] == rows and calls < 20
    assert all(checked is row for checked, row in zip(found[0], rows, strict=True))


def test_no_row_has_empty_columns() -> None:
    same(from_rows([], SCHEMA), plain_from_rows([], SCHEMA))
    assert check_rows([], SCHEMA) is None
