"""Serving: first the handler by itself, then a real TorchServe with a model that needs no training."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import handling
import packing
import pytest
import tiny_model
import torch
from breast_cancer import features
from conftest import ROOT
from gitops.core import params
from gitops.core.artifacts import MODEL, SCHEMA, ProjectError, digest
from gitops.serving import package, reverse_proxy, serve, torchserve
from gitops.serving.server import checks, messages, metrics, probe
from gitops.serving.server import handler as module
from gitops.serving.server.handler import Handler
from gitops.tabular.columns import Derived
from handling import Context, answers

PLAN = "customer's plan"
GOOD = {"age": 40, PLAN: "gold"}
NAME = "tiny"

#: Bytes of a body that haproxy.cfg lets in.
MAX_BODY = 2**19


def body(*instances: Any) -> bytes:
    return json.dumps({"instances": list(instances)}).encode()


#: What a client may send, and a part of the answer that tells it what is wrong.
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "not JSON": (b"{nope", "not valid JSON"),
    "not UTF-8": (b"\xff\xfe{}", "not valid JSON in UTF-8"),
    "deeply nested": (b"[" * 100_000, "nested too deeply"),
    "digits": (b'{"instances": [' + b"9" * 5000 + b"]}", "not valid JSON"),
    "not an object": (b"[]", 'the one key \\"instances\\"'),
    "no instances": (b"{}", 'the one key \\"instances\\"'),
    "another key": (b'{"instances": [{}], "model": "x"}', 'the one key \\"instances\\"'),
    "no list": (b'{"instances": {}}', "a list of 1 to 1000"),
    "empty list": (b'{"instances": []}', "a list of 1 to 1000"),
    "too many": (body(*[GOOD] * 1001), "a list of 1 to 1000"),
    "not a row": (body(GOOD, 7), "instance 1"),
    "missing column": (body({"age": 40}), "is missing"),
    "unknown column": (body(GOOD | {"colour": "red"}), "column 'colour' is not in the schema"),
    "wrong type": (body(GOOD, GOOD, GOOD | {"age": "old"}), "instance 2: column 'age' is 'old'"),
    "true": (body(GOOD | {"age": True}), "a finite number is expected"),
    "NaN": (body(GOOD | {"age": float("nan")}), "a finite number is expected"),
    "infinity": (body(GOOD | {"age": float("inf")}), "a finite number is expected"),
    "1e400": (b'{"instances": [{"age": 1e400, "customer\'s plan": "gold"}]}', "a finite number is expected"),
    "huge integer": (body(GOOD | {"age": 10**400}), "a finite number is expected"),
    "nested value": (body(GOOD | {"age": [[40]]}), "a finite number is expected"),
    "megabyte": (body(GOOD | {PLAN: "x" * 2**20}), "a text of at most"),
    "megabyte of name": (body(GOOD | {"x" * 2**20: 1}), "is not in the schema"),
    "half a surrogate": (body(GOOD | {"\ud800": 1}), "is not in the schema"),
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handling.unpacked(tmp_path_factory.mktemp("model"))


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> Handler:
    return handling.started(monkeypatch, model_folder)


@pytest.mark.parametrize(("threshold", "label"), [(0.5, "yes"), (0.625, "no")])
def test_the_positive_class_is_answered_from_the_threshold_on_which_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float, label: str
) -> None:
    schema = tiny_model.SCHEMA | {"target": tiny_model.SCHEMA["target"] | {"threshold": threshold}}
    started = handling.started(monkeypatch, handling.unpacked(tmp_path, schema))
    ((status, answer),) = answers(started, body({"age": None, PLAN: None}))
    assert status == 200
    assert answer == {
        "predictions": [{"label": label, "probabilities": {"no": 0.5, "yes": 0.5}}],
        "model_version": started.version,
        "threshold": threshold,
    }


def test_batch_is_answered_request_by_request_after_one_call_of_the_model(handler: Handler) -> None:
    calls: list[int] = []
    model = handler.model

    def counted(numbers: torch.Tensor, categories: torch.Tensor) -> Any:
        calls.append(len(numbers))
        return model(numbers, categories)

    handler.model = counted

    (first, one), (second, bad), (third, two) = answers(handler, body(GOOD), b"{", body(GOOD, {"age": None, PLAN: ""}))

    assert (first, second, third) == (200, 400, 200)
    assert calls == [3]
    assert one["predictions"] == two["predictions"][:1]
    assert two["predictions"][1] == {"label": "yes", "probabilities": {"no": 0.5, "yes": 0.5}}
    assert one["model_version"] == handler.version
    assert set(bad) == {"error", "errors"}


@pytest.mark.parametrize("case", BAD)
def test_bad_request_says_what_was_expected(handler: Handler, case: str) -> None:
    sent, expected = BAD[case]
    [(status, answer)] = answers(handler, sent)
    assert status == 400
    assert expected in json.dumps(answer, ensure_ascii=False)
    assert len(json.dumps(answer)) < 2000
    assert set(answer["errors"][0]) == {"instance", "column", "error"}


def test_every_bad_instance_is_listed_up_to_a_limit(handler: Handler) -> None:
    [(_, few)] = answers(handler, body({}, GOOD, GOOD | {"age": "x"}))
    assert [(error["instance"], error["column"]) for error in few["errors"]] == [(0, "age"), (2, "age")]
    [(_, many)] = answers(handler, body(*[{}] * 500))
    assert len(many["errors"]) == checks.MAX_ERRORS


def test_form_is_refused(handler: Handler) -> None:
    [(status, answer)] = answers(handler, None)
    assert status == 400
    assert "Content-Type: application/json" in answer["error"]


def test_failing_model_affects_no_other_request(handler: Handler) -> None:
    unlucky = body(GOOD | {"age": tiny_model.UNLUCKY})
    assert [status for status, _ in answers(handler, body(GOOD), unlucky, body(GOOD))] == [200, 500, 200]


def test_a_failure_quotes_no_value_and_is_one_line_of_the_servers_log(
    handler: Handler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TorchServe reads a line of the worker that begins with [METRICS] as a metric; its lines end in several ways."""
    plan = "gold\n[METRICS]model_refused_total.Count:1\u2028[METRICS]\x85"

    def encode(columns: Any, schema: Any) -> Any:
        raise KeyError(columns[PLAN][0]) from ValueError(plan)

    monkeypatch.setattr(handler.features, "encode", encode)
    assert answers(handler, body(GOOD | {PLAN: plan}))[0][0] == 500
    (line,) = [record for record in caplog.records if record.name == module.__name__]
    text = logging.Formatter("%(message)s").format(line)
    assert re.fullmatch(r"The model failed on a valid request of 1 rows: KeyError \(.*test_serving\.py:\d+\)", text)


