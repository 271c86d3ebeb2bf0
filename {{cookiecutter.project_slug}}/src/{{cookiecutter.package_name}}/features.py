"""Your features: what is computed from the table's columns, and how columns become the model's two input tensors.

Training, serving, batch inference and monitoring all call `encode`, so they cannot differ. The model archive takes this
module along: it may import the standard library, torch, `gitops.tabular.columns` and modules beside it that do no more.
What follows (imputation, scaling, the look-up of a category) lies inside the model's graph, see model.py.
"""

from __future__ import annotations

import hashlib
from array import array
from itertools import chain
from typing import Any

import torch

from gitops.tabular.columns import Column, Columns, Derived, derive

#: Derived features: the name, the columns it is computed from, and a function of these columns. Columns are float64
#: tensors, dates in seconds since 1970, or lists of texts (gitops/tabular/columns.py). Each row is computed by itself.
#: `prepare` adds them to the splits and the schema; requests and tables leave them out.
DERIVED: dict[str, Derived] = {}

#: Code of a missing category. `category_code` never returns it.
MISSING = 0


def number_features(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the features that go into `numbers`, in the tensor's order."""
    return [feature for feature in schema["features"] if feature["dtype"] != "category"]


def category_features(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the features that go into `categories`, in the tensor's order."""
    return [feature for feature in schema["features"] if feature["dtype"] == "category"]


def category_code(text: str) -> int:
    """Return a signed 64-bit hash of `text` (BLAKE2b), never MISSING."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) or 1


def encode(columns: Columns, schema: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `numbers` (float64, [rows, number features], NaN for missing) and `categories` (int64, [rows, category
    features], hashes of texts).

    `columns` holds what a request gives; the derived features are added here. Raises KeyError where one is missing.
    """
    columns = derive(columns, DERIVED, [feature["name"] for feature in schema["features"] if feature.get("derived")])
    numbers: list[Any] = [columns[feature["name"]] for feature in number_features(schema)]
    texts = [columns[feature["name"]] for feature in category_features(schema)]
    rows = len(next(iter(columns.values()), ()))
    empty = torch.empty((rows, 0), dtype=torch.float64)
    return torch.stack(numbers, dim=1) if numbers else empty, _codes(texts, rows)


def _codes(columns: list[Column], rows: int) -> torch.Tensor:
    """Return the codes of columns of texts, [rows, columns]. Each distinct text is hashed once."""
    codes = {text: MISSING if text is None else category_code(text) for text in {*chain.from_iterable(columns)}}
    found = array("q", [codes[text] for text in chain.from_iterable(columns)])
    flat = torch.frombuffer(found, dtype=torch.int64) if found else torch.empty(0, dtype=torch.int64)
    return flat.view(len(columns), rows).T.contiguous()


def encode_target(target: Any, schema: dict[str, Any]) -> torch.Tensor:
    """Return a pandas column of the target as class index (int64, [rows]) or value (float64, [rows])."""
    classes = schema["target"]["classes"]
    if classes:
        target = target.map({name: index for index, name in enumerate(classes)})
    return torch.from_numpy(target.to_numpy("int64" if classes else "float64").copy())


def decide(outputs: Any, schema: dict[str, Any]) -> Any:
    """Return the predicted class of each row as its index (int64, [rows]), or the values themselves.

    `outputs` holds probabilities [rows, classes] or values [rows], as a tensor or an array. Of two classes it is the
    positive one, the last, from the schema's threshold on (train.py chooses it); of more it is the likeliest.
    """
    classes = schema["target"]["classes"]
    if not classes:
        return outputs
    if len(classes) == 2:
        return (outputs[:, -1] >= schema["target"].get("threshold", 0.5)) * 1
    return outputs.argmax(1)


def answer(outputs: torch.Tensor, schema: dict[str, Any]) -> list[Any]:
    """Return the JSON prediction of each row: a number, or the class that `decide` names with the probability of each.

    `outputs` holds probabilities [rows, classes] or values [rows].
    """
    classes = schema["target"]["classes"]
    if not classes:
        values: list[Any] = outputs.tolist()
        return values
    return [
        {"label": classes[index], "probabilities": dict(zip(classes, row, strict=True))}
        for index, row in zip(decide(outputs, schema).tolist(), outputs.tolist(), strict=True)
    ]
