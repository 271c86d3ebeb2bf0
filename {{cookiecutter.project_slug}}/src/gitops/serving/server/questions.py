"""What a request asks for, by its headers and its body, and its answer in the form in which it was asked."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gitops.serving.server import headers, messages, open_inference
from gitops.serving.server.headers import Headers
from gitops.serving.server.messages import Problem, Reply
from gitops.tabular.columns import Schema, threshold


@dataclass(frozen=True)
class Served:
    """The model that answers."""

    name: str
    version: str
    schema: Schema


@dataclass(frozen=True)
class Question:
    """The `instances` of a request, or the `problems` with it: one of the two lists is empty.

    `explain`: it asks for explanations; `request`: it is one of the Open Inference Protocol.
    """

    headers: Headers
    instances: list[Any]
    problems: list[Problem]
    explain: bool = False
    request: open_inference.Request | None = None


def ask(body: bytes | None, sent: Headers, model: Served) -> Question:
    """Return what a request asks for, or the problems with its headers or its body."""
    if sent.version not in ("", model.version):
        reason = f"the version of {model.name} is {model.version}, not {sent.version[: headers.SHOWN]!r}"
        return Question(sent, [], messages.problem(reason, HTTPStatus.NOT_FOUND))
    try:
        explain = headers.explains(sent.query)
    except ValueError as error:
        return Question(sent, [], messages.problem(str(error)))
    if not sent.open_inference:
        return Question(sent, *messages.read(body), explain)
    if explain:
        reason = f"the Open Inference Protocol has no explanations: ask /predictions/{model.name}?explain=true"
        return Question(sent, [], messages.problem(reason))
    request = open_inference.read(body, model.schema)
    return Question(sent, request.instances, request.problems, request=request)


def answer(
    question: Question,
    predictions: list[Any] | None,
    explanations: list[Any] | None,
    problems: list[Problem],
    model: Served,
) -> Reply:
    """Return the answer to a request: its predictions, and explanations if there are some, or the problems with it.

    Without both the model has failed on it.
    """
    request, request_id = question.request, question.headers.request_id
    if predictions is None and not problems:
        problems = messages.problem("the model failed on this request", HTTPStatus.INTERNAL_SERVER_ERROR)
    if problems:
        return messages.refusal(problems, request_id, in_full=request is not None)
    found = {"predictions": predictions, "model_version": model.version, **threshold(model.schema)}
    found |= {"explanations": explanations} if explanations else {}
    found["request_id"] = request_id
    try:
        return messages.reply(request.answer(model.name, found) if request else found, request_id)
    except open_inference.Refused as error:
        return messages.refusal(messages.problem(str(error)), request_id)
