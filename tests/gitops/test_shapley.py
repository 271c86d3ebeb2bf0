"""`?explain=true`: what the handler answers, and that it is right; test_serving.py asks a real server."""

from __future__ import annotations

import itertools
import json
import math
from http import HTTPStatus
from pathlib import Path
from typing import Any

import handling
import pytest
import tiny_model
import torch
from breast_cancer import features
from gitops.serving.server import handler as module
from gitops.serving.server import shapley
from gitops.serving.server.handler import Handler
from gitops.serving.server.shapley import Explainer, NotExplained
from gitops.tabular.columns import Columns, Derived
from handling import answers

PLAN = "customer's plan"
GOOD = {"age": 40, PLAN: "gold"}

SCHEMA: dict[str, Any] = {
    "target": {"name": "price", "classes": []},
    "features": [
        {"name": "a", "dtype": "number", "median": 1.0, "missing": 0.0},
        {"name": "b", "dtype": "boolean", "mean": 0.7, "missing": 0.0},
        {"name": "c", "dtype": "category", "categories": {"x": 0.2, "y": 0.8}, "missing": 0.1},
        {"name": "d", "dtype": "datetime", "min": "1970-01-01T00:00:00+00:00", "max": "1970-01-01T00:01:40+00:00"},
        {"name": "e", "dtype": "number", "median": 7.0, "missing": 0.6},
    ],
}
ROW = {"a": 3.0, "b": False, "c": "x", "d": "1970-01-01T00:00:10", "e": 2.0}


def price(columns: Columns) -> torch.Tensor:
    """Columns that act by themselves, in a pair and three at a time; a missing e costs nothing."""
    a, b, d, e = (torch.as_tensor(columns[name]) for name in "abde")
    c = torch.tensor([text == "x" for text in columns["c"]], dtype=torch.float64)
    return 10 * a + 5 * b + 2 * a * c + a * b * c + 0.1 * d + e.nan_to_num()


def exact(row: dict[str, Any]) -> dict[str, float]:
    """Shapley values by their definition: the mean over all orders of the columns."""
    explainer = Explainer(SCHEMA, price, features.decide)
    usual = {"a": 1.0, "b": True, "c": "y", "d": "1970-01-01T00:00:50", "e": None}
    found, orders = dict.fromkeys(usual, 0.0), [*itertools.permutations(usual)]
    for order in orders:
        now = dict(usual)
        for name in order:
            before = answer(explainer, now)
            now[name] = row[name]
            found[name] += (answer(explainer, now) - before) / len(orders)
    return found


def answer(explainer: Explainer, row: dict[str, Any]) -> float:
    return float(explainer.outputs(shapley.from_rows([row], SCHEMA)))


def test_contributions_are_the_means_over_all_orders_of_the_columns() -> None:
    explainer = Explainer(SCHEMA, price, features.decide)
    (found,) = explainer.explain([ROW])
    assert found["base"] == 10 + 5 + 5
    assert found["contributions"] == pytest.approx(exact(ROW), abs=0.6)  # three at a time are sampled
    pairs = ROW | {"b": True}  # as in the typical row, so that two at a time are left
    assert explainer.explain([pairs])[0]["contributions"] == pytest.approx(exact(pairs))


def test_base_and_contributions_add_up_to_the_answer_the_same_ones_each_time() -> None:
    explainer = Explainer(SCHEMA, price, features.decide)
    rows = [ROW | {"a": float(a), "e": None if a % 2 else a} for a in range(20)]
    found = explainer.explain(rows)
    for row, each in zip(rows, found, strict=True):
        assert each["base"] + sum(each["contributions"].values()) == pytest.approx(answer(explainer, row))
        assert list(each["contributions"]) == ["a", "b", "c", "d", "e"]
    assert Explainer(SCHEMA, price, features.decide).explain(rows[5:6]) == [found[5]]


