"""HTTP client for TorchServe on a port of 127.0.0.1, with a pool of connections."""

from __future__ import annotations

import asyncio
import contextlib

import h11

from gitops.serving.server.request_log import FLUSH

CHUNK = 2**16


def content_length(body: bytes) -> tuple[bytes, bytes]:
    """Return the header that says how long `body` is."""
    return b"Content-Length", b"%d" % len(body)


class Upstream:
    """Sends requests to port `port` of 127.0.0.1, each on a connection that no other request uses meanwhile."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pool: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def listens(self) -> bool:
        """Tell whether the port accepts connections."""
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.close()
            return True
        return False

    async def send(self, request: h11.Request, body: bytes) -> tuple[h11.Response, bytes]:
        """Send a request and return the answer and its body. Raises OSError or h11.RemoteProtocolError without one."""
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
                    raise ConnectionError(f"{event} instead of an answer")
        finally:
            if server.our_state is server.their_state is h11.DONE:
                self.pool.append((reader, writer))
            else:
                writer.close()
        assert response is not None  # noqa: S101  h11 ends no message that has not begun
        return response, bytes(answer)

    async def flush_request_log(self, model: str) -> None:
        """Have the model's worker write the rest of its request log. Raises what `send` raises."""
        headers = [(b"Host", b"127.0.0.1"), (b"X-Request-Id", FLUSH.encode()), content_length(b"")]
        await self.send(h11.Request(method=b"POST", target=f"/predictions/{model}".encode(), headers=headers), b"")

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self.pool:
            reader, writer = self.pool.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)
