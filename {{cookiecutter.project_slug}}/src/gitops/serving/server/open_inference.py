"""The Open Inference Protocol (v2): its request as instances, and their predictions as its answer.

One input for each column, of shape [rows] or [rows, 1]; a value that is unknown is null. One output for each part of a
prediction: `label` and `p_<class>` of classes, as in the tables of `make batch`, else `prediction`. The specification:
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gitops.serving.server import messages
from gitops.serving.server.messages import MAX_INSTANCES, Problem
from gitops.tabular.columns import Schema, given
from gitops.tabular.request_rows import optional

FLOATS = ("FP64", "FP32", "FP16")
INTEGERS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")

#: The types of the JSON values of each datatype.
TYPES: dict[str, frozenset[type]] = {
    **dict.fromkeys(FLOATS, frozenset([int, float, type(None)])),
    **dict.fromkeys(INTEGERS, frozenset([int, type(None)])),
    "BOOL": frozenset([bool, type(None)]),
    "BYTES": frozenset([str, type(None)]),
}

#: The datatypes that a column of each dtype takes; the model's metadata name the first.
TAKES = {
    "number": FLOATS + INTEGERS,
    "boolean": ("BOOL",),
    "datetime": ("BYTES",),
    "category": ("BYTES",),
    "id": ("BYTES", *INTEGERS),
}

#: Why an extension of the protocol that clients use by default is refused.
BINARY = "tensors in binary form are not supported: send them as JSON (tritonclient: binary_data=False)"

#: Characters of a name in an error.
SHOWN = 60


class Refused(ValueError):
    """A request that is not one of the protocol, or not one for this model; the text is for the client."""


@dataclass(frozen=True)
class Request:
    """A request's `instances`, or the `problems` with it; its `id`, and the names of the `outputs` that it wants."""

    instances: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    id: str | None = None
    outputs: list[str] | None = None

    def answer(self, name: str, reply: dict[str, Any]) -> dict[str, Any]:
        """Return what messages of the other form have as `reply`, predictions and all, for the model `name`.

        Raises Refused where the request wants an output that there is not.
        """
        outputs = {each["name"]: each for each in encode(reply["predictions"])}
        for wanted in self.outputs or []:
            if wanted not in outputs:
                raise Refused(f"there is no output {wanted[:SHOWN]!r}: the model has {', '.join(map(repr, outputs))}")
        own = {} if self.id is None else {"id": self.id}
        return {
            "model_name": name,
            "model_version": reply["model_version"],
            **own,
            "parameters": {key: reply[key] for key in ("request_id", "threshold") if key in reply},
            "outputs": [outputs[name] for name in (outputs if self.outputs is None else self.outputs)],
        }


def read(body: bytes | None, schema: Schema) -> Request:
    """Return what a body asks for; nothing is raised. Values are checked against the schema later, with all others."""
    try:
        request = messages.parse(body)
        if not isinstance(request, dict):
            raise Refused("the body must be an object of the Open Inference Protocol")
        if not isinstance(request.get("id"), str | None):
            raise Refused('"id" must be a text')
        return Request(_instances(request.get("inputs"), schema), [], request.get("id"), _outputs(request))
    except ValueError as error:
        binary = b'"binary_data_size"' in (body or b"")
        return Request(problems=messages.problem(BINARY if binary else str(error)))


def _outputs(request: dict[str, Any]) -> list[str] | None:
    wanted = request.get("outputs")
    if wanted in (None, []):
        return None
    if not isinstance(wanted, list) or not all(
        isinstance(each, dict) and isinstance(each.get("name"), str) for each in wanted
    ):
        raise Refused('"outputs" must be a list of objects with a "name"')
    return list(dict.fromkeys(each["name"] for each in wanted))


def _instances(inputs: Any, schema: Schema) -> list[dict[str, Any]]:
    if not isinstance(inputs, list) or not inputs:
        raise Refused('"inputs" must be a list with an input for each column')
    dtypes = {feature["name"]: feature["dtype"] for feature in given(schema)} | optional(schema)
    columns: dict[str, list[Any]] = {}
    for each in inputs:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise Refused('each of "inputs" must be an object with "name", "shape", "datatype" and "data"')
        name = each["name"]
        if name in columns:
            raise Refused(f"there are two inputs {name[:SHOWN]!r}")
        columns[name] = _values(f"input {name[:SHOWN]!r}", each, dtypes.get(name))
    lengths = {len(values): name for name, values in columns.items()}
    if len(lengths) > 1:
        shown = " and ".join(f"{name[:SHOWN]!r} {length}" for length, name in [*lengths.items()][:2])
        raise Refused(f"all inputs must have as many rows; {shown}")
    if not 1 <= len(values := next(iter(columns.values()))) <= MAX_INSTANCES:
        raise Refused(f"a request has 1 to {MAX_INSTANCES} rows, and this one has {len(values)}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(what: str, tensor: dict[str, Any], dtype: str | None) -> list[Any]:
    """Return an input's values; `dtype` is that of its column, None if there is no such column, which is told later."""
    takes = TAKES[dtype] if dtype else (*TYPES,)
    datatype, data, shape = tensor.get("datatype"), tensor.get("data"), tensor.get("shape")
    if not isinstance(datatype, str) or datatype not in takes:
        shown = f"{datatype[:SHOWN]!r}" if isinstance(datatype, str) else "no text"
        raise Refused(f"the datatype of {what} is {shown}: {' or '.join(takes)} is expected")
    if not isinstance(data, list):
        raise Refused(f"the data of {what} must be a list (the binary form of tensors is not supported)")
    if all(isinstance(value, list) and len(value) == 1 for value in data):
        data = [value[0] for value in data]
    if shape not in ([len(data)], [len(data), 1]) or any(isinstance(size, bool) for size in shape):
        raise Refused(f"{what} has {len(data)} values: its shape must be [{len(data)}] or [{len(data)}, 1]")
    if not {*map(type, data)} <= TYPES[datatype]:
        index = next(index for index, value in enumerate(data) if type(value) not in TYPES[datatype])
        raise Refused(f"{what} has a value in row {index} that is no {datatype}: send null if it is unknown")
    return data


def encode(predictions: list[Any]) -> list[dict[str, Any]]:
    """Return the outputs of rows' predictions, which all have the same parts."""
    rows = [_parts(prediction) for prediction in predictions]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return [
        {"name": name, "datatype": _datatype(values), "shape": [len(values)], "data": values}
        for name, values in columns.items()
    ]


def _parts(prediction: Any) -> dict[str, Any]:
    if not isinstance(prediction, dict):
        return {"prediction": prediction}
    own = {name: value for name, value in prediction.items() if name != "probabilities"}
    return own | {f"p_{name}": value for name, value in prediction.get("probabilities", {}).items()}


def _datatype(values: list[Any]) -> str:
    types = {*map(type, values)}
    return next((name for name in ("BOOL", "BYTES") if types <= TYPES[name] and types != {type(None)}), "FP64")


def metadata(name: str, version: str, schema: Schema, predictions: list[Any]) -> dict[str, Any]:
    """Return what the protocol says of a model; the outputs are those of `predictions`."""
    dtypes = {feature["name"]: feature["dtype"] for feature in given(schema)} | optional(schema)
    inputs = [{"name": name, "datatype": TAKES[dtype][0], "shape": [-1]} for name, dtype in dtypes.items()]
    outputs = [{"name": each["name"], "datatype": each["datatype"], "shape": [-1]} for each in encode(predictions)]
    return {
        "name": name,
        "versions": [version],
        "platform": "pytorch_torchexport",
        "inputs": inputs,
        "outputs": outputs,
    }
