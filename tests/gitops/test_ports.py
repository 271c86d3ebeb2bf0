"""Ports that tests give to servers: nobody else gets them between their choice and the server's start."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import ports
import pytest

#: A process that takes ten ports, and keeps them until its input ends.
OTHER = """
import sys, ports
ports.RANGE = range(*map(int, sys.argv[1:]))
print(*ports.free_ports(10), flush=True)
sys.stdin.read()
"""


def other(*limits: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OTHER, *map(str, limits)]
    return subprocess.Popen(
        command, cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_no_two_processes_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of forty ports four get ten each, whatever their order; then there is none, until one of them ends."""
    first = ports.free_ports(1)[0]
    limits = (first + 1, first + 61)
    monkeypatch.setattr(ports, "RANGE", range(*limits))
    processes = [other(*limits) for _ in range(4)]
    found = [[int(port) for port in process.stdout.readline().split()] for process in processes if process.stdout]
    taken = {port for each in found for port in each}
    assert len(taken) == 40
    monkeypatch.setattr(ports, "RANGE", sorted(taken))
    with pytest.raises(AssertionError, match="only 0 ports"):
        ports.free_ports(1)
    processes[0].communicate("")
    assert ports.free_port() in found[0]
    for process in processes[1:]:
        process.communicate("")


def test_a_server_can_bind_it_and_one_that_does_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    port = ports.free_port()
    ports._reserved.pop().close()
    monkeypatch.setattr(ports, "RANGE", [port])
    for address in ("127.0.0.1", ""):
        with socket.create_server((address, port)), pytest.raises(AssertionError, match="only 0 ports"):
            ports.free_port()
    assert ports.free_port() == port
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_connection_takes_one() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports.RANGE) < lowest
