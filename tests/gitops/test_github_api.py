"""Calls of GitHub's API: refusals, waiting, settings, and where the token goes."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from commenting import Bench, writes
from github_server import GitHub
from gitops.integrations import github

ECHO = {"message": "Bad token ghs_thisIsTheTokenOfTheTests0123456789", "errors": [{"message": "why"}]}


@pytest.mark.parametrize(
    ("status", "hint"), [(401, "not valid"), (403, "pull-requests: (read|write)"), (404, "see"), (422, "why")]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refusal_is_an_error_of_one_line(bench: Bench, method: str, status: int, hint: str) -> None:
    bench.server.refusals[method] = [(status, {}, ECHO)] * 9
    bench.refused(rf"^error: {method} https://127\S+: GitHub answers {status}, .*{hint}")
    assert len(bench.server.refusals[method]) == 8  # asked once


def test_temporary_refusals_are_retried(bench: Bench) -> None:
    waits: list[float] = []
    bench.monkeypatch.setattr(github.time, "sleep", waits.append)
    limit = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}
    bench.server.refusals = {
        "GET": [(502, {}, {}), (503, {"Retry-After": "7"}, {}), (403, limit, {})],
        "POST": [(429, {"Retry-After": "60"}, {}), (403, {"Retry-After": "2"}, {})],
    }
    assert bench.run()[0] == 0
    assert waits == [0, 7, 0, 60, 2]
    assert len(bench.posted()) == 1


@pytest.mark.parametrize("refusals", [[(503, {}, {})] * 4, [(503, {"Retry-After": "61"}, {})]])
def test_it_does_not_wait_for_ever(bench: Bench, refusals: Any) -> None:
    bench.server.refusals["GET"] = refusals
    bench.refused("GitHub answers 503")


def test_a_comment_is_not_created_twice_after_a_lost_response(bench: Bench) -> None:
    bench.server.late = True
    bench.server.refusals["POST"] = [(502, {}, {})]
    assert bench.run()[0] == 0
    assert len(bench.posted()) == 1
    assert writes(bench.server) == ["POST", "PATCH"]


def test_a_missing_response_times_out(bench: Bench) -> None:
    bench.monkeypatch.setattr(github, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bench.monkeypatch.setenv("GITHUB_API_URL", f"https://127.0.0.1:{silent.getsockname()[1]}")
        bench.refused("had no answer: .*timed out")


def test_an_unknown_certificate_is_not_trusted(bench: Bench) -> None:
    bench.monkeypatch.delenv("SSL_CERT_FILE")
    bench.refused("(?i)certificate")
    assert bench.server.calls == []


def test_the_token_goes_to_no_other_host(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    with GitHub(tmp_path_factory.mktemp("other")) as other:
        both = bench.server.certificate.read_text() + other.certificate.read_text()
        bench.server.certificate.write_text(both)
        bench.server.refusals["GET"] = [(301, {"Location": f"{other.api}/repos/owner/name/pulls"}, {})]
        bench.refused("GitHub answers 301")
        assert other.calls == []


def test_a_renamed_repository_is_followed(bench: Bench) -> None:
    bench.server.refusals["GET"] = [(301, {"Location": f"{bench.server.api}/repos/owner/name/pulls"}, {})]
    assert bench.run()[0] == 0
    assert len(bench.posted()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GITHUB_TOKEN", ""),
        ("GITHUB_TOKEN", "ghs_thisIsTheTokenOfTheTests0123456789\r\nX: y"),
        ("GITHUB_API_URL", "http://127.0.0.1"),
        ("GITHUB_SERVER_URL", "http://127.0.0.1"),
        ("GITHUB_REPOSITORY", "owner/name/../../user"),
    ],
)
def test_a_wrong_setting_is_named(bench: Bench, name: str, value: str) -> None:
    bench.monkeypatch.setenv(name, value)
    bench.refused(f"^error: {name}")
    assert bench.server.calls == []