def test_many_columns_are_explained_by_fewer_orders_and_too_many_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def wide(columns: int) -> Explainer:
        names = [{"name": f"x{index}", "dtype": "number", "median": 0.0} for index in range(columns)]

        def total(columns: Columns) -> torch.Tensor:
            return torch.stack([torch.as_tensor(column) for column in columns.values()]).sum(dim=0)

        return Explainer({"target": {"classes": []}, "features": names}, total, features.decide)

    monkeypatch.setattr(shapley, "MAX_CELLS", 8000)
    assert [len(wide(columns).ranks) for columns in (10, 19, 40, 62, 63)] == [20, 20, 4, 2, 0]
    (found,) = wide(62).explain([{f"x{index}": index for index in range(62)}])
    assert [*found["contributions"].values()] == pytest.approx([*range(62)])
    with pytest.raises(NotExplained, match="of at most 62 columns, and this one has 63") as refused:
        wide(63).check(1)
    assert refused.value.status == HTTPStatus.BAD_REQUEST
    wide(19).check(1)
    with pytest.raises(NotExplained, match="at most 3 instances of 10 columns in a request, and this one has 4: send"):
        wide(10).check(4)


@pytest.fixture
def handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Handler:
    return handling.started(monkeypatch, handling.unpacked(tmp_path), REQUEST_LOG=str(tmp_path / "log"))


def body(*instances: Any) -> bytes:
    return json.dumps({"instances": list(instances)}).encode()


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_explanations_are_answered_where_they_are_asked_for_and_not_logged(handler: Handler, tmp_path: Path) -> None:
    sent = body(GOOD, {"age": -200, PLAN: None})
    (_, plain), (status, explained), (_, bad) = answers(handler, sent, sent, body({}), explain=[1, 2])
    assert status == 200 and "explanations" not in plain and bad["errors"][0]["column"] == "age"
    yes, no = explained.pop("explanations")
    assert explained == plain
    assert yes == {
        "base": pytest.approx(sigmoid(1.3)),
        "contributions": {"age": pytest.approx(sigmoid(1.4) - sigmoid(1.3)), PLAN: 0.0},
    }
    assert [each["label"] for each in plain["predictions"]] == ["yes", "no"]
    assert no["base"] == pytest.approx(1 - sigmoid(1.3))
    assert no["base"] + sum(no["contributions"].values()) == pytest.approx(1 - sigmoid(-2.0))
    handler.log.close()
    lines = [json.loads(line) for path in (tmp_path / "log").rglob("*.jsonl") for line in path.open()]
    assert [len(line) for line in lines[:4]] == [6] * 4 and "contributions" not in json.dumps(lines)


def test_derived_features_follow_the_columns_that_they_are_computed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(features.DERIVED, "months", Derived(("age",), lambda age: age * 12))
    derived = handling.started(monkeypatch, handling.unpacked(tmp_path, tiny_model.DERIVED_SCHEMA))
    ((_, answer),) = answers(derived, body(GOOD), explain=[0])
    (found,) = answer["explanations"]
    assert found["contributions"] == {"age": pytest.approx(sigmoid(5.8) - sigmoid(4.6), abs=1e-6), PLAN: 0.0}


def test_too_large_a_request_is_refused_and_a_batch_explains_no_more_than_one_may(
    handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two columns a row takes 20 orders times 3 rows times 2 columns: 120 cells."""
    for holder in (shapley, module):
        monkeypatch.setattr(holder, "MAX_CELLS", 600)
    found = answers(
        handler, body(*[GOOD] * 6), body(*[GOOD] * 4), body(*[GOOD] * 2), body(GOOD), body(GOOD), explain=range(4)
    )
    assert [status for status, _ in found] == [400, 200, 503, 200, 200]
    assert "at most 5 instances of 2 columns in a request, and this one has 6: send fewer" in found[0][1]["error"]
    assert "send it again" in found[2][1]["error"]
    assert [len(answer.get("explanations", [])) for _, answer in found] == [0, 4, 0, 1, 0]
    counts = handler.metrics.counts
    assert (counts["model_predictions_total", "yes"], counts["model_refused_total", ""]) == (6, 1)
    assert [status for status, _ in answers(handler, body(*[GOOD] * 2), explain=[0])] == [200]


def test_a_model_that_fails_on_the_way_to_a_row_affects_no_other_request(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The row itself has an answer: another plan and its age have none."""
    model = handler.model

    def fails(numbers: torch.Tensor, categories: torch.Tensor) -> Any:
        unlucky = (numbers[:, 0] == 40) & (categories[:, 0] == features.category_code("basic"))
        return torch.where(unlucky.unsqueeze(1), math.nan, model(numbers, categories))

    monkeypatch.setattr(handler, "model", fails)
    found = answers(handler, body(GOOD), body(GOOD), body(GOOD | {"age": 7}), explain=[1, 2])
    assert [status for status, _ in found] == [200, 500, 200]
    assert "failed on the explanation" in found[1][1]["error"] and "gold" not in caplog.text
