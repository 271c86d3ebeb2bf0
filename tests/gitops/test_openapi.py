"""The OpenAPI document says what the handler does: of requests, column by column, of answers, and of errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import handling
import jsonschema
import packing
import pytest
import tiny_model
from gitops.core.artifacts import OPENAPI, V2_MODEL
from gitops.serving import openapi, package
from gitops.serving.server import open_inference
from gitops.serving.server.handler import Handler
from gitops.tabular.request_rows import MAX_TEXT, RowError, check_row
from handling import replies

PLAN = "customer's plan"
VERSION = "3f9a0c1d2e4b"
BINARY = {"predictions": [{"label": "no", "probabilities": {"no": 0.5, "yes": 0.5}}], "threshold": 0.5}
ROW = {"n": 1.5, "b": True, "d": "2026-01-31T12:00:00Z", "c": "gold"}

SCHEMA: dict[str, Any] = tiny_model.SCHEMA | {
    "features": [
        {"name": "n", "dtype": "number"},
        {"name": "b", "dtype": "boolean"},
        {"name": "d", "dtype": "datetime"},
        {"name": "c", "dtype": "category", "categories": {"silver": 1.0}},
        {"name": "derived", "dtype": "number", "derived": ["n"]},
    ],
    "id": "who",
    "timestamp": "when",
}


def fits(value: Any, name: str, document: dict[str, Any]) -> bool:
    """Tell whether a value fits one of the document's schemas."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    checks = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return bool(jsonschema.Draft202012Validator(schema, format_checker=checks).is_valid(value))


def accepted(row: Any) -> bool:
    try:
        check_row(0, row, SCHEMA)
    except RowError:
        return False
    return True


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        {name: ROW[name] for name in reversed(ROW)},
        dict.fromkeys(ROW),
        ROW | {"n": 7, "c": "never seen", "d": "2026-01-31"},
        ROW | {"n": -1e300, "c": "x" * MAX_TEXT},
        ROW | {"who": "order-7", "when": "2026-01-31T12:00:00+02:00"},
        ROW | {"who": 7, "when": None},
        ROW | {"n": "1.5"},
        ROW | {"n": True},
        ROW | {"n": [1]},
        ROW | {"b": 1},
        ROW | {"b": "true"},
        ROW | {"c": 5},
        ROW | {"c": "x" * (MAX_TEXT + 1)},
        ROW | {"d": 5},
        ROW | {"d": False},
        ROW | {"who": 1.5},
        ROW | {"who": True},
        ROW | {"derived": 1.0},
        ROW | {"other": 1.0},
        {name: ROW[name] for name in ("n", "b", "d")},
        {},
        [1.5],
        None,
    ],
    ids=lambda row: json.dumps(row)[:60],
)
def test_a_row_fits_the_document_exactly_if_the_handler_takes_it(row: Any) -> None:
    assert fits(row, "Instance", openapi.document("m", VERSION, SCHEMA, BINARY)) == accepted(row)


def test_a_request_has_the_handlers_bounds() -> None:
    document = openapi.document("m", VERSION, SCHEMA, BINARY)
    requests = [{"instances": [ROW] * rows} for rows in (0, 1, 1000, 1001)]
    assert [fits(each, "PredictRequest", document) for each in requests] == [False, True, True, False]
    assert not fits({"instances": [ROW], "model": "x"}, "PredictRequest", document)


@pytest.fixture
def handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Handler:
    return handling.started(monkeypatch, handling.unpacked(tmp_path))


ROWS = json.dumps({"instances": [{"age": 40, PLAN: "gold"}, {"age": None, PLAN: None}]}).encode()
TENSORS = {"inputs": [{"name": "age", "shape": [1], "datatype": "FP64", "data": [None]}]}
TENSORS["inputs"].append({"name": PLAN, "shape": [1], "datatype": "BYTES", "data": ["gold"]})

#: The tasks: classes, and what the project's features.py answers a row in place of the model that is not there.
TASKS = {
    "binary": (["no", "yes"], None),
    "multiclass": (["a", "b", "a b"], {"label": "a b", "probabilities": {"a": 0.25, "b": 0.25, "a b": 0.5}}),
    "regression": ([], 2.5),
    "whole numbers": ([], 2),
}


