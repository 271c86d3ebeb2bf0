"""OpenAPI 3.1 of a model's server, made from its schema: what it takes, column by column, and all that it answers.

It says what the server holds a request to, no more: a category that training has not seen is accepted, as is a number
beyond the range seen there, so neither is listed. No value of the table is in it. Columns are properties of one object
and share the schemas of their dtypes, since a table may have 1,500 of them.
"""

from __future__ import annotations

from typing import Any

from gitops.serving.server.messages import MAX_INSTANCES
from gitops.serving.server.open_inference import TYPES
from gitops.tabular.columns import Schema, given
from gitops.tabular.request_rows import MAX_TEXT, optional

Object = dict[str, Any]

ID_PATTERN = "^[A-Za-z0-9_.-]{1,64}$"

TEXT = {"type": "string"}

#: What a value of each dtype may be. null is a value that is unknown.
DTYPES: dict[str, Object] = {
    "number": {"type": ["number", "null"], "format": "double", "description": "A finite number."},
    "boolean": {"type": ["boolean", "null"]},
    "datetime": {
        "anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}, {"type": "null"}],
        "description": "ISO 8601; UTC where it names no zone.",
    },
    "category": {"type": ["string", "null"], "maxLength": MAX_TEXT},
    "id": {"anyOf": [{"type": "string", "maxLength": MAX_TEXT}, {"type": "integer"}, {"type": "null"}]},
}

#: What each status but 200 means.
ERRORS = {
    "400": "The request does not fit: `errors` says which instance, which column, and what was expected.",
    "404": "There is no such path, model or version.",
    "405": "The path does not take this method.",
    "408": "The request did not arrive in time.",
    "413": "The body is too long.",
    "414": "The address is too long.",
    "429": "Too many requests.",
    "431": "The headers are too long.",
    "500": "The model failed on this request.",
    "502": "The server did not answer properly.",
    "503": "The server cannot answer now: send the request again.",
    "504": "The server did not answer in time.",
}


