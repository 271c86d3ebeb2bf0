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

from gitops.serving.server import request_log
from gitops.serving.server.metrics import Metrics
from gitops.serving.server.request_log import Entry, RequestLog
from gitops.serving.server.shapley import EXPLAIN, MAX_CELLS, Explainer, NotExplained
from gitops.tabular.columns import Columns, from_rows, raised, threshold
from gitops.tabular.request_rows import RowError, check_row, check_rows

#: Instances in one request, at most: `make batch` is for whole tables.
MAX_INSTANCES = 1000

#: Errors listed in one answer.
MAX_ERRORS = 100

#: Bytes of an answer, at most: one buffer of HAProxy holds it, so that no slow client occupies TorchServe, which
#: restarts a worker that sends more (max_response_size in config.properties).
MAX_ANSWER = 2**19

#: Rows in one call of the model: bounds the memory of a full batch, at no cost in speed.
CHUNK = 1024

Row = dict[str, Any]
Problem = dict[str, Any]

log = logging.getLogger(__name__)


def read(body: bytes | None) -> tuple[list[Any], list[Problem]]:
    """Return the instances in a request's body, or the problems with it: one of the two lists is empty."""
    if body is None:  # TorchServe has parsed the body as a form
        return [], _problem("the body is a form: send JSON, with the header Content-Type: application/json")
    try:
        request = json.loads(body.decode("utf-8"))
    except RecursionError:
        return [], _problem("the body is nested too deeply")
    except ValueError as error:  # also UnicodeDecodeError, and integers of thousands of digits
        return [], _problem(f"the body is not valid JSON in UTF-8 ({error})")
    if not isinstance(request, dict) or list(request) != ["instances"]:
        return [], _problem('the body must be an object with the one key "instances"')
    instances = request["instances"]
    if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
        return [], _problem(f'"instances" must be a list of 1 to {MAX_INSTANCES} rows')
    return instances, []


def check_batch(
    requests: list[tuple[list[Any], list[Problem]]], schema: dict[str, Any]
) -> tuple[list[tuple[list[Row], list[Problem]]], Columns | None]:
    """Return what `check` returns for each request, and the columns of all rows, if the rows could be checked at once.

    Only if that fails, the requests go one by one, and a bad one row by row, to find what is wrong.
    """
    if (found := check_rows([row for instances, _ in requests for row in instances], schema)) is not None:
        rows = iter(found[0])
        return [([*islice(rows, len(instances))], problems) for instances, problems in requests], found[1]
    if len(requests) > 1:
        return [checked for request in requests for checked in check_batch([request], schema)[0]], None
    return [check(*request, schema) for request in requests], None


def check(instances: list[Any], problems: list[Problem], schema: dict[str, Any]) -> tuple[list[Row], list[Problem]]:
    """Return the instances as checked rows, or the `problems` found before and those of the instances."""
    rows, problems = [], problems[:]
    for index, instance in enumerate(instances):
        try:
            rows.append(check_row(index, instance, schema))
        except RowError as error:
            problems.append({"instance": error.index, "column": error.column, "error": str(error)})
            if len(problems) == MAX_ERRORS:
                break
    return ([], problems) if problems else (rows, [])


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
        instances = [read(body) for body in bodies]
        if self.online is not None:
            instances = self.online.complete(instances)
        requests, columns = check_batch(instances, self.schema)
        predictions = iter(self.predict([rows for rows, problems in requests if not problems], columns))
        answers, cells = [], MAX_CELLS
        for index, (rows, problems) in enumerate(requests):
            found, explanations = None if problems else next(predictions), None
            if found and context.get_all_request_header(index).get(EXPLAIN) == "true":
                explanations, cells, problems = self._explain(rows, cells)
                found = None if problems else found
            status, answer, problems = _refusal(problems) if problems else self._answer(found, explanations)
            context.set_response_status(code=status.value, phrase=status.phrase, idx=index)
            context.set_response_content_type(index, "application/json")
            answers.append(answer)
            identity, client = request_log.request_id(context, index), request_log.client(context, index)
            self._record(Entry(identity, rows, found or [], status, problems, len(bodies[index] or b""), client))
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
        return None, cells, [problem | {"status": status} for problem in _problem(reason)]

    def _answer(
        self, predictions: list[Any] | None, explanations: list[Any] | None = None
    ) -> tuple[HTTPStatus, bytes, list[Problem]]:
        if predictions is None:
            problems = _problem("the model failed on this request")
            return HTTPStatus.INTERNAL_SERVER_ERROR, _json({"error": problems[0]["error"]}), problems
        reply = {"predictions": predictions, "model_version": self.version, **threshold(self.schema)}
        answer = _json(reply | ({"explanations": explanations} if explanations else {}))
        if len(answer) > MAX_ANSWER:
            return _refusal(_problem(f"the answer would be longer than {MAX_ANSWER} bytes: send fewer instances"))
        return HTTPStatus.OK, answer, []


def _refusal(problems: list[Problem]) -> tuple[HTTPStatus, bytes, list[Problem]]:
    first = problems[0]
    status = first.pop("status", HTTPStatus.BAD_REQUEST)
    summary = first["error"] if first["instance"] is None else "no prediction: some instances do not fit the schema"
    return status, _json({"error": summary, "errors": problems}), problems


def _problem(error: str) -> list[Problem]:
    """Return a problem with a request as a whole."""
    return [{"instance": None, "column": None, "error": error}]


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False).encode("ascii")