@pytest.mark.parametrize("task", TASKS)
def test_answers_of_each_task_are_those_of_the_document(
    handler: Handler, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes, answer = TASKS[task]
    if answer is not None:
        monkeypatch.setattr(handler.features, "answer", lambda outputs, schema: [answer] * len(outputs))
    sent = [(ROWS, {}), (json.dumps(TENSORS | {"id": "7"}).encode(), {"x-protocol": "v2"}), (b"{", {})]
    sent += [(ROWS, {"x-model-version": "none"}), (b"{}", {"x-protocol": "v2"}), (ROWS, {"x-query": "explain=true"})]
    found = replies(handler, *sent)
    assert [status for status, _ in found] == [200, 200, 400, 404, 400, 200]
    document = openapi.document("tiny", handler.version, handler.schema | {"target": {"classes": classes}}, found[0][1])
    names = ["PredictResponse", "InferResponse", "Error", "Error", "Error", "PredictResponse"]
    for (_, reply), name in zip(found, names, strict=True):
        assert fits(reply, name, document), reply
    assert not fits(found[0][1] | {"predictions": ["no"]}, "PredictResponse", document)
    assert not fits({"error": "x", "errors": [{"error": "x"}]}, "Error", document)
    assert fits(TENSORS, "InferRequest", document) and not fits({"instances": []}, "InferRequest", document)


def test_refusals_of_the_proxy_have_the_form_of_an_error() -> None:
    reason = {"instance": None, "column": None, "error": "the body is longer than 9437184 bytes"}
    refused = {"error": reason["error"], "errors": [reason]}
    assert fits(refused, "Error", openapi.document("m", VERSION, SCHEMA, BINARY))


def references(value: Any) -> Iterator[str]:
    for key, each in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        if key == "$ref" and isinstance(each, str):
            yield each
        yield from references(each)


def test_hostile_names_of_columns_are_only_names() -> None:
    names = [
        "$ref",
        'a"\\</script>\n',
        "a/b~c",
        "#/components/schemas/Number",
        "{x}",
        "é\u2028\ud800",
        "properties",
        "",
    ]
    features = [{"name": name, "dtype": "number"} for name in names]
    schema = SCHEMA | {"features": features, "id": "description", "timestamp": None}
    answer = {"predictions": [{"label": "$ref", "probabilities": {"$ref": 0.5, "</script>": 0.5}}]}
    document = json.loads(json.dumps(openapi.document("m", VERSION, schema, answer)))
    assert fits(dict.fromkeys(names, 1.5), "Instance", document)
    assert fits({"label": "$ref", "probabilities": {"$ref": 1, "</script>": 0}}, "Prediction", document)
    for probabilities in ({"$ref": 1}, {"$ref": 1, "another": 0}, {"$ref": 1, "</script>": "0"}):
        assert not fits({"label": "$ref", "probabilities": probabilities}, "Prediction", document)
    for name in names:
        assert not fits(dict.fromkeys(names, 1.5) | {name: "1.5"}, "Instance", document)
    for kind, name in (each.split("/")[2:] for each in references(document)):
        assert name in document["components"][kind]
    assert {*document["paths"]} >= {"/predictions/m", "/v2/models/m/infer", f"/v2/models/m/versions/{VERSION}/infer"}


def test_a_feature_store_has_what_a_request_leaves_out() -> None:
    view = {"entity": "customer", "features": {"n": "number", "c": "category"}}
    document = openapi.document("m", VERSION, SCHEMA, BINARY, view)
    for customer in ("7", 7):
        assert fits({"customer": customer, "b": True, "d": None}, "Instance", document)
    assert fits(ROW, "Instance", document) and not fits({"customer": "7", "b": True}, "Instance", document)


def test_a_wide_table_has_a_small_document() -> None:
    """The proxy answers out of its buffers. Names have 36 characters: 182 and 115 kB."""
    dtypes = ("number", "boolean", "datetime", "category")
    names = [f"a column of the table number {index:07}" for index in range(1500)]
    features = [{"name": name, "dtype": dtypes[index % 4]} for index, name in enumerate(names)]
    schema = SCHEMA | {"features": features}
    document = openapi.document("wide", VERSION, schema, BINARY)
    metadata = open_inference.metadata("wide", VERSION, schema, BINARY["predictions"])
    assert fits(dict.fromkeys(names), "Instance", document)
    for value, most in ((document, 200_000), (metadata, 130_000)):
        assert most / 2 < len(json.dumps(value, separators=(",", ":"))) < most


def test_the_package_has_both_files_of_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packing.evaluated(tmp_path))
    package.main()
    name = next(Path("package").glob("*.mar")).stem
    document, metadata = (json.loads(path.read_text()) for path in (OPENAPI, V2_MODEL))
    request, response = (
        json.loads(Path(f"package/golden_{each}.json").read_text()) for each in ("request", "response")
    )
    assert fits(request, "PredictRequest", document)
    assert fits(response | {"request_id": "r"}, "PredictResponse", document)
    assert (document["info"]["title"], document["info"]["version"]) == (name, package.version())
    assert (metadata["name"], metadata["versions"]) == (name, [package.version()])
    assert fits(metadata, "ModelMetadata", document)
    assert [each["name"] for each in metadata["outputs"]] == ["label", "p_no", "p_yes"]
    assert all(path.read_text().count("\n") == 1 for path in (OPENAPI, V2_MODEL))
