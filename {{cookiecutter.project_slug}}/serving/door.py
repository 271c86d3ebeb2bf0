"""A door in front of a server: it passes bytes on, and closes without losing a request.

While it is closing, no new connection gets in, and each answer says `connection: close`, so that clients that keep
their connections take their next request elsewhere. It reads two headers of HTTP and no more: this one, and the content
type of a request, because TorchServe answers 500 to what calls itself a form and is none. curl calls JSON a form unless
told. (A client that sends the name of this header in two pieces still gets that 500, and harms no one else.)
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import cast

#: Seconds for what is being answered, and for clients that keep a connection, once the door is closing.
PATIENCE = 5.0

#: The server's header, and what takes its place: as long, so that no length changes.
KEEP = b"\r\nconnection: keep-alive\r\n"
CLOSE = b"\r\nconnection: close     \r\n"

#: What makes TorchServe take a body apart. No JSON contains it, because texts in JSON hold no line break.
FORM = re.compile(rb"(?i)\r\ncontent-type:[^\r\n]*(?:multipart/|form-urlencoded)[^\r\n]*(?=\r\n)")
JSON = b"\r\nContent-Type: application/json"

#: Seconds between two looks whether the server listens yet.
PAUSE = 0.05


class Side(asyncio.Protocol):
    """One of the two ends of a connection; what arrives here leaves at the other."""

    transport: asyncio.Transport
    other: Side | None = None

    def __init__(self, closing: asyncio.Event) -> None:
        self.closing = closing
        self.early = b""  # what came before there was another end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


class Inner(Side):
    """The end at the server."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data.replace(KEEP, CLOSE) if self.closing.is_set() else data)


class Outer(Side):
    """The end at the client."""

    def __init__(self, closing: asyncio.Event, inside: int, clients: set[Outer]) -> None:
        super().__init__(closing)
        self.inside, self.clients = inside, clients

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.clients.add(self)
        self.transport.pause_reading()
        self.joining = asyncio.get_running_loop().create_task(self._join())

    def data_received(self, data: bytes) -> None:
        super().data_received(FORM.sub(JSON, data))

    async def _join(self) -> None:
        try:
            _, inner = await asyncio.get_running_loop().create_connection(
                lambda: Inner(self.closing), "127.0.0.1", self.inside
            )
        except OSError:
            self.transport.abort()
            return
        inner.other, self.other = self, inner
        inner.transport.write(self.early)
        if self.transport.is_closing():
            inner.transport.close()
        else:
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.clients.discard(self)


async def serve(host: str, port: int, inside: int, closing: asyncio.Event) -> None:
    """Listen once the server does, on port `inside` of 127.0.0.1; return after `closing`, when all is answered.

    Raises OSError where the port is in use.
    """
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", inside)
            writer.close()
            break
        if closing.is_set():
            return
        await asyncio.sleep(PAUSE)
    loop, clients = asyncio.get_running_loop(), set[Outer]()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=1024)
    server = await loop.create_server(lambda: Outer(closing, inside, clients), sock=listener)
    await closing.wait()
    late = _waiting(listener)
    server.close()
    for connection in late:
        await loop.connect_accepted_socket(lambda: Outer(closing, inside, clients), connection)
    deadline = loop.time() + PATIENCE
    while clients and loop.time() < deadline:
        await asyncio.sleep(PAUSE)


def _waiting(listener: socket.socket) -> list[socket.socket]:
    """Return the connections that the kernel has accepted and no one has taken: closing the listener would cut them."""
    listener.setblocking(False)
    waiting = []
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            waiting.append(connection)
    return waiting
