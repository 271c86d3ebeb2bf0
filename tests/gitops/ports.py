"""Ports for the servers that the tests start, of which no two tests get the same and no connection takes one."""

from __future__ import annotations

import random
import socket

#: Below the ports that Linux and macOS give to connections, and those that Kubernetes gives to Services.
RANGE = range(20000, 30000)

#: TCP and UDP have ports of their own: a port is reserved by the UDP socket of its number. Other workers ask for it
#: too, it goes with the process, and beside it a server may bind the TCP port.
_reserved: list[socket.socket] = []


def free_ports(count: int) -> list[int]:
    """Return ports on which nothing listens, and which no other process is given while this one lives.

    Raises AssertionError where there are not enough.
    """
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        if len(found) == count:
            return found
        reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
            with socket.socket() as server:
                server.bind(("", port))
        except OSError:
            reservation.close()
            continue
        _reserved.append(reservation)
        found.append(port)
    assert len(found) == count, f"only {len(found)} ports of {RANGE} are free"
    return found


def free_port() -> int:
    return free_ports(1)[0]
