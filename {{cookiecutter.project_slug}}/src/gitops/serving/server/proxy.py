"""A door in front of TorchServe: it reads each request in full, hands it in, and gives the answer out.

TorchServe closes a connection after each answer that is an error. If the client is still sending, the kernel then
resets the connection, and the answer may be lost on its way. It cuts all connections when it stops, and answers 500 to
a body that calls itself a form and is none, as curl calls JSON unless told. The door keeps all three from clients:

- It refuses by itself what is no HTTP or too large, and reads on for a while before it closes, so that what it said
  arrives. TorchServe sees whole requests alone, each called JSON, on connections of the door's own.
- Once it is closing, each answer says `Connection: close`, so that clients take their next request elsewhere.

Each request gets an id, the client's `X-Request-Id` or a new one: the handler sees it and the answer carries it.
(TorchServe would answer with another.) The grammar of HTTP is h11's affair: https://h11.readthedocs.io
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from http import HTTPStatus
from typing import cast

import h11

#: Bytes of a request's address and of its headers: less than half of what TorchServe (Netty) reads.
MAX_TARGET, MAX_HEADERS = 2000, 4000

#: Seconds for a request to arrive in full, counted from its first byte, and for an answer to be taken.
TRANSFER = 60.0

#: Seconds for the rest of what a refused client sends.
LINGER = 3.0

#: Seconds, once the door is closing, for the last request on a connection that was kept, and for the last answer.
LAST_REQUEST, LAST_ANSWER = 3.0, 5.5

#: Seconds between two looks at something.
PAUSE = 0.05

CHUNK = 2**16

REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")

#: Headers that are of one connection, or that the door sets: they are not passed on.
OWN = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
    b"expect",
}
OWN |= {b"content-length", b"host", b"x-request-id"}

Headers = list[tuple[bytes, bytes]]


class Refusal(Exception):
    """A request that gets no answer from the server: the status and the reason that the client is told."""

    def __init__(self, status: int, reason: str) -> None:
        self.status, self.reason = status, reason


class Door:
    """Passes requests of at most `largest` bytes to port `inside` of 127.0.0.1."""

    def __init__(self, inside: int, largest: int) -> None:
        self.inside, self.largest = inside, largest
        self.closing = asyncio.Event()  # once set, each answer is the last on its connection
        self.clients: set[asyncio.Task[None]] = set()
        self.idle: dict[asyncio.StreamReader, asyncio.StreamWriter] = {}  # clients without a request under way
        self.unused: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []  # connections to the server

    def protocol(self) -> asyncio.StreamReaderProtocol:
        """Return what the event loop needs for a new client."""
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._welcome)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self.clients.add(task)
        task.add_done_callback(self.clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a client's requests, one after the other, until one of the two wants no more."""
        client = h11.Connection(h11.SERVER, MAX_TARGET + MAX_HEADERS)
        try:
            while True:
                try:
                    request = await self._receive(client, reader, writer)
                    if request is None:
                        return
                    response, answer = await self._pass_in(*request)
                except Refusal as refusal:
                    writer.write(_refused(refusal))
                    break
                events = (response, h11.Data(data=answer), h11.EndOfMessage())
                writer.write(b"".join(client.send(event) or b"" for event in events))
                async with asyncio.timeout(TRANSFER):
                    await writer.drain()
                if client.our_state is not h11.DONE:
                    break
                client.start_next_cycle()
            writer.write_eof()
            async with asyncio.timeout(LINGER):
                while await reader.read(CHUNK):
                    pass
        except OSError:
            writer.transport.abort()  # the client has gone, or takes too long
        finally:
            writer.close()

    async def _receive(
        self, client: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[h11.Request, bytes] | None:
        """Return a client's next request and its body, or None where it has no more. Raises Refusal."""
        head, body = None, bytearray()
        self.idle[reader] = writer
        try:
            async with asyncio.timeout(None) as limit:
                while True:
                    event = client.next_event()
                    if event is h11.NEED_DATA:
                        if client.they_are_waiting_for_100_continue:
                            writer.write(client.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                        data = await reader.read(CHUNK)
                        client.receive_data(data)
                        if data and reader in self.idle:
                            del self.idle[reader]
                            limit.reschedule(asyncio.get_running_loop().time() + TRANSFER)
                    elif isinstance(event, h11.Request):
                        head = event
                        self._check(head)
                    elif isinstance(event, h11.Data):
                        body += event.data
                        self._check_length(len(body))
                    else:
                        return (head, bytes(body)) if head else None
        except h11.RemoteProtocolError as error:
            status = 431 if error.error_status_hint == 431 else 400
            raise Refusal(status, f"the request is not valid HTTP: {error}") from error
        except TimeoutError as error:
            raise Refusal(408, f"the request did not arrive within {TRANSFER:.0f} seconds") from error
        finally:
            self.idle.pop(reader, None)

    def _check(self, head: h11.Request) -> None:
        if head.method == b"CONNECT":
            raise Refusal(405, "this is no proxy")
        if not head.target.startswith(b"/"):
            raise Refusal(400, "the address must begin with a slash")
        if len(head.target) > MAX_TARGET:
            raise Refusal(414, f"the address is longer than {MAX_TARGET} bytes")
        if sum(len(name) + len(value) + len(": \r\n") for name, value in head.headers) > MAX_HEADERS:
            raise Refusal(431, f"the headers are longer than {MAX_HEADERS} bytes")
        for name, value in head.headers:
            if name == b"content-length":
                self._check_length(int(value))

    def _check_length(self, length: int) -> None:
        if length > self.largest:
            raise Refusal(413, f"the body is longer than {self.largest} bytes")

    async def _pass_in(self, head: h11.Request, body: bytes) -> tuple[h11.Response, bytes]:
        """Return the server's answer and its body. Raises Refusal where it gives none."""
        given = next((value for name, value in head.headers if name == b"x-request-id"), b"")
        request_id = (b"X-Request-Id", given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode())
        kept = [(name, value) for name, value in head.headers if name not in OWN and name != b"content-type"]
        ours = [(b"Host", b"127.0.0.1"), (b"Content-Type", b"application/json"), request_id, _length(body)]
        request = h11.Request(method=head.method, target=head.target, headers=kept + ours)
        try:
            response, answer = await self._ask(request, body)
        except (OSError, h11.RemoteProtocolError) as error:
            raise Refusal(502, "the server gave no answer") from error
        headers = [(name, value) for name, value in response.headers if name not in OWN]
        headers += [request_id, _length(answer)]
        if self.closing.is_set():
            headers.append((b"Connection", b"close"))
        return h11.Response(status_code=response.status_code, reason=response.reason, headers=headers), answer

    async def _ask(self, request: h11.Request, body: bytes) -> tuple[h11.Response, bytes]:
        """Send the server a request, on a connection of its own, and return the answer."""
        reader, writer = await self._connection()
        server, response, answer = h11.Connection(h11.CLIENT), None, bytearray()
        try:
            events = (request, h11.Data(data=body), h11.EndOfMessage())
            writer.write(b"".join(server.send(event) or b"" for event in events))
            while not isinstance(event := server.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    server.receive_data(await reader.read(CHUNK))
                elif isinstance(event, h11.Response):
                    response = event
                elif isinstance(event, h11.Data):
                    answer += event.data
                elif not isinstance(event, h11.InformationalResponse):
                    raise ConnectionError(f"{event} in place of an answer")
        finally:
            if server.our_state is server.their_state is h11.DONE:
                self.unused.append((reader, writer))
            else:
                writer.close()
        assert response is not None  # noqa: S101  h11 ends no message that has not begun
        return response, bytes(answer)

    async def end_log(self, model: str) -> None:
        """Have the handler write what is left of its request log, which an address would lack (request_log.END)."""
        headers = [(b"Host", b"127.0.0.1"), (b"X-Request-Id", b"/end"), _length(b"")]
        await self._ask(h11.Request(method=b"POST", target=f"/predictions/{model}".encode(), headers=headers), b"")

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.unused:
            reader, writer = self.unused.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.inside)

    async def close(self) -> None:
        """Answer what is on its way: for LAST_REQUEST seconds on every connection, and then on the busy ones."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while self.clients and loop.time() < begin + LAST_ANSWER:
            if loop.time() > begin + LAST_REQUEST:
                for reader, writer in self.idle.items():
                    cast(asyncio.Transport, writer.transport).pause_reading()
                    reader.feed_eof()
                self.idle.clear()
            await asyncio.sleep(PAUSE)
        for task in self.clients:
            task.cancel()


def _length(body: bytes) -> tuple[bytes, bytes]:
    return b"Content-Length", b"%d" % len(body)


def _refused(refusal: Refusal) -> bytes:
    """Return an answer in the handler's form, the last on its connection."""
    problem = {"instance": None, "column": None, "error": refusal.reason}
    body = json.dumps({"error": refusal.reason, "errors": [problem]}).encode("ascii")
    head = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode("ascii") + body
