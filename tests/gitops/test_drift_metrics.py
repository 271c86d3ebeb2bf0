"""The pod that serves the monitor's metrics: what it takes, what it answers, and how it ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from gitops.monitoring import report
from gitops.serving.server import drift_metrics
from gitops.serving.server.drift_metrics import Reader, checked

CONTEXT = {"model": 'a "model"\n', "model_version": "aaaaaaaaaaaa"}
RESULT: dict[str, Any] = {
    "status": "drift",
    "rows": 100,
    "refused": 3,
    "checks": [
        {"check": "feature drift", "column": 'back\\slash "ü"\n', "value": 1e-05, "passed": False},
        {"check": "missing values", "column": "income", "value": 0.25, "passed": True},
    ],
    "performance": {"metric": "roc_auc", "value": 0.9},
    "value": {"unit": 'EUR "x"\\', "rows": 100, "promised": None, "today": None}
    | {"model": {"value": -1234567.25, "low": -1e15, "high": 0.0}},
}
WRITTEN = report.metrics(RESULT, CONTEXT, datetime.now(UTC))

UNREADABLE = "model_monitor_readable 0\n"


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """A reader of the file that the monitor has written to tmp_path."""
    (tmp_path / "monitor.prom").write_text(WRITTEN)
    return Reader(f"file://{tmp_path}")


def names(text: str) -> set[str]:
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def test_what_the_monitor_writes_is_served_as_it_is() -> None:
    """All its metrics, and no other is known."""
    assert checked(WRITTEN.encode()) == WRITTEN
    assert names(WRITTEN) == {*drift_metrics.KNOWN}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"model_monitor_rows 1", "does not end in a newline"),
        (b"model_monitor_rows 1\n\n", "line 2 "),
        (b'model_monitor_rows 1\nup{job="other"} 1\n', "line 2 "),
        (b"# TYPE up gauge\n", "line 1 "),
        (b"# TYPE model_monitor_rows histogram\n", "line 1 "),
        (b"model_monitor_rows_more 1\n", "line 1 "),
        (b"model_monitor_rows 1 1700000000\n", "line 1 "),  # a time of its own: Prometheus would take the past
        (b"model_monitor_rows secret\n", "line 1 "),
        (b"model_monitor_rows NaN\n", "line 1 "),
        (b'model_monitor_rows{model="a"b"} 1\n', "line 1 "),
        (b'model_monitor_rows{model="a\\x"} 1\n', "line 1 "),
        (b'model_monitor_rows{model="' + 1001 * b"a" + b'"} 1\n', "line 1 "),
        (b"model_monitor_rows \xff\n", "not UTF-8"),
        (b"model_monitor_rows 1\r\n", "line 1 "),
        (b"", "does not end in a newline"),
        ((drift_metrics.FILE_BYTES + 1) * b"\n", "more than"),
    ],
)
def test_anything_else_is_refused_and_not_quoted(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as raised:
        checked(content)
    assert "secret" not in str(raised.value) and "other" not in str(raised.value)


def test_samples_are_served_while_they_can_be_read(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error takes them away, is told once in the log, and the next success brings them back."""
    caplog.set_level(logging.INFO)
    assert reader.metrics().endswith(UNREADABLE)
    reader.update()
    assert reader.metrics().startswith(WRITTEN) and reader.metrics().endswith("model_monitor_readable 1\n")
    assert not caplog.records
    (tmp_path / "monitor.prom").write_text("no metrics\n")
    reader.update()
    reader.update()
    assert reader.metrics().endswith(UNREADABLE) and "model_monitor_status" not in reader.metrics()
    [record] = caplog.records
    assert f"REQUEST_LOG is 'file://{tmp_path}'" in record.message and "line 1 is no sample" in record.message
    (tmp_path / "monitor.prom").unlink()
    reader.update()
    assert "FileNotFoundError" in caplog.messages[-1]
    (tmp_path / "monitor.prom").write_text(WRITTEN)
    reader.update()
    assert reader.metrics().startswith(WRITTEN)
    monkeypatch.setattr(drift_metrics, "EXPIRY", -1.0)  # a read that has not ended since
    assert reader.metrics().endswith(UNREADABLE)


@pytest.mark.parametrize("address", ["", "/logs/requests"])
def test_a_folder_of_another_pod_is_no_address(address: str, caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader(address)
    reader.update()
    assert "components/request-log sets it" in caplog.text
    assert reader.metrics().endswith(UNREADABLE)


def test_no_more_is_read_than_is_served(reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (tmp_path / "monitor.prom").open("wb") as file:
        file.truncate(10 * 2**30)  # a hole: it takes no place
    assert len(drift_metrics.read(reader.address)) == drift_metrics.FILE_BYTES + 1
    reader.update()
    assert "more than 1048576 bytes" in caplog.text


@contextmanager
def served(address: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the module as the pod does, on a free port, and yield where it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"REQUEST_LOG": address, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", drift_metrics.__name__, str(port)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while ask(f"http://127.0.0.1:{port}/health")[0] != 200:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.kill()
        process.wait()


def ask(url: str) -> tuple[int, str]:
    """Return status and text of an answer; the status is 0 where nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_it_answers_prometheus_and_ends_when_asked(reader: Reader) -> None:
    with served(reader.address) as (url, process):
        deadline = time.monotonic() + 30
        while not ask(f"{url}/metrics")[1].startswith(WRITTEN):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ask(f"{url}/metrics?x=1")[0] == ask(f"{url}/monitor-state.json")[0] == 404
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):  # says nothing, and stops nobody
            assert ask(f"{url}/health") == (200, "ok\n")
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        assert process.stderr and process.stderr.read() == ""


def test_it_starts_without_a_log_and_says_what_is_missing(tmp_path: Path) -> None:
    with served(f"nowhere://{tmp_path}") as (url, process):
        assert process.stderr and "monitor.prom beside the request log" in process.stderr.readline()
        assert ask(f"{url}/metrics")[1].endswith(UNREADABLE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_read_that_never_ends_is_told_to_the_kubelet(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not reader.stuck()
    monkeypatch.setattr(drift_metrics, "STUCK", -1.0)
    assert reader.stuck()
