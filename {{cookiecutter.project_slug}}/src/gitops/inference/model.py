"""The model of `make batch`: out of a model archive, as in serving, and only if it is the expected one."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gitops import owner
from gitops.core.artifacts import MODEL, ProjectError
from gitops.serving.server import probe
from gitops.tabular.arrow import Array
from gitops.tabular.columns import Columns, from_rows
from gitops.tabular.request_rows import check_row

#: Rows that go through the model at once; more do not fit into a processor's cache.
BATCH_SIZE = 1024


@dataclass(frozen=True)
class Model:
    """The exported graph, the schema of its rows, and the version in its answers."""

    program: torch.nn.Module
    schema: dict[str, Any]
    version: str

    @property
    def fields(self) -> list[pa.Field]:
        """The columns of a prediction, as in evaluation/predictions.parquet, and `model_version`."""
        classes = self.schema["target"]["classes"]
        label = pa.field("prediction", pa.string() if classes else pa.float64())
        scores = [pa.field(f"p_{name}", pa.float64()) for name in classes]
        return [label, *scores, pa.field("model_version", pa.string())]

    def predict(self, columns: Columns) -> Array:
        """Return the outputs for typed columns in float64: probabilities [rows, classes] or values [rows]."""
        if not any(len(column) for column in columns.values()):  # derived features need not handle zero rows
            return np.empty((0, len(classes)) if (classes := self.schema["target"]["classes"]) else 0)
        inputs = owner.features().encode(columns, self.schema)
        with torch.inference_mode():
            batches = zip(*(tensor.split(BATCH_SIZE) for tensor in inputs), strict=True)
            outputs: Array = torch.cat([self.program(*batch) for batch in batches]).double().numpy()
        return outputs


def load(archive: Path, expected: str) -> Model:
    """Return the model of an archive.

    Raises ProjectError unless it has the sha256 `expected` and gives the golden answer to the golden request: then this
    code turns rows into tensors as the archive's own does.
    """
    try:
        with zipfile.ZipFile(archive) as files:
            content = files.read(MODEL.name)
            names = ("schema.json", "golden_request.json", "golden_response.json")
            schema, request, golden = (json.loads(files.read(name)) for name in names)
    except (OSError, KeyError, zipfile.BadZipFile, ValueError) as error:
        raise ProjectError(f"{archive} is not a model archive, run `make pipeline` ({error})") from error
    found = sha256(content).hexdigest()
    if found != expected:
        raise ProjectError(f"{archive} holds a model with sha256 {found}, and {expected} is expected: `make pipeline`")
    model = Model(torch.export.load(io.BytesIO(content)).module(), schema, found[:12])
    rows = [check_row(index, row, schema) for index, row in enumerate(request["instances"])]
    outputs = model.predict(from_rows(rows, schema))
    if probe.differs(owner.features().answer(torch.from_numpy(outputs), schema), golden["predictions"]):
        raise ProjectError(f"{archive} fails its smoke test: it was built with different code")
    return model
