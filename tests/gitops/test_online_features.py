"""Requests by an entity's id: the handler with a feature server that answers, answers badly, or does not answer."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import handling
import pytest
import tiny_model
from breast_cancer import features
from gitops.serving.server import online_features
from gitops.tabular.columns import Derived

PLAN = "customer's plan"
GOLD = {"age": 40.0, PLAN: "gold"}
FEATURES = {"age": "number", PLAN: "category", "unused": "number"}
VIEW = {"entity": "customer", "service": "tiny", "ttl_days": 30, "features": FEATURES}

NOW, NEVER = "2999-01-01T00:00:00Z", "1970-01-01T00:00:00Z"

#: The store's contents: id -> feature -> value and timestamp.
STORE: dict[str, dict[str, tuple[Any, str]]] = {
    "7": {"age": (40.0, NOW), PLAN: ("gold", NOW), "unused": (1.0, NOW)},
    "8": {"age": ("Infinity", NOW), PLAN: ("silver", NOW), "unused": (1.0, NOW)},
    "old": {"age": (40.0, "2001-01-01T00:00:00Z"), PLAN: ("gold", NOW), "unused": (1.0, NOW)},
    "half": {"age": (40.0, NOW), PLAN: (None, NEVER), "unused": (1.0, NOW)},
    "empty": {"age": ("Infinity", NOW), PLAN: (" ", NOW), "unused": (1.0, NOW)},
    "new": {"age": (40.0, NOW), PLAN: (None, NOW), "unused": (1.0, NOW)},  # as Redis has a column that came later
}
NONE: dict[str, tuple[Any, str]] = dict.fromkeys(FEATURES, (None, NEVER))


class FeatureServer(ThreadingHTTPServer):
    """Answers as Feast does, from STORE, or with `fault` if there is one; records the requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.fault: tuple[int, bytes] | None = None
        self.silence = 0.0


class Handler(BaseHTTPRequestHandler):
    server: FeatureServer

    def do_POST(self) -> None:
        assert self.path == "/get-online-features"
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(question)
        time.sleep(self.server.silence)
        found = [STORE.get(entity, NONE) for entity in question["entities"]["customer"]]
        results = [{"values": question["entities"]["customer"], "event_timestamps": [NEVER] * len(found)}]
        for name in FEATURES:
            values, times = zip(*(cells[name] for cells in found), strict=True)
            results.append({"values": values, "event_timestamps": times})
        answer = {"metadata": {"feature_names": ["customer", *FEATURES]}, "results": results}
        status, body = self.server.fault or (200, json.dumps(answer).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # the handler has stopped waiting
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FeatureServer]:
    with FeatureServer() as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handling.unpacked(tmp_path_factory.mktemp("model"), feature_view=VIEW)


