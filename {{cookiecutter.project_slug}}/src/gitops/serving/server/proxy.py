"""Buffering reverse proxy for TorchServe: it forwards a request once it has all of it, and returns the answer.

TorchServe closes a connection after each answer that is an error. If the client is still sending, the kernel then
resets the connection, and the client may never read the answer. It cuts all connections when it stops, and answers 500
to a body that is declared as a form but is not one; curl declares JSON as a form by default. The proxy hides all three:

- It refuses invalid HTTP and large bodies itself, and then goes on reading for a while before it closes the connection,
  so that the client receives the reason. TorchServe sees whole requests only, all declared as JSON, on connections from
  the proxy's own pool.
- While it drains, each answer says `Connection: close`, so that clients send their next request to another server.

Each request gets an id, the client's `X-Request-Id` or a new one: the handler sees it and the answer carries it.
(TorchServe would put another into the answer.) The handler also sees who sent it, as `X-Client-Id`: what a gateway
says there, or else the address of the connection; and, as `X-Explain`, whether the query asks for explanations, since
TorchServe passes no query on. HTTP is parsed by h11: https://h11.readthedocs.io
"""

from __future__ import annotations

import asyncio
import re
import uuid
from typing import cast

import h11

from gitops.serving.server import limits
from gitops.serving.server.limits import Refusal
from gitops.serving.server.upstream import CHUNK, Upstream, content_length

#: Seconds for a request to arrive in full, counted from its first byte, and for the client to take the answer.
TRANSFER_TIMEOUT = 60.0

#: Seconds of reading on after a refusal.
LINGER_TIMEOUT = 3.0

#: Seconds of draining after which idle connections are closed, and after which all are.
DRAIN_IDLE_TIMEOUT, DRAIN_TIMEOUT = 3.0, 5.5

#: Seconds between two looks at a condition.
POLL_INTERVAL = 0.05

#: A valid id of a request or a client.
ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")

#: Headers that concern one connection, or that the proxy sets itself: they are not forwarded.
NOT_FORWARDED = {
    *(
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
    ),
    *(b"content-length", b"host", b"x-request-id", b"x-client-id", b"x-explain"),
}


class ReverseProxy:
    """Forwards requests with a body of at most `max_body` bytes to `upstream`."""

    def __init__(self, upstream: Upstream, max_body: int) -> None:
        self.upstream, self.max_body = upstream, max_body
        self.draining = asyncio.Event()  # once set, each answer is the last on its connection
        self.clients: set[asyncio.Task[None]] = set()
        self.idle: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}  # clients between two requests

    def protocol(self) -> asyncio.StreamReaderProtocol:
        """Return what the event loop needs for a new client."""
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._accept)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self.clients.add(task)
        task.add_done_callback(self.clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a client's requests, one after the other, until one side closes the connection."""
        client = h11.Connection(h11.SERVER, limits.MAX_TARGET + limits.MAX_HEADERS)
        address = _address(writer)
        try:
            while True:
                try:
                    request = await self._receive(client, reader, writer)
                    if request is None:
                        return
                    response, answer = await self._forward(*request, address)
                except Refusal as refusal:
                    writer.write(limits.response(refusal))
                    break
                events = (response, h11.Data(data=answer), h11.EndOfMessage())
                writer.write(b"".join(client.send(event) or b"" for event in events))
                async with asyncio.timeout(TRANSFER_TIMEOUT):
                    await writer.drain()
                if client.our_state is not h11.DONE:
                    break
                client.start_next_cycle()
            writer.write_eof()
            async with asyncio.timeout(LINGER_TIMEOUT):
                while await reader.read(CHUNK):
                    pass
        except OSError:
            writer.transport.abort()  # the client has gone, or takes too long
        finally:
            writer.close()

    async def _receive(
        self, client: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[h11.Request, bytes] | None:
        """Return a client's next request and its body, or None if there is no more. Raises Refusal."""
        head, body = None, bytearray()
        self.idle[reader] = writer
        try:
            async with asyncio.timeout(None) as timeout:
                while True:
                    event = client.next_event()
                    if event is h11.NEED_DATA:
                        if client.they_are_waiting_for_100_continue:
                            writer.write(client.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                        data = await reader.read(CHUNK)
                        client.receive_data(data)
                        if data and reader in self.idle:
                            del self.idle[reader]
                            timeout.reschedule(asyncio.get_running_loop().time() + TRANSFER_TIMEOUT)
                    elif isinstance(event, h11.Request):
                        head = event
                        limits.check_head(head, self.max_body)
                    elif isinstance(event, h11.Data):
                        body += event.data
                        limits.check_length(len(body), self.max_body)
                    else:
                        return (head, bytes(body)) if head else None
        except h11.RemoteProtocolError as error:
            status = 431 if error.error_status_hint == 431 else 400
            raise Refusal(status, f"the request is not valid HTTP: {error}") from error
        except TimeoutError as error:
            raise Refusal(408, f"the request did not arrive within {TRANSFER_TIMEOUT:.0f} seconds") from error
        finally:
            self.idle.pop(reader, None)

    async def _forward(self, head: h11.Request, body: bytes, address: bytes) -> tuple[h11.Response, bytes]:
        """Return the server's answer and its body; the request came from `address`. Raises Refusal if there is none."""
        given = next((value for name, value in head.headers if name == b"x-request-id"), b"")
        request_id = (b"X-Request-Id", given if ID.fullmatch(given) else uuid.uuid4().hex.encode())
        headers = [(name, value) for name, value in head.headers if name not in {*NOT_FORWARDED, b"content-type"}]
        headers += [(b"Host", b"127.0.0.1"), (b"Content-Type", b"application/json"), request_id, content_length(body)]
        headers.append((b"X-Client-Id", _client(head, address)))
        if limits.explains(head.target):
            headers.append((b"X-Explain", b"true"))
        request = h11.Request(method=head.method, target=head.target, headers=headers)
        try:
            response, answer = await self.upstream.send(request, body)
        except (OSError, h11.RemoteProtocolError) as error:
            raise Refusal(502, "the server did not answer") from error
        headers = [(name, value) for name, value in response.headers if name not in NOT_FORWARDED]
        headers += [request_id, content_length(answer)]
        if self.draining.is_set():
            headers.append((b"Connection", b"close"))
        return h11.Response(status_code=response.status_code, reason=response.reason, headers=headers), answer

    async def drain(self) -> None:
        """Answer the requests in flight, and those that still arrive on open connections; then close all connections.

        A connection without a request is closed after DRAIN_IDLE_TIMEOUT, any other one after DRAIN_TIMEOUT at most.
        """
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while self.clients and loop.time() < begin + DRAIN_TIMEOUT:
            if loop.time() > begin + DRAIN_IDLE_TIMEOUT:
                for reader, writer in self.idle.items():
                    cast(asyncio.Transport, writer.transport).pause_reading()
                    reader.feed_eof()
                self.idle.clear()
            await asyncio.sleep(POLL_INTERVAL)
        for task in self.clients:
            task.cancel()


def _address(writer: asyncio.StreamWriter) -> bytes:
    """Return the address that a connection comes from, or nothing where it has none."""
    peer = writer.get_extra_info("peername")
    host = str(peer[0]) if isinstance(peer, tuple) else ""
    return host.partition("%")[0].removeprefix("::ffff:").encode("ascii", "ignore")


def _client(head: h11.Request, address: bytes) -> bytes:
    """Return who sends a request: its X-Client-Id if there is exactly one and it is valid, else `address`."""
    given = [value for name, value in head.headers if name == b"x-client-id"]
    return given[0] if len(given) == 1 and ID.fullmatch(given[0]) else address