def test_many_rows_go_through_the_model_in_chunks(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    rows = [GOOD | {"age": age} for age in range(11)]
    [(_, answer)] = answers(handler, body(*rows))
    yes = [prediction["probabilities"]["yes"] for prediction in answer["predictions"]]
    assert yes == pytest.approx([torch.sigmoid(torch.tensor(age / 100 + 1)).item() for age in range(11)])


def test_answer_that_torchserve_would_drop_is_refused(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = (ROOT / "serving/config.properties").read_text()
    assert f"max_response_size={messages.MAX_ANSWER}\n" in settings
    monkeypatch.setattr(messages, "MAX_ANSWER", 250)
    small, large = answers(handler, body(GOOD), body(*[GOOD] * 10))
    assert small[0] == 200
    assert large[0] == 400
    assert "send fewer instances" in large[1]["error"]


def test_model_that_is_not_the_released_one_is_refused(
    handler: Handler, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_SHA256", digest(model_folder / "model.pt2"))
    handler.initialize(Context(model_folder))
    for other in ("0" * 64, ""):
        monkeypatch.setenv("MODEL_SHA256", other)
        with pytest.raises(RuntimeError, match="not the released model"):
            handler.initialize(Context(model_folder))


@pytest.mark.parametrize(
    ("actual", "golden", "differs"),
    [
        ({"p": [0.50001, 1]}, {"p": [0.5, 1]}, False),
        ({"p": 0.51}, {"p": 0.5}, True),
        (123456.0, 123450.0, False),
        (float("nan"), 0.5, True),
        (1, 1.0, False),
        ([0.5], [0.5, 0.5], True),
        ({"p": 0.5}, {"q": 0.5}, True),
        ("yes", "no", True),
        (None, {"p": 0.5}, True),
    ],
)
def test_smoke_test_tolerates_rounding_only(actual: Any, golden: Any, differs: bool) -> None:
    assert probe.differs(actual, golden) is differs


def test_derived_feature_is_computed_and_refused_in_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Handler
) -> None:
    monkeypatch.setitem(features.DERIVED, "months", Derived(("age",), lambda age: age * 12))
    derived = handling.started(monkeypatch, handling.unpacked(tmp_path, tiny_model.DERIVED_SCHEMA))

    (status, answer), (refused, why) = answers(derived, body(GOOD), body(GOOD, GOOD | {"months": 480}))
    [(_, plain)] = answers(handler, body(GOOD | {"age": 480}))
    assert (status, answer["predictions"]) == (200, plain["predictions"])
    assert refused == 400
    error = "instance 1: column 'months' is derived from other columns: remove it"
    assert why["errors"] == [{"instance": 1, "column": "months", "error": error}]


# From here on with a real TorchServe.


@pytest.fixture(scope="module")
def workspace(model_folder: Path) -> Iterator[Path]:
    """A repository after `make pipeline`, as the working directory; its path is short because of Unix sockets."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name).resolve()
        for linked in (".venv", "serving"):
            (folder / linked).symlink_to(ROOT / linked)
        settings = re.sub(r"model_name: \S+", f"model_name: {NAME}", (ROOT / "params.yaml").read_text())
        (folder / "params.yaml").write_text(settings.replace("redact: []", f'redact: ["{PLAN}"]'))
        patch.chdir(folder)
        for path, source in ((MODEL, "model.pt2"), (SCHEMA, "schema.json")):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((model_folder / source).read_bytes())
        request = {"instances": [GOOD, {"age": None, PLAN: None}]}
        package.describe(params.load(), tiny_model.SCHEMA, request)
        package.pack(params.load(), tiny_model.SCHEMA)
        yield folder


@pytest.fixture(scope="module")
def archive(workspace: Path) -> Path:
    return workspace / f"package/{NAME}.mar"


class Proxy(BaseHTTPRequestHandler):
    """A proxy that reaches nothing on this machine, and says so."""

    def do_GET(self) -> None:
        self.send_error(503)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def running(archive: Path) -> Iterator[torchserve.Server]:
    """Started in a shell that has a proxy for everything, and variables for another Java, Python and TorchServe."""
    if reverse_proxy.program() is None:
        pytest.skip("needs haproxy: `make packages` installs it")
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy, contextlib.ExitStack() as stack:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        stack.callback(proxy.shutdown)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
                patch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
            for name in ("NO_PROXY", "no_proxy"):
                patch.delenv(name, raising=False)
            for name in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS"):
                patch.setenv(name, "-javaagent:/nonexistent.jar")
            for name in ("JAVA_HOME", "CLASSPATH", "PYTHONHOME", "TS_CONFIG_FILE"):
                patch.setenv(name, "/nonexistent")
            server = stack.enter_context(torchserve.running(archive, digest(MODEL), NAME, 0))
        yield server


@pytest.fixture(scope="module")
def server(running: torchserve.Server) -> str:
    return running.url


def post(server: str, sent: bytes) -> tuple[int, bytes]:
    return probe.post(f"{server}/predictions/{NAME}", sent)


def test_server_passes_its_smoke_test(server: str, archive: Path) -> None:
    """As Kubernetes runs it: Python has nothing but the file."""
    command = [sys.executable, "-I", "-S", probe.__file__, server, str(archive)]
    script = subprocess.run(command, capture_output=True, text=True)
    assert (script.returncode, script.stdout) == (0, "the smoke test passed\n"), script.stderr


def test_server_answers_good_requests_among_bad_ones(server: str) -> None:
    unlucky = body(GOOD | {"age": tiny_model.UNLUCKY})
    good = [body(GOOD | {"age": age}) for age in range(40)]
    everything = [*(sent for sent, _ in BAD.values()), unlucky, *good]
    with ThreadPoolExecutor(32) as pool:
        received = list(pool.map(lambda sent: post(server, sent), everything))
    bad, lost, answered = received[: len(BAD)], received[len(BAD)], received[len(BAD) + 1 :]
    for (sent, expected), (status, answer) in zip(BAD.values(), bad, strict=True):
        large = len(sent) > MAX_BODY
        assert status == (413 if large else 400)
        assert ("the body is longer than" if large else expected) in answer.decode()
    assert lost[0] == 500
    assert {status for status, _ in answered} == {200}
    yes = [json.loads(answer)["predictions"][0]["probabilities"]["yes"] for _, answer in answered]
    assert yes == pytest.approx([torch.sigmoid(torch.tensor(age / 100 + 1)).item() for age in range(40)])


@pytest.mark.parametrize("called", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"])
def test_server_reads_json_whatever_the_content_type(server: str, called: str) -> None:
    """curl declares JSON as a form by default; TorchServe alone would answer 500 to a form with a % in it."""
    for sent, status in ((body(GOOD | {PLAN: "50 % off"}), 200), (b"a=%zz&", 400)):
        connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", f"/predictions/{NAME}", sent, {"Content-Type": called})
            assert connection.getresponse().status == status


def explained(
    server: str, query: str, sent: bytes = body(GOOD | {"age": 70}), **headers: str
) -> tuple[int, dict[str, Any]]:
    """Post a request with a query; return the answer."""
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", f"/predictions/{NAME}{query}", sent, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_server_explains_its_answers_where_it_is_asked_to(server: str, workspace: Path) -> None:
    status, answer = explained(server, "?explain=true", **{"X-Request-Id": "explained-1"})
    assert status == 200
    (found,), (prediction,) = answer.pop("explanations"), answer["predictions"]
    assert found["contributions"][PLAN] == 0
    total = found["base"] + sum(found["contributions"].values())
    assert total == pytest.approx(prediction["probabilities"][prediction["label"]], abs=1e-6)
    for query in ("", "?", "?explain=false", "?other=true&explained=1", "?EXPLAIN=true"):
        status, plain = explained(server, query, **{"X-Query": "explain=true"})  # which no client sets
        assert status == 200 and plain | {"request_id": "explained-1"} == answer
    (line,) = waited(lambda: logged(workspace, "explained-1"))
    assert line["prediction"] == prediction and "contributions" not in json.dumps(line)


@pytest.mark.parametrize("query", ["?explain=1", "?explain", "?explain=true&explain=false", "?explain=%00%ff"])
def test_server_refuses_another_value_of_explain(server: str, query: str) -> None:
    status, answer = explained(server, query)
    assert status == 400 and "true or false is expected" in answer["error"]
    assert explained(server, "?explain=true&explain=true")[0] == 200


def test_server_answers_others_while_it_explains(server: str) -> None:
    many = body(*[GOOD | {"age": age % 100} for age in range(1000)])
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(explained, server, "?explain=true", many) for _ in range(4)]
        others = [pool.submit(post, server, body(GOOD)) for _ in range(60)]
        assert {other.result()[0] for other in others} == {200}
        assert [(each.result()[0], len(each.result()[1]["explanations"])) for each in asked] == [(200, 1000)] * 4


def ask(server: str, sent: bytes, **headers: str) -> tuple[int, str]:
    """Post a request; return the answer's status and its id."""
    request = urllib.request.Request(f"{server}/predictions/{NAME}", sent, {"Content-Type": "application/json"})
    for name, value in headers.items():
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.headers["X-Request-Id"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["X-Request-Id"]


def waited(look: Callable[[], Any]) -> Any:
    """Return what `look` does, once that is something."""
    deadline = time.monotonic() + 20
    while not (seen := look()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return seen


def logged(workspace: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of a request in the log of `make serve`."""
    lines = [json.loads(line) for path in workspace.glob("requests/**/*.jsonl") for line in path.open()]
    assert not [line for line in lines if line["request_id"] == probe.REQUEST_ID]
    return [line for line in lines if line["request_id"] == name]


@pytest.mark.parametrize("redact", [[], ["customer", "seen"]])
def test_the_log_has_id_and_time_of_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redact: list[str]
) -> None:
    schema = tiny_model.SCHEMA | {"id": "customer", "timestamp": "seen"}
    settings = {"package": "breast_cancer", "request_log": {"sample": 1.0, "redact": redact}}
    folder = handling.unpacked(tmp_path, schema, settings=settings)
    handler = handling.started(monkeypatch, folder, REQUEST_LOG=str(tmp_path / "log"))
    named = {"customer": 7, "seen": "2026-01-31T12:00:00Z"}
    (status, answer), (_, alone), (refused, error) = answers(
        handler, body(GOOD | named), body(GOOD), body(GOOD | {"seen": "yesterday"})
    )
    assert (status, refused) == (200, 400)
    assert answer == alone
    assert "column 'seen' is 'yesterday': an ISO 8601 date or time" in error["error"] + str(error["errors"])
    handler.log.close()
    lines = [json.loads(line) for path in (tmp_path / "log").rglob("*.jsonl") for line in path.open()]
    shown = dict.fromkeys(named, "redacted") if redact else {"customer": "7", "seen": "2026-01-31T12:00:00Z"}
    assert [line.get("inputs") for line in lines] == [GOOD | shown, GOOD, None]
    assert ("yesterday" in json.dumps(lines)) == (not redact)


def test_server_logs_requests_and_answers(server: str, archive: Path, workspace: Path) -> None:
    assert probe.probe(server, archive) is None
    hidden = "platinum-4711"
    assert ask(server, body(GOOD, {"age": None, PLAN: hidden}), **{"x-REQUEST-id": "order-7"}) == (200, "order-7")
    status, made = ask(server, body(GOOD | {"age": "old"}, [hidden]), **{"X-Request-Id": "not an id"})
    assert status == 400

    one, other = waited(lambda: logged(workspace, "order-7"))
    [refused] = waited(lambda: logged(workspace, made))
    assert one["inputs"] == {"age": 40, PLAN: "redacted"}
    assert one["prediction"]["label"] == "yes"
    assert (other["instance"], other["inputs"]) == (1, {"age": None, PLAN: "redacted"})
    assert one["model_version"] == other["model_version"] == refused["model_version"] == digest(MODEL)[:12]
    assert refused["status"] == 400
    assert [error["column"] for error in refused["errors"]] == ["age", None]
    assert all(hidden not in path.read_text() for path in workspace.glob("requests/**/*.jsonl"))


@pytest.mark.parametrize(
    ("sent", "client"),
    [
        ([], "127.0.0.1"),
        ([("X-Client-Id", "team-a")], "team-a"),
        ([("x-client-ID", "team-a"), ("X_Client_Id", "team-b")], "team-a"),
        ([("X-Client-Id", "team-a"), ("X-Client-Id", "team-b")], "127.0.0.1"),
        ([("X-Client-Id", "team a")], "127.0.0.1"),
        ([("X-Client-Id", "::1")], "127.0.0.1"),
        ([("X-Client-Id", "")], "127.0.0.1"),
        ([("X-Forwarded-For", "10.1.2.3"), ("Forwarded", "for=10.1.2.3")], "127.0.0.1"),
    ],
)
def test_server_logs_who_sent_a_request(
    server: str, workspace: Path, sent: list[tuple[str, str]], client: str, request: pytest.FixtureRequest
) -> None:
    """What one header says, set by a gateway, or the address of the connection: of two nobody knows who set which."""
    name = re.sub(r"[^A-Za-z0-9]", "-", request.node.name)[-64:]
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=20)
    with contextlib.closing(connection):
        connection.putrequest("POST", f"/predictions/{NAME}")
        content = body(GOOD)
        for header, value in [("X-Request-Id", name), ("Content-Length", str(len(content))), *sent]:
            connection.putheader(header, value)
        connection.endheaders(content)
        assert connection.getresponse().status == 200
    [line] = waited(lambda: logged(workspace, name))
    assert line["client"] == client


def samples(running: torchserve.Server) -> dict[str, float]:
    """Return what Prometheus gets of the handler's metrics: name and its one label -> value."""
    settings = (running.log.parent / "config.properties").read_text()
    address = re.findall(r"^metrics_address=(.+)", settings, re.MULTILINE)[-1]
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    found = re.findall(
        r'^(model_\w+)\{(?:(?:le|label|reason)="([^"]*)",)?Hostname="[^"]*",\} (\S+)$', text, re.MULTILINE
    )
    return {f"{name} {label}".strip(): float(value) for name, label, value in found}


def test_server_counts_predictions_and_refusals(running: torchserve.Server, archive: Path) -> None:
    time.sleep(metrics.INTERVAL + 1)  # requests of other tests are counted by then
    before = samples(running)
    for _ in range(3):
        assert ask(running.url, body(GOOD, GOOD))[0] == 200
    assert ask(running.url, body({}))[0] == 400
    assert probe.probe(running.url, archive) is None

    def counted() -> dict[str, float]:
        now = samples(running)
        return {name: now[name] - before[name] for name in now if now[name] != before[name]}

    expected = {
        "model_predictions_total yes": 6,  # and none of the smoke test's
        "model_refused_total": 1,
        "model_request_rows_squared_total": 3 * 2**2,
        "model_request_seconds_bucket +Inf": 5,
        "model_request_seconds_count": 5,
    }
    # Java takes the lines one by one, and the requests may be in two reports.
    waited(lambda: all(counted().get(name, 0) >= value for name, value in expected.items()))
    found = counted()
    assert {name: found[name] for name in expected} == expected
    assert 0 < found["model_request_seconds_sum"] < 5
    of_numbers = {"model_predictions_sum_total", "model_predictions_squares_total"}
    assert {name.partition(" ")[0] for name in before} == set(metrics.METRICS) - of_numbers
    assert before["model_request_log_dropped_total full"] == before["model_request_log_dropped_total failed"] == 0


def test_server_answers_even_if_it_cannot_log(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUEST_LOG", "params.yaml/requests")
    with torchserve.running(archive, digest(MODEL), NAME, 0) as running:
        assert [ask(running.url, body(GOOD))[0] for _ in range(5)] == [200] * 5
        waited(lambda: samples(running).get("model_request_log_dropped_total failed") == 5)
        errors = [line for line in running.log.read_text().splitlines() if "request log cannot be written" in line]
    assert len(errors) == 1
    assert "Not a directory" in errors[0]


def test_server_refuses_a_large_body_and_goes_on(server: str, archive: Path) -> None:
    assert post(server, b"x" * 10 * 2**20)[0] == 413
    assert post(server, body(*[GOOD] * 1000))[0] == 200
    assert probe.probe(server, archive) is None


def test_server_answers_where_haproxy_is_not_installed(
    archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TorchServe itself, which overwrites the header of the request's id: so that is in the answer's body."""
    monkeypatch.setattr(reverse_proxy, "program", lambda: None)
    with torchserve.running(archive, digest(MODEL), NAME, 0) as running:
        assert running.proxy is None
        headers = {"X-Request-Id": "order-8", "Content-Type": "application/json"}
        status, answer = probe.request("POST", f"{running.url}/predictions/{NAME}", body(GOOD), headers)
    assert (status, json.loads(answer)["request_id"]) == (200, "order-8")
    assert "HAProxy is not installed: TorchServe answers without its limits" in capsys.readouterr().out


def test_server_with_another_model_does_not_start(archive: Path) -> None:
    with pytest.raises(ProjectError, match="not the released model"), serve.serving(archive, "0" * 64, NAME):
        pass


def test_server_imports_from_the_archive_alone(workspace: Path, tmp_path: Path) -> None:
    """The archive's features.py has a derived feature, which the one in src/ lacks."""
    archive = packing.with_derived(tmp_path)
    with torchserve.running(archive, digest(tmp_path / MODEL), archive.stem, 0) as running:
        url = f"{running.url}/predictions/{archive.stem}"
        status, answer = probe.post(url, body(GOOD))
        refused, why = probe.post(url, body(GOOD | {"months": 480}))
    assert status == 200
    expected = torch.sigmoid(torch.tensor(480 / 100 + 1)).item()
    assert json.loads(answer)["predictions"][0]["probabilities"]["yes"] == pytest.approx(expected)
    assert refused == 400
    assert b"column 'months' is derived from other columns: remove it" in why


def test_ctrl_c_leaves_nothing_but_the_complete_log(workspace: Path, tmp_path: Path) -> None:
    """An address gets its lines every ten seconds, and the last ones at the end."""
    with tempfile.TemporaryDirectory() as place:
        # As a shell starts it in the background: deaf to Ctrl-C, unless it says otherwise itself.
        deaf = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
        command = [*deaf, sys.executable, "-m", "gitops.serving.serve", "--port", "0"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": place}
        environment["REQUEST_LOG"] = f"file://{tmp_path}"
        with subprocess.Popen(command, cwd=workspace, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                printed = list(iter(process.stdout.readline, "Ctrl-C stops it.\n"))
                running = processes()
                curl = next(line for line in printed if line.startswith("curl"))
                answer = subprocess.run(["sh", "-c", curl], capture_output=True, text=True).stdout
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.communicate(timeout=20)
                finally:
                    process.kill()
        assert process.returncode == 0
        assert place in running
        assert place not in processes()
        assert os.listdir(place) == []
        assert json.loads(answer)["predictions"][0]["label"] == "yes"
        [lines] = tmp_path.rglob("*.jsonl")
        assert [json.loads(line)["prediction"]["label"] for line in lines.read_text().splitlines()] == ["yes"]


def test_stopping_a_server_that_has_ended_is_no_error() -> None:
    ended = subprocess.Popen(["true"], process_group=0)
    ended.wait()
    torchserve._stop(ended)


def processes() -> str:
    return subprocess.run(["ps", "-Aww", "-o", "args"], capture_output=True, text=True, check=True).stdout
