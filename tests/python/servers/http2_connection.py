"""An HTTP/2 client connection without TLS: streams at the same time, sent as far as the windows allow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from .connection import TIMEOUT_S, Response
from .request import Request


class Stream:
    """One request, and its response as far as it has come."""

    def __init__(self, stream_id: int, unsent: bytes) -> None:
        self.stream_id = stream_id
        self.unsent = memoryview(unsent)
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.begun = asyncio.Event()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def read(self) -> Response:
        """The whole response."""
        await self.ended
        return Response(int(self.headers[":status"]), self.headers, bytes(self.body))


class Http2Connection:
    """One TCP connection with many streams. One task reads, for all of them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.http2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.streams: dict[int, Stream] = {}
        self.http2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Sends what is waiting: bodies as far as the windows allow."""
        for stream in self.streams.values():
            self.send_body(stream)
        self.writer.write(self.http2.data_to_send())

    def send_body(self, stream: Stream) -> None:
        while stream.unsent:
            room = min(self.http2.local_flow_control_window(stream.stream_id), self.http2.max_outbound_frame_size)
            if room == 0:
                return
            part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
            self.http2.send_data(stream.stream_id, part.tobytes(), end_stream=not stream.unsent)

    def send(self, request: Request) -> Stream:
        stream = Stream(self.http2.get_next_available_stream_id(), request.body)
        self.streams[stream.stream_id] = stream
        pseudo = {":method": request.method, ":path": request.target, ":scheme": "http", ":authority": "shop.test"}
        headers = list((pseudo | request.headers).items())
        self.http2.send_headers(stream.stream_id, headers, end_stream=not request.body)
        self.flush()
        return stream

    async def exchange(self, request: Request) -> Response:
        return await self.send(request).read()

    def reset(self, stream: Stream) -> None:
        """The client wants no more of the response."""
        del self.streams[stream.stream_id]
        self.http2.reset_stream(stream.stream_id, ErrorCodes.CANCEL)
        self.flush()

    async def read(self) -> None:
        while data := await self.reader.read(64 * 1024):
            for event in self.http2.receive_data(data):
                stream = self.streams.get(getattr(event, "stream_id", 0))
                match event:
                    case DataReceived():
                        self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        if stream is not None:
                            stream.body += event.data
                            stream.begun.set()
                    case ResponseReceived() if stream is not None:
                        stream.headers = {str(name): str(value) for name, value in event.headers}
                    case StreamEnded() if stream is not None:
                        del self.streams[stream.stream_id]
                        stream.ended.set_result(None)
                    case StreamReset() if stream is not None:
                        del self.streams[stream.stream_id]
                        stream.ended.set_exception(ConnectionResetError(f"the server reset it: {event.error_code}"))
                    case _:
                        pass
            self.flush()
        for stream in self.streams.values():
            stream.ended.set_exception(ConnectionResetError("the server closed the connection"))


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Http2Connection]:
    """A connection for the `with` block, which ends after `TIMEOUT_S` at the latest."""
    async with asyncio.timeout(TIMEOUT_S):
        connection = Http2Connection(*await asyncio.open_connection("127.0.0.1", port))
        reading = asyncio.create_task(connection.read())
        try:
            yield connection
        finally:
            reading.cancel()
            connection.writer.close()
            # The peer may have closed it first, or gone.
            with suppress(OSError, asyncio.CancelledError):
                await reading
            with suppress(OSError):
                await connection.writer.wait_closed()
