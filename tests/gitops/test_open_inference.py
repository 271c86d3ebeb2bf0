"""The Open Inference Protocol: its requests get the predictions that the same rows get at /predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import handling
import pytest
import tiny_model
from gitops.serving.server import messages, open_inference
from gitops.serving.server.handler import Handler
from handling import replies

PLAN = "customer's plan"
ROWS = [{"age": 40.5, PLAN: "gold"}, {"age": None, PLAN: None}, {"age": -3, PLAN: "new"}]
V2 = {"x-protocol": "v2"}


@pytest.fixture
def handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Handler:
    schema = tiny_model.SCHEMA | {"id": "customer", "target": tiny_model.SCHEMA["target"] | {"threshold": 0.7}}
    return handling.started(monkeypatch, handling.unpacked(tmp_path, schema), REQUEST_LOG=str(tmp_path / "log"))


def tensor(name: str, data: list[Any], datatype: str = "FP64", shape: Any = None) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


def question(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs)} | more).encode()


AGE = tensor("age", [row["age"] for row in ROWS])
PLANS = tensor(PLAN, [row[PLAN] for row in ROWS], "BYTES")


def test_an_answer_has_the_predictions_that_the_other_form_gets(handler: Handler) -> None:
    plain = json.dumps({"instances": ROWS}).encode()
    (_, expected), (status, answer) = replies(handler, (plain, {}), (question(AGE, PLANS, id="42"), V2))
    assert status == 200
    predictions = expected["predictions"]
    assert answer == {
        "model_name": "tiny",
        "model_version": handler.version,
        "id": "42",
        "parameters": {"request_id": "made-1", "threshold": 0.7},
        "outputs": [
            tensor("label", [each["label"] for each in predictions], "BYTES"),
            tensor("p_no", [each["probabilities"]["no"] for each in predictions]),
            tensor("p_yes", [each["probabilities"]["yes"] for each in predictions]),
        ],
    }


@pytest.mark.parametrize(
    "inputs",
    [
        (PLANS, AGE),
        (AGE | {"shape": [3, 1]}, PLANS | {"parameters": {"content_type": "str"}}),
        (AGE | {"shape": [3, 1], "data": [[value] for value in AGE["data"]]}, PLANS),
        (AGE | {"datatype": "FP32"}, PLANS),
        (AGE, PLANS, tensor("customer", ["a", 7, None], "BYTES") | {"data": ["a", "7", None]}),
        (AGE, PLANS, tensor("customer", [1, 2, 3], "INT64")),
    ],
)
def test_inputs_come_in_any_order_and_form_that_the_protocol_has(handler: Handler, inputs: Any) -> None:
    (_, expected), (status, answer) = replies(handler, (question(AGE, PLANS), V2), (question(*inputs), V2))
    assert status == 200 and answer["outputs"] == expected["outputs"] and "id" not in answer


def test_whole_numbers_go_into_a_number_and_clients_may_write_null_for_nothing(handler: Handler) -> None:
    sent = question(tensor("age", [40, None], "INT32"), tensor(PLAN, ["gold", ""], "BYTES"), id=None, outputs=None)
    ((status, answer),) = replies(handler, (sent, V2))
    assert status == 200 and answer["outputs"][0]["data"] == ["yes", "no"] and "id" not in answer


def test_only_the_outputs_that_are_asked_for_are_answered(handler: Handler) -> None:
    wanted = [{"name": "p_yes", "parameters": {"binary_data": True}}, {"name": "label"}, {"name": "label"}]
    (status, answer), (refused, why) = replies(
        handler,
        (question(AGE, PLANS, outputs=wanted), V2),
        (question(AGE, PLANS, outputs=[{"name": "score"}]), V2),
    )
    assert status == 200 and [each["name"] for each in answer["outputs"]] == ["p_yes", "label"]
    assert (refused, why["error"]) == (400, "there is no output 'score': the model has 'label', 'p_no', 'p_yes'")


#: Bodies that are refused, and a part of what `error` says.
BAD: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "not valid JSON"),
    "more than JSON": (question(AGE, PLANS) + b"\x00\x01", "not valid JSON"),
    "tensors in binary": (
        question(AGE | {"data": None, "parameters": {"binary_data_size": 2}}, PLANS) + b"\x00\x01",
        "tensors in binary form are not supported",
    ),
    "a list": (b"[]", "must be an object of the Open Inference Protocol"),
    "the other form": (json.dumps({"instances": ROWS}).encode(), '"inputs" must be a list'),
    "no input": (question(), '"inputs" must be a list with an input for each column'),
    "an input that is none": (question(AGE, [1]), 'each of "inputs" must be an object'),  # type: ignore[arg-type]
    "an id that is a number": (question(AGE, PLANS, id=42), '"id" must be a text'),
    "outputs that are names": (question(AGE, PLANS, outputs=["label"]), '"outputs" must be a list of objects'),
    "an input twice": (question(AGE, PLANS, AGE), "there are two inputs 'age'"),
    "another datatype": (question(AGE | {"datatype": "BYTES"}, PLANS), "of input 'age' is 'BYTES': FP64 or FP32"),
    "no datatype": (question(AGE | {"datatype": None}, PLANS), "of input 'age' is no text"),
    "another shape": (question(AGE | {"shape": [4]}, PLANS), "has 3 values: its shape must be [3] or [3, 1]"),
    "no shape": (question(AGE | {"shape": None}, PLANS), "its shape must be [3] or [3, 1]"),
    "a row": (question(AGE | {"shape": [1, 3]}, PLANS), "its shape must be [3] or [3, 1]"),
    "no data": (question(AGE | {"data": None}, PLANS), "the data of input 'age' must be a list"),
    "a value of another type": (question(AGE | {"data": [1, "2", 3]}, PLANS), "'age' has a value in row 1 that is no"),
    "a fraction": (question(tensor("age", [1, 2.5, 3], "INT64"), PLANS), "a value in row 1 that is no INT64"),
    "true": (question(AGE | {"data": [1, 2, True]}, PLANS), "in row 2 that is no FP64: send null"),
    "fewer rows": (question(tensor("age", [1]), PLANS), f"as many rows; 'age' 1 and {PLAN!r} 3"),
    "no rows": (question(tensor("age", []), tensor(PLAN, [], "BYTES")), "1 to 1000 rows, and this one has 0"),
    "many rows": (question(tensor("age", [1] * 1001), tensor(PLAN, ["x"] * 1001, "BYTES")), "this one has 1001"),
    "a column too few": (question(AGE), f"instance 0: column {PLAN!r} is missing"),
    "a column too many": (question(AGE, PLANS, tensor("x", [1, 2, 3])), "instance 0: column 'x' is not in the schema"),
    "NaN": (question(AGE | {"data": [1, float("nan"), 3]}, PLANS), "instance 1: column 'age' is nan: a finite number"),
    "a megabyte of name": (question(tensor("x" * 2**20, [1], "y" * 2**20)), "is expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_request_says_in_error_what_was_expected(handler: Handler, case: str) -> None:
    sent, expected = BAD[case]
    (status, answer), (good, _) = replies(handler, (sent, V2), (question(AGE, PLANS), V2))
    assert (status, good) == (400, 200)
    assert expected in answer["error"] and len(json.dumps(answer)) < 20_000
    assert {*answer} == {"error", "errors", "request_id"}


def test_explanations_are_asked_for_at_predictions(handler: Handler) -> None:
    ((status, answer),) = replies(handler, (question(AGE, PLANS), V2 | {"x-query": "explain=true"}))
    assert status == 400 and answer["error"].endswith("ask /predictions/tiny?explain=true")


def test_log_and_counts_are_those_of_the_other_form(handler: Handler, tmp_path: Path) -> None:
    plain = json.dumps({"instances": ROWS}).encode()
    for sent, headers in ((plain, {}), (question(AGE, PLANS, id="42"), V2)):
        replies(handler, (sent, headers | {"X-Request-Id": "r"}), (b"{", headers))
    handler.log.close()
    lines = [json.loads(line) for path in (tmp_path / "log").rglob("*.jsonl") for line in path.open()]
    first, second = ([line | {"time": ""} for line in half] for half in (lines[:4], lines[4:]))
    assert first == second and [line["inputs"] for line in first[:3]] == ROWS
    counts = handler.metrics.counts
    assert counts["model_predictions_total", "yes"] + counts["model_predictions_total", "no"] == 2 * len(ROWS)
    assert counts["model_refused_total", ""] == 2


def test_an_answer_that_torchserve_would_drop_is_refused(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_ANSWER", 300)
    ((status, answer),) = replies(handler, (question(AGE, PLANS), V2))
    assert status == 400 and "send fewer instances" in answer["error"]


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ([1.5, -2], [tensor("prediction", [1.5, -2])]),
        (
            [{"label": "p", "probabilities": {"label": 0.25, "p": 0.75}, "low": 0.5, "sure": True}],
            [
                tensor("label", ["p"], "BYTES"),
                tensor("low", [0.5]),
                tensor("sure", [True], "BOOL"),
                tensor("p_label", [0.25]),
                tensor("p_p", [0.75]),
            ],
        ),
    ],
)
def test_outputs_are_the_parts_of_the_answers_of_any_task(predictions: list[Any], expected: Any) -> None:
    assert open_inference.encode(predictions) == expected


def test_metadata_name_what_a_request_has_and_what_the_answer_has(handler: Handler) -> None:
    found = open_inference.metadata("tiny", handler.version, handler.schema, [{"label": "no", "probabilities": {}}])
    assert found == {
        "name": "tiny",
        "versions": [handler.version],
        "platform": "pytorch_torchexport",
        "inputs": [
            {"name": "age", "datatype": "FP64", "shape": [-1]},
            {"name": PLAN, "datatype": "BYTES", "shape": [-1]},
            {"name": "customer", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
    }