@pytest.fixture
def handler(
    server: FeatureServer, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> handling.Handler:
    """A handler that uses `server`, with a request log in tmp_path/log."""
    return started(server, model_folder, tmp_path, monkeypatch)


def started(
    server: FeatureServer, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> handling.Handler:
    variables = {"REQUEST_LOG": str(tmp_path / "log"), "FEATURE_SERVER": f"http://127.0.0.1:{server.server_port}/"}
    return handling.started(monkeypatch, model_folder, **variables)


def answers(handler: handling.Handler, *requests: list[Any] | bytes) -> list[tuple[int, dict[str, Any]]]:
    """Send a batch of requests, each a list of instances or a body; return each request's status and answer."""
    bodies = [each if isinstance(each, bytes) else json.dumps({"instances": each}).encode() for each in requests]
    return handling.answers(handler, *bodies)


def test_id_gives_the_same_answer_as_its_features_with_one_look_up_for_a_batch(
    handler: handling.Handler, server: FeatureServer
) -> None:
    other = {"age": None, PLAN: "silver"}
    found = answers(handler, [GOLD, other], [{"customer": "7"}, {"customer": 8}], [{"customer": " 7 "}])
    assert [status for status, _ in found] == [200, 200, 200]
    given, asked, once = (answer["predictions"] for _, answer in found)
    assert asked == given
    assert once == given[:1]
    assert server.asked == [{"feature_service": "tiny", "entities": {"customer": ["7", "8"]}}]


def test_features_are_looked_up_without_a_proxy(
    server: FeatureServer, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is on this machine, or a Service of the cluster."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert answers(started(server, model_folder, tmp_path, monkeypatch), [{"customer": "7"}])[0][0] == 200


def test_features_given_by_an_instance_are_not_overwritten(handler: handling.Handler, server: FeatureServer) -> None:
    older, other = GOLD | {"age": 90.0}, {"age": 1.0, PLAN: None}
    found = answers(handler, [older, other], [{"customer": "7", "age": 90.0}, {"customer": "nobody"} | other])
    assert found[0][1]["predictions"] == found[1][1]["predictions"]
    assert server.asked == [
        {"feature_service": "tiny", "entities": {"customer": ["7"]}}
    ]  # the other instance gives all features


def test_instance_with_all_features_needs_no_look_up(handler: handling.Handler, server: FeatureServer) -> None:
    assert answers(handler, [GOLD])[0][0] == 200
    assert server.asked == []


@pytest.mark.parametrize(
    ("instance", "error"),
    [
        ({"customer": "nobody"}, "instance 1: the feature store has no features of customer 'nobody'"),
        ({"customer": "half"}, "instance 1: the feature store has no features of customer 'half', or not all of them"),
        ({"customer": "empty"}, "instance 1: the feature store has no features of customer 'empty', or not all"),
        ({"customer": "new"}, "instance 1: the feature store has no features of customer 'new', or not all of them"),
        ({"customer": "old"}, "instance 1: the feature store has no features of customer 'old' of the last 30 days"),
        ({"customer": "  "}, "instance 1: column 'customer' is not a valid id"),
        ({"customer": None}, "instance 1: column 'customer' is not a valid id"),
        ({"customer": True}, "instance 1: column 'customer' is not a valid id"),
        ({"customer": ["7"]}, "instance 1: column 'customer' is not a valid id"),
        ({"customer": "x" * 101}, "instance 1: column 'customer' is not a valid id"),
        ({"customer": "7", "colour": 1}, "instance 1: column 'colour' is not in the schema"),
        ({"age": 40.0}, f'instance 1: column "{PLAN}" is missing'),
        (7, "instance 1: 7 is not an object"),
    ],
)
def test_unknown_id_is_refused_by_name_and_affects_no_other_request(
    handler: handling.Handler, instance: Any, error: str
) -> None:
    (status, answer), (good, _), (bad, _) = answers(handler, [GOLD, instance], [{"customer": "7"}], b"{nope")
    assert (status, good, bad) == (400, 200, 400)
    [problem] = answer["errors"]
    assert problem["instance"] == 1
    assert problem["error"].startswith(error)


def test_all_unknown_ids_are_named_up_to_a_limit(handler: handling.Handler) -> None:
    [(_, answer)] = answers(handler, [{"customer": f"no {number}"} for number in range(200)])
    assert [problem["instance"] for problem in answer["errors"]] == list(range(100))


@pytest.mark.parametrize(
    "fault",
    [(500, b"{}"), (404, b"{}"), (200, b"<html>"), (200, b"[]"), (200, b'{"metadata": {"feature_names": []}}')],
)
def test_bad_answer_fails_only_requests_that_need_it(
    handler: handling.Handler, server: FeatureServer, fault: tuple[int, bytes]
) -> None:
    server.fault = fault
    (needing, answer), (other, _), (bad, _) = answers(handler, [GOLD, {"customer": "7"}], [GOLD], [{"customer": None}])
    assert (needing, other, bad) == (503, 200, 400)
    assert answer == {
        "error": answer["error"],
        "errors": [{"instance": None, "column": None, "error": answer["error"]}],
    }
    assert "the feature server does not answer" in answer["error"]


def test_silent_server_costs_one_timeout_and_is_retried_later(
    handler: handling.Handler, server: FeatureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online_features, "TIMEOUT", 0.2)
    monkeypatch.setattr(online_features, "RETRY_INTERVAL", 1.0)
    server.silence = 5.0
    began = time.monotonic()
    assert [answers(handler, [{"customer": "7"}])[0][0] for _ in range(3)] == [503, 503, 503]
    assert time.monotonic() - began < 1
    assert len(server.asked) == 1
    server.silence = 0.0
    while answers(handler, [{"customer": "7"}])[0][0] != 200:
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    assert time.monotonic() - began > 1


def test_server_that_is_down_fails_only_requests_that_need_it(handler: handling.Handler, server: FeatureServer) -> None:
    server.shutdown()
    server.server_close()
    (needing, _), (other, _) = answers(handler, [{"customer": "7"}], [GOLD])
    assert (needing, other) == (503, 200)


def test_log_has_the_features_that_were_used(handler: handling.Handler, tmp_path: Path) -> None:
    answers(handler, [{"customer": "7"}], [{"customer": "nobody"}])
    handler.log.close()
    lines = [json.loads(line) for path in (tmp_path / "log").rglob("*.jsonl") for line in path.read_text().splitlines()]
    assert [line.get("inputs") for line in lines] == [GOLD, None]
    assert lines[1]["status"] == 400


def test_a_redacted_id_is_in_no_log(
    server: FeatureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer may name what the client has sent; log and console may not."""
    folder = tmp_path / "model"
    folder.mkdir()
    redacted = {"package": "breast_cancer", "request_log": {"sample": 1.0, "redact": ["customer"]}}
    handling.unpacked(folder, feature_view=VIEW, settings=redacted)
    handler = started(server, folder, tmp_path, monkeypatch)
    found = answers(handler, [{"customer": "7"}], [{"customer": "patient-4711"}], ["patient-4711"])
    assert [status for status, _ in found] == [200, 400, 400]
    assert all("patient-4711" in answer["errors"][0]["error"] for _, answer in found[1:])
    handler.log.close()
    text = "".join(path.read_text() for path in (tmp_path / "log").rglob("*.jsonl"))
    known, *refused = map(json.loads, text.splitlines())
    assert known["inputs"] == GOLD  # without the id: it is no input of the model
    assert [line["errors"][0]["error"] for line in refused] == ["redacted", "redacted"]
    assert "patient-4711" not in text + caplog.text


def test_a_value_that_the_store_should_not_have_is_not_in_the_servers_log(
    server: FeatureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    view = VIEW | {"features": FEATURES | {PLAN: "boolean"}}
    handler = started(server, handling.unpacked(tmp_path, feature_view=view), tmp_path, monkeypatch)
    ((status, _),) = answers(handler, [{"customer": "7"}])
    assert status == 503
    (line,) = [record.getMessage() for record in caplog.records if record.name == online_features.__name__]
    assert f"a value of {PLAN!r} is not a boolean" in line.replace("\\", "") and "gold" not in line


def test_derived_features_are_computed_from_looked_up_ones(
    server: FeatureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(features.DERIVED, "months", Derived(("age",), lambda age: age * 12))
    folder = tmp_path / "model"
    folder.mkdir()
    handling.unpacked(folder, tiny_model.DERIVED_SCHEMA, feature_view=VIEW)
    handler = started(server, folder, tmp_path, monkeypatch)
    (status, by_id), (_, given) = answers(handler, [{"customer": "7"}], [GOLD])
    assert status == 200
    assert by_id["predictions"] == given["predictions"]
