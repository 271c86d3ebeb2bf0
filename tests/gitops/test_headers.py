"""What the handler takes from a request's headers: id, client, query, protocol and version; and the ids of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import handling
import pytest
from gitops.serving.server import headers, request_log
from gitops.serving.server.handler import Handler
from handling import replies

GOOD = json.dumps({"instances": [{"age": 40, "customer's plan": "gold"}]}).encode()


class Context:
    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    def get_all_request_header(self, index: int) -> dict[str, Any]:
        return self.found

    def get_request_id(self, index: int) -> str:
        return "made-here"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"X-Request-Id": "order_7.a-B"}, "order_7.a-B"),
        ({"body": {"content-type": "x"}, "x-request-ID": "a"}, "a"),
        ({"X-Request-Id": "a" * 64}, "a" * 64),
        ({"X-Request-Id": "a" * 65}, "made-here"),
        ({"X-Request-Id": ""}, "made-here"),
        ({"X-Request-Id": "a\n"}, "made-here"),
        ({"X-Request-Id": 'a", "b": "'}, "made-here"),
        ({}, "made-here"),
        ({"X-Request-Id": request_log.FLUSH}, request_log.FLUSH),
        ({"X-Request-Id": "/flush "}, "made-here"),
    ],
)
def test_id_is_the_clients_if_it_is_valid(found: dict[str, Any], expected: str) -> None:
    assert headers.read(Context(found), 0).request_id == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"x-client-ID": "team-a"}, "team-a"),
        ({"X-Client-Id": "2001:db8::1"}, "2001:db8::1"),
        ({"X-Client-Id": "a" * 65}, ""),
        ({"X-Client-Id": 'a", "b": "'}, ""),
        ({"body": {}, "X-Client-Id": None}, ""),
        ({}, ""),
    ],
)
def test_client_is_who_the_proxy_says(found: dict[str, Any], expected: str) -> None:
    assert headers.read(Context(found), 0).client == expected


def test_names_of_headers_come_in_any_case_and_the_rest_is_told_too() -> None:
    sent = {"X-QUERY": "explain=true", "x-protocol": "v2", "x-Model-Version": "3f9a0c1d2e4b"}
    found = headers.read(Context(sent), 0)
    assert (found.query, found.open_inference, found.version) == ("explain=true", True, "3f9a0c1d2e4b")
    nothing = headers.read(Context({"X-Protocol": "v1"}), 0)
    assert (nothing.query, nothing.open_inference, nothing.version) == ("", False, "")


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("explain=true", True),
        ("other=1&explain=%74rue&explain=true", True),
        ("explain=false", False),
        ("explained=1&EXPLAIN=yes;explain=3&%00=%ff", False),
        ("", False),
    ],
)
def test_only_explain_true_asks_for_explanations(query: str, asked: bool) -> None:
    assert headers.explains(query) is asked


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("explain=1", "'1'"),
        ("explain", "''"),
        ("explain=True", "'True'"),
        ("explain=true&explain=false", "'false' and 'true'"),
        ("a=b&explain=%ff%00%0a", r"'�\x00\n'"),
        ("explain=" + "x" * 1500, f"'{'x' * 60}'"),
    ],
)
def test_another_value_is_refused_with_what_would_be_right(query: str, shown: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"the parameter explain is {shown}: true or false is expected")):
        headers.explains(query)


@pytest.fixture
def handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Handler:
    return handling.started(monkeypatch, handling.unpacked(tmp_path), REQUEST_LOG=str(tmp_path / "log"))


def test_each_answer_has_the_id_that_the_log_has(handler: Handler, tmp_path: Path) -> None:
    sent = [
        (GOOD, {"x-request-id": "order-7"}),
        (GOOD, {}),
        (b"{nope", {"X-Request-Id": "bad-1"}),
        (GOOD, {"X-Request-Id": "bad-2", "x-query": "explain=1"}),
        (GOOD, {"X-Request-Id": "explained", "X-Query": "explain=true"}),
        (GOOD, {"X-Request-Id": "bad-3", "X-Model-Version": "0" * 12}),
    ]
    found = replies(handler, *sent)
    ids = ["order-7", "made-1", "bad-1", "bad-2", "explained", "bad-3"]
    assert [answer["request_id"] for _, answer in found] == ids
    assert [status for status, _ in found] == [200, 200, 400, 400, 200, 404]
    assert "true or false is expected" in found[3][1]["error"] and "explanations" in found[4][1]
    handler.log.close()
    lines = [json.loads(line) for path in (tmp_path / "log").rglob("*.jsonl") for line in path.open()]
    assert [(line["request_id"], line.get("status", 200)) for line in lines] == [
        (name, status) for name, (status, _) in zip(ids, found, strict=True)
    ]
    assert handler.metrics.counts["model_refused_total", ""] == 2


@pytest.mark.parametrize("prepare", [lambda handler: None, lambda handler: setattr(handler, "model", None)])
def test_every_refusal_has_one_form(handler: Handler, prepare: Callable[[Handler], None]) -> None:
    """That of the proxy's own refusals, and the id."""
    prepare(handler)
    for status, answer in replies(handler, (b"{", {}), (GOOD, {"X-Model-Version": "x"}), (GOOD, {})):
        if status != HTTPStatus.OK:
            assert {*answer} == {"error", "errors", "request_id"} and status in (400, 404, 500)
            assert {*answer["errors"][0]} == {"instance", "column", "error"}


def test_another_version_is_refused_and_the_servers_own_is_not(handler: Handler) -> None:
    own, other = replies(handler, *((GOOD, {"x-model-version": version}) for version in (handler.version, "1" * 99)))
    assert own[0] == 200
    assert other[0] == 404
    assert other[1]["error"] == f"the version of tiny is {handler.version}, not '{'1' * 60}'"