def document(name: str, version: str, schema: Schema, answer: Object, view: Object | None = None) -> Object:
    """Return the OpenAPI document of the model `name` in its `version`, which answers as in `answer`.

    `view` is that of the feature store, where there is one: its features may be left out if the entity's id is there.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": name,
            "version": version,
            "description": "Predictions of one model. The version is the first 12 digits of the model file's sha256.",
        },
        "servers": [{"url": "/"}],
        "paths": _paths(name, version),
        "components": {
            "parameters": _parameters(),
            "responses": _responses(),
            "schemas": _messages(schema, answer, view) | _open_inference(),
        },
    }


def _ref(kind: str, name: str) -> Object:
    return {"$ref": f"#/components/{kind}/{name}"}


def _json(schema: Object) -> Object:
    return {"application/json": {"schema": schema}}


def _paths(name: str, version: str) -> Object:
    model = f"/v2/models/{name}"
    infer = ("infer", "InferRequest", "InferResponse", "Predict, by the Open Inference Protocol")
    versioned = ("inferVersion", *infer[1:3], "Predict by this version, else 404; by the Open Inference Protocol")
    return {
        f"/predictions/{name}": _post("predict", "PredictRequest", "PredictResponse", "Predict", "Explain"),
        f"{model}/infer": _post(*infer),
        f"{model}/versions/{version}/infer": _post(*versioned),
        model: _get("modelMetadata", "What the Open Inference Protocol says of the model", "ModelMetadata"),
        f"{model}/ready": _get("modelReady", "Is the model ready to predict?"),
        "/v2": _get("serverMetadata", "What the Open Inference Protocol says of the server", "ServerMetadata"),
        "/v2/health/live": _get("serverLive", "Does the server run?"),
        "/v2/health/ready": _get("serverReady", "Is the server ready to predict?"),
        "/ping": _get("ping", "Does the server run?"),
        "/openapi.json": _get("openapi", "This document"),
    }


def _post(operation: str, request: str, response: str, summary: str, *parameters: str) -> Object:
    answered = {"description": "Predictions.", "content": _json(_ref("schemas", response))}
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "parameters": [_ref("parameters", each) for each in (*parameters, "RequestId", "ClientId")],
            "requestBody": {"required": True, "content": _json(_ref("schemas", request))},
            "responses": {"200": answered} | {status: _ref("responses", f"Error{status}") for status in ERRORS},
        }
    }


def _get(operation: str, summary: str, response: str = "") -> Object:
    answered = {"description": summary, "content": _json(_ref("schemas", response) if response else {"type": "object"})}
    refused = {status: _ref("responses", f"Error{status}") for status in ("429", "503")}
    return {"get": {"operationId": operation, "summary": summary, "responses": {"200": answered} | refused}}


def _parameters() -> Object:
    header = {"in": "header", "schema": {"type": "string", "pattern": ID_PATTERN}}
    return {
        "Explain": {
            "name": "explain",
            "in": "query",
            "schema": {"type": "boolean", "default": False},
            "description": "Say in addition what each column contributes to each prediction.",
        },
        "RequestId": header
        | {
            "name": "X-Request-Id",
            "description": "The request's id in the log, and in the answer; without a valid one the server makes one.",
        },
        "ClientId": header
        | {
            "name": "X-Client-Id",
            "description": "Who asks. A gateway sets it; without one the log has the address of the connection.",
        },
    }


def _responses() -> Object:
    found = {
        f"Error{status}": {"description": text, "content": _json(_ref("schemas", "Error"))}
        for status, text in ERRORS.items()
    }
    wait = {"schema": {"type": "integer"}, "description": "Seconds to wait, where the server knows."}
    found["Error503"]["headers"] = {"Retry-After": wait}
    return found


def _messages(schema: Schema, answer: Object, view: Object | None) -> Object:
    """Return the schemas of a request to /predictions, of its answer, and of each error."""
    rows = {"type": "array", "items": _ref("schemas", "Instance"), "minItems": 1, "maxItems": MAX_INSTANCES}
    parts = {
        "predictions": {"type": "array", "items": _ref("schemas", "Prediction")},
        "model_version": TEXT,
        **({"threshold": {"type": "number"}} if "threshold" in answer else {}),
        "request_id": TEXT,
    }
    explanations = {"explanations": {"type": "array", "items": _ref("schemas", "Explanation")}}
    contributions = {"type": "object", "additionalProperties": {"type": "number"}}
    problem = {"instance": {"type": ["integer", "null"]}, "column": {"type": ["string", "null"]}, "error": TEXT}
    problems = {"type": "array", "items": _ref("schemas", "Problem")}
    return {
        **{_dtype(dtype): each for dtype, each in DTYPES.items()},
        "Instance": instance(schema, view),
        "PredictRequest": _object({"instances": rows}) | {"additionalProperties": False},
        "Prediction": prediction(answer["predictions"][0]),
        "Explanation": _object({"base": {"type": "number"}, "contributions": contributions}),
        "PredictResponse": _object(parts | explanations, [*parts]),
        "Problem": _object(problem),
        "Error": _object({"error": TEXT, "errors": problems, "request_id": TEXT}, ["error", "errors"]),
    }


def instance(schema: Schema, view: Object | None = None) -> Object:
    """Return the schema of an instance: a value for each column, null if it is unknown."""
    dtypes = {feature["name"]: feature["dtype"] for feature in given(schema)}
    others = optional(schema)
    kept = [name for name in dtypes if name not in view["features"]] if view else [*dtypes]
    entity = {view["entity"]: "id"} if view else {}
    columns = {name: _ref("schemas", _dtype(dtype)) for name, dtype in (dtypes | others | entity).items()}
    return _object(columns, kept) | {"additionalProperties": False}


def prediction(example: Any) -> Object:
    """Return the schema of predictions like this one: it is the answer of the project's own features.py."""
    if isinstance(example, dict):
        return _object({name: prediction(value) for name, value in example.items()})
    for kind, name in ((bool, "boolean"), (int | float, "number"), (str, "string")):
        if isinstance(example, kind):
            return {"type": name}
    return {}


def _object(properties: Object, required: list[str] | None = None) -> Object:
    return {"type": "object", "properties": properties, "required": [*properties] if required is None else required}


def _dtype(dtype: str) -> str:
    return dtype.capitalize()


def _open_inference() -> Object:
    """Return the schemas of the Open Inference Protocol, as far as this server goes."""
    named = {"name": TEXT, "datatype": {"type": "string", "enum": [*TYPES]}}
    shape = {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}
    data = {"type": "array", "items": {"type": ["number", "string", "boolean", "null"]}}
    tensor, described = named | {"shape": shape, "data": data}, named | {"shape": shape}
    parameters = {"type": "object"}
    wanted = _object({"name": TEXT, "parameters": parameters}, ["name"])

    def each(name: str) -> Object:
        return {"type": "array", "items": _ref("schemas", name)}

    asked = {"id": TEXT, "parameters": parameters, "inputs": each("InferInput"), "outputs": each("InferWanted")}
    answered = {"model_name": TEXT, "model_version": TEXT, "parameters": parameters, "outputs": each("InferOutput")}
    tensors = {"inputs": each("TensorMetadata"), "outputs": each("TensorMetadata")}
    texts = {"type": "array", "items": TEXT}
    return {
        "InferInput": _object(tensor | {"parameters": parameters}, [*tensor])
        | {"description": "The values of one column: a row each, of shape [rows] or [rows, 1]."},
        "InferWanted": wanted,
        "InferRequest": _object(asked, ["inputs"]),
        "InferOutput": _object(tensor),
        "InferResponse": _object(answered | {"id": TEXT}, [*answered]),
        "TensorMetadata": _object(described),
        "ModelMetadata": _object({"name": TEXT, "versions": texts, "platform": TEXT, **tensors}),
        "ServerMetadata": _object({"name": TEXT, "version": TEXT, "extensions": texts}),
    }
