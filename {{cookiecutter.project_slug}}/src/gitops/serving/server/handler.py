"""TorchServe's handler: checks each request of a batch, runs the model once on all valid rows, answers each.

It is packed into the model archive with the project's features.py, schema.json and all modules of src/ that the two
import, and so it may import only these, the standard library and torch. docs/system-design.md describes request,
answer and log.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import time
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from gitops.serving.server import headers, messages, request_log
from gitops.serving.server.checks import check_batch
from gitops.serving.server.messages import Problem
from gitops.serving.server.metrics import Metrics
from gitops.serving.server.questions import Served, answer, ask
from gitops.serving.server.request_log import Entry, RequestLog
from gitops.serving.server.shapley import MAX_CELLS, Explainer, NotExplained
from gitops.tabular.columns import Columns, from_rows, raised

#: Rows in one call of the model: bounds the memory of a full batch, at no cost in speed.
CHUNK = 1024

Row = dict[str, Any]

log = logging.getLogger(__name__)


class Handler:
    """TorchServe creates an instance of this module's only class in each worker; it calls `initialize` and `handle`."""

    def initialize(self, context: Any) -> None:
        """Load the archive's model, schema and settings. Raises RuntimeError if the model is not the released one."""
        folder = Path(context.system_properties["model_dir"])
        path = folder / context.manifest["model"]["serializedFile"]
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        released = os.environ.get("MODEL_SHA256")
        if released is not None and released != sha256:
            raise RuntimeError(f"not the released model: {path.name} has sha256 {sha256}, MODEL_SHA256 is {released}")
        self.version = sha256[:12]
        self.schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
        self.served = Served(context.manifest["model"]["modelName"], self.version, self.schema)
        self.metrics = Metrics(context.metrics, self.schema["target"]["classes"])
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self.features = importlib.import_module(f"{settings['package']}.features")
        self.online = None
        if address := os.environ.get("FEATURE_SERVER"):
            from gitops.serving.server import online_features  # only projects with a feature store need it

            view = json.loads((folder / "feature_view.json").read_text(encoding="utf-8"))
            self.online = online_features.OnlineFeatures(address, view, self.schema)
        self.log = RequestLog(
            os.environ.get("REQUEST_LOG", ""), settings["request_log"], self.version, self.metrics.dropped
        )
        self.explainer: Explainer | None = None  # once it is asked for
        torch.set_num_threads(1)  # a worker has one core; torch would start a thread for each core of the machine
        self.model = torch.export.load(path).module()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Return the JSON answer to each request of a batch, in order; a bad request never affects the others."""
        began = time.perf_counter()
        bodies = [request.get("body") for request in data]
        asked = [ask(body, headers.read(context, index), self.served) for index, body in enumerate(bodies)]
        instances = [(each.instances, each.problems) for each in asked]
        if self.online is not None:
            instances = self.online.complete(instances)
        requests, columns = check_batch(instances, self.schema)
        predictions = iter(self.predict([rows for rows, problems in requests if not problems], columns))
        answers, cells = [], MAX_CELLS
        for index, ((rows, problems), question) in enumerate(zip(requests, asked, strict=True)):
            found, explanations = None if problems else next(predictions), None
            if found and question.explain:
                explanations, cells, problems = self._explain(rows, cells)
                found = None if problems else found
            reply = answer(question, found, explanations, problems, self.served)
            context.set_response_status(code=reply.status.value, phrase=reply.status.phrase, idx=index)
            context.set_response_content_type(index, "application/json")
            answers.append(reply.body)
            size, sent = len(bodies[index] or b""), question.headers
            self._record(Entry(sent.request_id, rows, found or [], reply.status, reply.problems, size, sent.client))
        self.metrics.answered(time.perf_counter() - began, len(requests))
        return answers

    def _record(self, entry: Entry) -> None:
        """Count and log a request and its answer, or flush the log."""
        if entry.request_id == request_log.FLUSH:
            self.log.close()
            return
        self.log.add(entry)
        if entry.status == HTTPStatus.BAD_REQUEST:
            self.metrics.refused()
        elif entry.request_id != request_log.GOLDEN:
            self.metrics.predicted(entry.predictions)

    def predict(self, requests: list[list[Row]], columns: Columns | None = None) -> list[list[Any] | None]:
        """Return the predictions for each request's rows, or None for a request on which the model fails.

        All rows go through the model together, as `columns` if those are at hand; only if that fails, the requests go
        one by one, to find the culprit.
        """
        try:
            predictions = iter(self._run([row for rows in requests for row in rows], columns))
            return [list(islice(predictions, len(rows))) for rows in requests]
        except Exception as error:
            if len(requests) > 1:
                return [self.predict([rows])[0] for rows in requests]
            log.error("The model failed on a valid request of %d rows: %s", len(requests[0]), raised(error))
            return [None]

    def _run(self, rows: list[Row], columns: Columns | None) -> list[Any]:
        if not rows:
            return []
        answers: list[Any] = self.features.answer(self._outputs(columns or from_rows(rows, self.schema)), self.schema)
        return answers

    def _outputs(self, columns: Columns) -> torch.Tensor:
        """Return the model's outputs. Raises ArithmeticError where one is not finite, and whatever the model raises."""
        inputs = self.features.encode(columns, self.schema)
        with torch.inference_mode():
            chunks = zip(*(tensor.split(CHUNK) for tensor in inputs), strict=True)
            outputs = torch.cat([self.model(*chunk) for chunk in chunks])
        if not outputs.isfinite().all():
            raise ArithmeticError("the model's output is not finite")
        return outputs

    def _explain(self, rows: list[Row], cells: int) -> tuple[list[Any] | None, int, list[Problem]]:
        """Return the explanations of a request's rows, what is left of the batch's `cells`, and why there are none."""
        try:
            self.explainer = self.explainer or Explainer(self.schema, self._outputs, self.features.decide)
            return *self.explainer.within(cells, rows), []
        except NotExplained as error:
            status, reason = error.status, str(error)
        except Exception as error:
            log.error("The model failed on the explanation of %d rows: %s", len(rows), raised(error))
            status, reason = HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed on the explanation of this request"
        return None, cells, messages.problem(reason, status)
