"""The model as MLflow loads it ("models from code"): raw columns in, predictions out, through the exported graph.

MLflow runs this file on its own, with the project's features.py and what that imports on the path (tracking.log_model).
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

    # MLflow would take a signature from type hints of `predict`, and warns without; the schema is the contract here.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Load both from the logged artifacts."""
        import torch

        self.program = torch.export.load(context.artifacts["model"]).module()
        self.package = context.model_config["package"]
        self.schema = json.loads(Path(context.artifacts["schema"]).read_text(encoding="utf-8"))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return the prediction of each row of a frame with the types of the prepared splits."""
        # MLflow puts the code on the path when it loads the model, not when it logs this file.
        import torch

        from gitops.tabular import arrow

        features = importlib.import_module(f"{self.package}.features")
        with torch.inference_mode():
            outputs = self.program(*features.encode(arrow.from_frame(model_input, self.schema), self.schema))
        return features.answer(outputs, self.schema)


mlflow.models.set_model(ExportedModel())
