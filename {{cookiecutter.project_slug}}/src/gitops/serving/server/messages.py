"""The JSON of requests and answers: `{"instances": [...]}`, and what every answer has.

A problem is what is wrong with a request: `instance` and `column` (null where it is about the whole) and `error`; where
another status than 400 is right, `status` too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

#: Instances in one request, at most: `make batch` is for whole tables.
MAX_INSTANCES = 1000

#: Bytes of an answer, at most: one buffer of HAProxy holds it, so that no slow client occupies TorchServe, which
#: restarts a worker that sends more (max_response_size in config.properties).
MAX_ANSWER = 2**19

Problem = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """An answer as it is sent, and the problems that it names, for the log."""

    status: HTTPStatus
    body: bytes
    problems: list[Problem]


def parse(body: bytes | None) -> Any:
    """Return the JSON value of a body. Raises ValueError, whose text is for the client."""
    if body is None:  # TorchServe has parsed the body as a form
        raise ValueError("the body is a form: send JSON, with the header Content-Type: application/json")
    try:
        return json.loads(body.decode("utf-8"))
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    except ValueError as error:  # also UnicodeDecodeError, and integers of thousands of digits
        raise ValueError(f"the body is not valid JSON in UTF-8 ({error})") from None


def read(body: bytes | None) -> tuple[list[Any], list[Problem]]:
    """Return the instances in a request's body, or the problems with it: one of the two lists is empty."""
    try:
        request = parse(body)
    except ValueError as error:
        return [], problem(str(error))
    if not isinstance(request, dict) or list(request) != ["instances"]:
        return [], problem('the body must be an object with the one key "instances"')
    instances = request["instances"]
    if not isinstance(instances, list) or not 1 <= len(instances) <= MAX_INSTANCES:
        return [], problem(f'"instances" must be a list of 1 to {MAX_INSTANCES} rows')
    return instances, []


def problem(error: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> list[Problem]:
    """Return a problem with a request as a whole."""
    return [{"instance": None, "column": None, "error": error, "status": status}]


def reply(answer: dict[str, Any], request_id: str) -> Reply:
    """Return a prediction's answer as it is sent, or a refusal where that would be too long."""
    body = encode(answer)
    if len(body) > MAX_ANSWER:
        problems = problem(f"the answer would be longer than {MAX_ANSWER} bytes: send fewer instances")
        return refusal(problems, request_id)
    return Reply(HTTPStatus.OK, body, [])


def refusal(problems: list[Problem], request_id: str, *, in_full: bool = False) -> Reply:
    """Return the answer to a request that gets no prediction.

    `in_full`: its `error` says itself what is wrong with an instance, for clients that look at nothing else.
    """
    status = problems[0].get("status", HTTPStatus.BAD_REQUEST)
    problems = [{key: value for key, value in each.items() if key != "status"} for each in problems]
    error = problems[0]["error"]
    if problems[0]["instance"] is not None:
        more = f" (and {len(problems) - 1} more errors)" if len(problems) > 1 else ""
        error = f"{error}{more}" if in_full else "no prediction: some instances do not fit the schema"
    return Reply(status, encode({"error": error, "errors": problems, "request_id": request_id}), problems)


def encode(value: Any) -> bytes:
    """Return JSON in ASCII. Raises ValueError for NaN and infinity."""
    return json.dumps(value, allow_nan=False).encode("ascii")
