"""The requests that the reverse proxy refuses before TorchServe sees them, and the answer that they get."""

from __future__ import annotations

import json
from http import HTTPStatus
from urllib.parse import parse_qsl

import h11

#: Bytes of a request's target and of its headers: less than half of what TorchServe (Netty) accepts.
MAX_TARGET, MAX_HEADERS = 2000, 4000


#: Characters of a refused value that are shown.
SHOWN = 60


class Refusal(Exception):
    """The proxy answers this request itself: with the status, and the reason for the client."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason


def check_head(head: h11.Request, max_body: int) -> None:
    """Raise Refusal for a request line or headers that TorchServe would not accept, or that announce a large body."""
    if head.method == b"CONNECT":
        raise Refusal(405, "CONNECT is not supported")
    if not head.target.startswith(b"/"):
        raise Refusal(400, "the request target must begin with a slash")
    if len(head.target) > MAX_TARGET:
        raise Refusal(414, f"the request target is longer than {MAX_TARGET} bytes")
    if sum(len(name) + len(value) + len(": \r\n") for name, value in head.headers) > MAX_HEADERS:
        raise Refusal(431, f"the headers are longer than {MAX_HEADERS} bytes")
    for name, value in head.headers:
        if name == b"content-length":
            check_length(int(value), max_body)


def check_length(length: int, max_body: int) -> None:
    """Raise Refusal for a body of more than `max_body` bytes."""
    if length > max_body:
        raise Refusal(413, f"the body is longer than {max_body} bytes")


def explains(target: bytes) -> bool:
    """Tell whether a request for predictions asks for explanations, `?explain=true`. Other parameters are ignored.

    Raises Refusal for another value than true or false, and for both.
    """
    path, _, query = target.decode("latin-1").partition("?")
    if not query or not path.startswith("/predictions/"):
        return False
    given = {value for name, value in parse_qsl(query, keep_blank_values=True) if name == "explain"}
    if len(given) > 1 or not given <= {"true", "false"}:
        shown = " and ".join(repr(value[:SHOWN]) for value in sorted(given)[:2])
        raise Refusal(400, f"the parameter explain is {shown}: true or false is expected")
    return given == {"true"}


def response(refusal: Refusal) -> bytes:
    """Return the answer to a refused request in the handler's JSON form; it is the last on its connection."""
    problem = {"instance": None, "column": None, "error": refusal.reason}
    body = json.dumps({"error": refusal.reason, "errors": [problem]}).encode("ascii")
    head = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode("ascii") + body
