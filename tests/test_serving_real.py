"""The server of a trained project, started as its image starts it: readiness, faults and stops."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from servers import NAME, OUTSIDE, repacked, started

pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and 127.0.0.2")]


def test_only_a_loaded_model_is_ready_and_a_killed_worker_comes_back(trained: Path, tmp_path: Path) -> None:
    """/ping answers while the model loads; the probes do not, also not after the worker was killed."""
    handler = (trained / "src/gitops/serving/server/handler.py").read_text()
    slow = handler.replace("        self.model = ", "        import time\n        time.sleep(6)\n        self.model = ")
    assert slow != handler
    archive = repacked(trained, tmp_path / "slow.mar", handler=slow)
    with started(trained, tmp_path / "home", archive=archive) as container:
        container.wait(container.alive, 60)
        assert container.probe() != 0 and container.proxy is None
        container.wait(lambda: container.probe() == 0, 60)
        first = container.worker()
        os.kill(first, signal.SIGKILL)
        assert container.probe() != 0
        container.wait(lambda: container.probe() == 0, 60)
        assert container.worker() not in (0, first)


def test_broken_handler_never_becomes_ready_and_fails_liveness(trained: Path, tmp_path: Path) -> None:
    archive = repacked(trained, tmp_path / "broken.mar", handler="raise RuntimeError('broken')\n")
    with started(trained, tmp_path / "home", archive=archive) as container:
        probes: list[int] = []

        def unhealthy() -> bool:
            probes.append(container.probe())
            return container.worker() == 0 and not container.alive()

        container.wait(container.alive, 60)
        assert container.wait(unhealthy, 60) < 60
        assert 0 not in probes
        time.sleep(5)
        assert not container.alive()


def test_another_model_does_not_start(trained: Path, tmp_path: Path) -> None:
    with started(trained, tmp_path / "home", MODEL_SHA256="0" * 64) as container:
        container.wait(container.alive, 60)
        container.wait(lambda: not container.alive(), 60)
        assert container.probe() != 0
        assert "not the released model" in (container.folder / "log").read_text()


@pytest.mark.root  # Ubuntu lets nobody else mount in a user namespace
def test_nothing_is_written_outside_the_declared_folders(trained: Path, tmp_path: Path) -> None:
    """Every file system but /tmp and /logs is read-only, as in the cluster."""
    folder = tmp_path / "home"
    read_only = (
        f'cd "{folder}"; for kept in tmp logs; do mount --bind "$kept" "$kept" || exit 99; done; '
        "while read -r _ place kind _; do case $place in "
        f'{folder}/*|/proc*|/sys*|/dev*) ;; *) mount -o remount,bind,ro "$place" || exit 99 ;; esac; '
        'done < /proc/self/mounts; cd "$PWD" && ! touch "$PWD/x" 2>/dev/null || exit 98; exec "$@"'
    )
    isolated = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare with user namespaces")
    with started(trained, folder, *isolated, "sh", "-c", read_only, "sh") as container:
        container.wait(lambda: container.process.poll() is not None or container.probe() == 0, 60)
        assert container.process.poll() is None, (folder / "log").read_text()
        assert container.stop() == [0, 0]


def test_sigterm_under_load_loses_no_accepted_request(trained: Path, tmp_path: Path) -> None:
    """Clients that keep their connections, and clients that open one for each request."""
    with started(trained, tmp_path / "home") as container:
        container.wait(lambda: container.probe() == 0, 60)
        stopping, lost, answered = threading.Event(), list[str](), Counter[str]()
        golden = (trained / "package/golden_request.json").read_bytes()

        def client(keeps: bool) -> None:
            while True:
                connection = http.client.HTTPConnection(OUTSIDE, container.ports[0], timeout=20)
                try:
                    connection.connect()
                except OSError:
                    return
                late = stopping.is_set()  # may not have been accepted
                try:
                    while True:
                        connection.request("POST", f"/predictions/{NAME}", golden, {"Content-Type": "application/json"})
                        response = connection.getresponse()
                        response.read()
                        answered[f"{response.status} {'after' if stopping.is_set() else 'before'}"] += 1
                        if not keeps or response.getheader("Connection", "").strip() == "close":
                            break
                except (OSError, http.client.HTTPException) as error:
                    if not late:
                        lost.append(repr(error))
                finally:
                    connection.close()

        clients = [threading.Thread(target=client, args=(number % 2 == 0,)) for number in range(16)]
        for thread in clients:
            thread.start()
        container.wait(lambda: answered["200 before"] >= 200 or lost, 60)
        stopping.set()
        begin = time.monotonic()
        assert container.stop() == [0, 0]
        assert time.monotonic() - begin < 15
        for thread in clients:
            thread.join()
        assert lost == []
        assert answered.keys() == {"200 before", "200 after"}
        container.wait(lambda: container.worker() == 0, 5)


def test_idle_connections_do_not_hold_a_stop_up(trained: Path, tmp_path: Path) -> None:
    with started(trained, tmp_path / "home") as container:
        container.wait(lambda: container.probe() == 0, 60)
        with socket.create_connection((OUTSIDE, container.ports[0])):
            assert container.stop() == [0, 0]
