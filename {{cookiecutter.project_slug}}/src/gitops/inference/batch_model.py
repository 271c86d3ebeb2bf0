"""The model of `make batch`: from a model archive, as what serves has it, and only if it is the one that is meant."""

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
from gitops.tabular import columns
from gitops.tabular.arrow import Array

#: Rows that go through the model at once; more leave the processor's cache.
CHUNK = 1024


@dataclass(frozen=True)
class Model:
    """What predicts: the exported graph, the schema that its rows must fit, the version that answers carry."""

    program: torch.nn.Module
    schema: dict[str, Any]
    version: str

    @property
    def fields(self) -> list[pa.Field]:
        """Columns that a prediction has, as in evaluation/predictions.parquet."""
        classes = self.schema["target"]["classes"]
        label = pa.field("prediction", pa.string() if classes else pa.float64())
        scores = [pa.field(f"p_{name}", pa.float64()) for name in classes]
        return [label, *scores, pa.field("model_version", pa.string())]

    def predict(self, rows: columns.Columns) -> Array:
        """Return the outputs for typed columns, [rows, classes] or [rows], in float64."""
        inputs = owner.features().encode(rows, self.schema)
        if not len(inputs[0]):
            return np.empty((0, len(classes)) if (classes := self.schema["target"]["classes"]) else 0)
        with torch.inference_mode():
            chunks = zip(*(tensor.split(CHUNK) for tensor in inputs), strict=True)
            outputs: Array = torch.cat([self.program(*chunk) for chunk in chunks]).double().numpy()
        return outputs


def load(archive: Path, wanted: str) -> Model:
    """Return the model of an archive. Raises ProjectError unless it has the sha256 `wanted` and answers right.

    The golden answer shows that this code turns rows into tensors as the archive's own does.
    """
    try:
        with zipfile.ZipFile(archive) as files:
            content = files.read(MODEL.name)
            names = ("schema.json", "golden_request.json", "golden_response.json")
            schema, request, golden = (json.loads(files.read(name)) for name in names)
    except (OSError, KeyError, zipfile.BadZipFile, ValueError) as error:
        raise ProjectError(f"{archive} is no model archive, run `make pipeline` ({error})") from error
    found = sha256(content).hexdigest()
    if found != wanted:
        raise ProjectError(f"{archive} holds a model with sha256 {found}, and {wanted} is expected: `make pipeline`")
    model = Model(torch.export.load(io.BytesIO(content)).module(), schema, found[:12])
    rows = [columns.check_row(index, row, schema) for index, row in enumerate(request["instances"])]
    outputs = model.predict(columns.from_rows(rows, schema))
    if probe.differs(owner.features().answer(torch.from_numpy(outputs), schema), golden["predictions"]):
        raise ProjectError(f"{archive} fails its smoke test: it was built with different code")
    return model
