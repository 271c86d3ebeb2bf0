"""The model as MLflow loads it ("models from code"): predictions of the exported program from raw columns.

MLflow runs this file by itself. The modules that it imports are logged with the model (logged_model.log).
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class ExportedModel(PythonModel):  # type: ignore[misc]
    """A torch.export program and its schema."""

    # Without this, MLflow derives a signature from type hints or warns that there are none; the schema is the contract.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load the program and the schema from the logged artifacts."""
        import torch

        self.program = torch.export.load(context.artifacts["model"]).module()
        self.package = context.model_config["package"]
        self.schema = json.loads(Path(context.artifacts["schema"]).read_text(encoding="utf-8"))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return a prediction for each row of a frame of raw columns, with the types of the prepared splits."""
        # The packages are on the path when MLflow loads the model, not when it logs this file.
        import torch

        from gitops.tabular import arrow

        features = importlib.import_module(f"{self.package}.features")
        with torch.inference_mode():
            outputs = self.program(*features.encode(arrow.from_frame(model_input, self.schema), self.schema))
        return features.answer(outputs, self.schema)


mlflow.models.set_model(ExportedModel())
