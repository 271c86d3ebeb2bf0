"""The schemas of the OpenAPI document (openapi.py): rows and answers of one model, errors, the Open Inference Protocol.

Columns are properties of one object and share the schemas of their dtypes, since a table may have 1,500 of them.
"""

from __future__ import annotations

from typing import Any

from gitops.serving.server.messages import MAX_INSTANCES
from gitops.serving.server.open_inference import TYPES
from gitops.tabular.columns import Schema, given
from gitops.tabular.request_rows import MAX_TEXT, optional

Object = dict[str, Any]

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


def ref(kind: str, name: str) -> Object:
    """Return a reference to a component of a kind, such as schemas."""
    return {"$ref": f"#/components/{kind}/{name}"}


def messages(schema: Schema, answer: Object, view: Object | None) -> Object:
    """Return the schemas of a request to /predictions, of its answer, and of each error."""
    rows = {"type": "array", "items": ref("schemas", "Instance"), "minItems": 1, "maxItems": MAX_INSTANCES}
    parts = {
        "predictions": {"type": "array", "items": ref("schemas", "Prediction")},
        "model_version": TEXT,
        **({"threshold": {"type": "number"}} if "threshold" in answer else {}),
        "request_id": TEXT,
    }
    explanations = {"explanations": {"type": "array", "items": ref("schemas", "Explanation")}}
    contributions = {"type": "object", "additionalProperties": {"type": "number"}}
    problem = {"instance": {"type": ["integer", "null"]}, "column": {"type": ["string", "null"]}, "error": TEXT}
    problems = {"type": "array", "items": ref("schemas", "Problem")}
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
    columns = {name: ref("schemas", _dtype(dtype)) for name, dtype in (dtypes | others | entity).items()}
    return _object(columns, kept) | {"additionalProperties": False}


def prediction(example: Any) -> Object:
    """Return the schema of predictions like this one: it is the answer of the project's own features.py."""
    if isinstance(example, dict):
        return _object({name: _part(value) for name, value in example.items()})
    return _part(example)


def _part(example: Any) -> Object:
    """Return the schema of a part of a prediction.

    Of probabilities the classes are keys of a map: as properties, `<=50K` and `>50K` would be one name in a client.
    """
    if isinstance(example, dict):
        keys = {"propertyNames": {"enum": [*example]}, "minProperties": len(example)}
        return {"type": "object", "additionalProperties": {"type": "number"}, **keys}
    for kind, name in ((bool, "boolean"), (int | float, "number"), (str, "string")):
        if isinstance(example, kind):
            return {"type": name}
    return {}


def _object(properties: Object, required: list[str] | None = None) -> Object:
    return {"type": "object", "properties": properties, "required": [*properties] if required is None else required}


def _dtype(dtype: str) -> str:
    return dtype.capitalize()


def open_inference() -> Object:
    """Return the schemas of the Open Inference Protocol, as far as this server goes."""
    named = {"name": TEXT, "datatype": {"type": "string", "enum": [*TYPES]}}
    shape = {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}
    data = {"type": "array", "items": {"type": ["number", "string", "boolean", "null"]}}
    tensor, described = named | {"shape": shape, "data": data}, named | {"shape": shape}
    parameters = {"type": "object"}
    wanted = _object({"name": TEXT, "parameters": parameters}, ["name"])

    def each(name: str) -> Object:
        return {"type": "array", "items": ref("schemas", name)}

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
