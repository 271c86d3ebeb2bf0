"""OpenAPI 3.1 of a model's server, made from its schema: what it takes, column by column, and all that it answers.

It says what the server holds a request to, no more: a category that training has not seen is accepted, as is a number
beyond the range seen there, so neither is listed. No value of the table is in it.
"""

from __future__ import annotations

from gitops.serving import openapi_schemas
from gitops.serving.openapi_schemas import Object, ref
from gitops.tabular.columns import Schema

ID_PATTERN = "^[A-Za-z0-9_.-]{1,64}$"

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
            "schemas": openapi_schemas.messages(schema, answer, view) | openapi_schemas.open_inference(),
        },
    }


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
    answered = {"description": "Predictions.", "content": _json(ref("schemas", response))}
    return {
        "post": {
            "operationId": operation,
            "summary": summary,
            "parameters": [ref("parameters", each) for each in (*parameters, "RequestId", "ClientId")],
            "requestBody": {"required": True, "content": _json(ref("schemas", request))},
            "responses": {"200": answered} | {status: ref("responses", f"Error{status}") for status in ERRORS},
        }
    }


def _get(operation: str, summary: str, response: str = "") -> Object:
    answered = {"description": summary, "content": _json(ref("schemas", response) if response else {"type": "object"})}
    refused = {status: ref("responses", f"Error{status}") for status in ("429", "503")}
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
        f"Error{status}": {"description": text, "content": _json(ref("schemas", "Error"))}
        for status, text in ERRORS.items()
    }
    wait = {"schema": {"type": "integer"}, "description": "Seconds to wait, where the server knows."}
    found["Error503"]["headers"] = {"Retry-After": wait}
    return found
