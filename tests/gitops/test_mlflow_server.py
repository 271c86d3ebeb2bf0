"""What is said of an MLflow server that cannot be used: one line, within seconds, without its password."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import SETTINGS
from gitops.core import params
from gitops.core.artifacts import ProjectError
from gitops.integrations import mlflow_run, mlflow_server, tracking

Answer = tuple[int, str, str]

JSON: Answer = (200, "application/json", '{"experiments": []}')
LOGIN: Answer = (200, "text/html; charset=utf-8", "<html>Sign in</html>")


@contextmanager
def server(*answers: Answer) -> Iterator[str]:
    """Yield the address of a server that gives these answers, the last one again and again."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"me:hidden@127.0.0.1:{served.server_port}"
        served.shutdown()


@contextmanager
def listening(backlog: int) -> Iterator[str]:
    """Yield the address of a socket that takes connections and never answers, or with no `backlog` of a closed port."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if backlog:
            held.listen(backlog)
        yield f"me:hidden@127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def name(host: str) -> Iterator[str]:
    yield f"me:hidden@{host}"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(mlflow_server, "PAUSE", 0.1)
    for variable in ("USERNAME", "PASSWORD", "TOKEN", "AUTH", "AWS_SIGV4"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{variable}", raising=False)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("scheme", "opened", "why"),
    [
        ("http", lambda: listening(0), r"cannot be reached \(connection refused\)"),
        ("http", lambda: listening(8), "does not answer within 1 seconds"),
        ("http", lambda: name("mlflow.invalid:5000"), "cannot be reached"),
        ("http", lambda: name("127.0.0.1:port"), "Port could not be cast"),
        ("http", lambda: server((401, "text/html", "no")), "refuses the user, with status 401 .*TRACKING_USERNAME"),
        ("http", lambda: server((403, "application/json", "{}")), "refuses the user, with status 403"),
        ("http", lambda: server((500, "text/html", "oh")), "answers with status 500"),
        ("http", lambda: server(LOGIN), "answers with a page for people"),
        ("http", lambda: server((404, "text/html", "nothing")), "answers with a page for people"),
        ("postgresql", lambda: listening(0), "cannot be used .*refused"),
        ("postgresql", lambda: listening(8), "cannot be used"),
        ("mysql", lambda: listening(8), "cannot be used .*MySQLdb"),
    ],
)
def test_a_server_that_cannot_be_used_is_one_line(
    scheme: str, opened: Callable[[], Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_server, "TIMEOUT", 1)
    begun = time.monotonic()
    with opened() as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{scheme}://{address}")
        with pytest.raises(ProjectError, match=why) as error:
            tracking.load()
    line = str(error.value)
    assert "MLFLOW_TRACKING_URI" in line and address.partition("@")[2] in line
    assert "\n" not in line and "hidden" not in line
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("answers", "variables"),
    [
        ([JSON], {}),
        ([(503, "text/html", "starting"), JSON], {}),  # a server that is being replaced
        ([(401, "text/html", "no")], {"MLFLOW_TRACKING_AUTH": "a plugin"}),  # which only MLflow's client asks
    ],
)
def test_a_server_that_may_be_used_is_left_to_mlflow(
    answers: list[Answer], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with server(*answers) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
        assert mlflow_server.problem() is None


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow would try to open it for half an hour."""
    Path("file").touch()
    for path, right in (("file/mlflow.db", "no folder"), (".", "no file")):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{path}")
        with pytest.raises(ProjectError, match=f"MLFLOW_TRACKING_URI.*cannot be written.*{right}"):
            tracking.load()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/new/folder/mlflow.db")
    assert mlflow_server.problem() is None


def test_an_address_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mlflow.example.com:5000")  # http:// is missing
    with pytest.raises(ProjectError, match=r"MLflow at mlflow\.example\.com:5000 \(MLFLOW_TRACKING_URI\)"):
        tracking.connect(settings())


def settings() -> params.Params:
    import breast_cancer.settings

    return breast_cancer.settings.Settings.model_validate(SETTINGS)


def test_the_check_costs_sqlite_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    program = "import sys\nfrom gitops.integrations import mlflow_server\nassert mlflow_server.problem() is None\n"
    program += "assert not {'mlflow', 'requests', 'sqlalchemy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_password_in_the_address_goes_to_mlflow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow prints the address of a run, and model/run.json, which DVC shares, holds it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me%40here:hid%2Fden@host:5000/path")
    for variable in ("USERNAME", "PASSWORD"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{variable}", "")
    monkeypatch.setattr(mlflow_server, "_no_server", lambda: None)
    mlflow = tracking.load()
    assert mlflow.get_tracking_uri() == "https://host:5000/path"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("me@here", "hid/den")
    assert mlflow_run.Run(mlflow, "1", "one").address()["tracking_uri"] == "https://host:5000/path"


def test_a_users_own_patience_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "")  # so that it is as before, after the test
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    mlflow_server.bound_waiting()
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9" and os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "30"
