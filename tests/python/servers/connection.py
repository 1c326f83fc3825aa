"""A raw HTTP/1.1 client connection: what is written when, and on which connection, is the test's decision."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from .request import Request

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One TCP connection; responses are read in the order of the requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, *requests: Request) -> None:
        """All of `requests` at once, before any response is read."""
        self.writer.write(b"".join(head(request) + request.body for request in requests))

    async def read_head(self) -> tuple[int, dict[str, str]]:
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        headers = (line.split(":", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value.strip() for name, value in headers}

    async def read_chunk(self) -> bytes:
        """The next part of a chunked body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def read(self) -> Response:
        """The next response, whole."""
        status, headers = await self.read_head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while chunk := await self.read_chunk():
                body += chunk
        else:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return Response(status, headers, body)

    async def exchange(self, request: Request) -> Response:
        self.write(request)
        return await self.read()


def head(request: Request) -> bytes:
    fields = {"host": "shop.test", **request.headers}
    if request.method == "POST":
        fields["content-length"] = str(len(request.body))
    lines = [f"{request.method} {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    """A connection for the `with` block, which ends after `TIMEOUT_S` at the latest."""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            # The peer may have closed it first, or gone.
            with suppress(OSError):
                await writer.wait_closed()
