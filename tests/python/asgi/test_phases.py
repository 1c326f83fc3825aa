"""Where the time of a request went, and what passed, on its one span; and every way to send a response.

No test asserts a time: only that a wait which the test has seen is in it, and that what never happened took none.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from handmade_server import LAST_BODY, START, answering, http_scope, serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, StreamingResponse
from starlette.routing import Route

from asgi.serving import TIMEOUT_S, App, Message, Receive, Scope, Send, body, run, server_span, start
from rvh_trace import RvhTraceMiddleware, current_span, span
from rvh_trace.testing import FinishedSpan, InMemoryExporter

FIRST_BYTE = "rvh_trace.http.time_to_first_byte"
SENDING, RECEIVING = "rvh_trace.http.send_time", "rvh_trace.http.receive_time"
CHUNKS_OUT, CHUNKS_IN = "rvh_trace.http.response.chunks", "rvh_trace.http.request.chunks"
SIZE_OUT, SIZE_IN = "http.response.body.size", "http.request.body.size"
SIZES = [SIZE_IN, SIZE_OUT]


def request_part(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads all of the request before it answers."""
    while (await receive()).get("more_body"):
        pass
    await answering()(scope, receive, send)


def watched(spans: InMemoryExporter, *messages: Message, **scope: Any) -> FinishedSpan:
    """The span of a response of these messages, with everything that can be asked for."""
    return server_span(spans, answering(*messages), http_scope(**scope), phases=True, opt_in=SIZES)


def test_one_span_a_request_and_nothing_on_it_unless_asked_for(spans: InMemoryExporter) -> None:
    """Three or more spans a request are noise (open-telemetry/opentelemetry-python-contrib#831)."""
    run(answering(start(), body(more=True), body(more=True), body()))
    (only,) = spans
    assert not {FIRST_BYTE, SENDING, RECEIVING, CHUNKS_IN, CHUNKS_OUT, *SIZES} & set(only.attributes)


def test_phases_are_on_the_one_span(spans: InMemoryExporter) -> None:
    run(reading, phases=True)
    (only,) = spans
    seconds = [only.attributes[name] for name in (FIRST_BYTE, SENDING, RECEIVING)]
    assert all(isinstance(value, float) and 0 <= value <= only.duration_ns / 1e9 for value in seconds)
    assert (only.attributes[CHUNKS_IN], only.attributes[CHUNKS_OUT]) == (1, 1)
    assert not set(SIZES) & set(only.attributes)


def test_variable(spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RVH_TRACE_PHASES", "true")
    assert FIRST_BYTE in server_span(spans).attributes
    assert FIRST_BYTE not in server_span(spans, phases=False).attributes


class Gate:
    """A server that holds a message until it has seen the clock go on: whoever waited for it waited that long."""

    WAIT_NS = 2_000_000

    async def hold(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.WAIT_NS / 1e9
        while (remaining := until - loop.time()) > 0:
            await asyncio.wait([loop.create_future()], timeout=remaining)


class TestWaiting:
    """The time awaiting `send` is back-pressure, which nobody measures whose span closes before the await."""

    @staticmethod
    def serve(app: App, *, slow: str) -> None:
        async def main() -> None:
            gate = Gate()
            received = iter([request_part(b"a", more=True), request_part(b"b")])

            async def receive() -> Message:
                if slow == "receive":
                    await gate.hold()
                return next(received)

            async def send(message: Message) -> None:
                if slow == message["type"]:
                    await gate.hold()

            async with asyncio.timeout(TIMEOUT_S):
                await RvhTraceMiddleware(app, phases=True)(http_scope(), receive, send)

        asyncio.run(main())

    @pytest.mark.parametrize("slow", ["http.response.start", "http.response.body"])
    def test_for_the_server_to_take_a_message(self, spans: InMemoryExporter, slow: str) -> None:
        self.serve(reading, slow=slow)
        (sent,) = spans
        assert float(sent.attributes[SENDING]) >= Gate.WAIT_NS / 1e9  # type: ignore[arg-type]
        assert sent.duration_ns >= Gate.WAIT_NS

    def test_for_the_client_to_send(self, spans: InMemoryExporter) -> None:
        self.serve(reading, slow="receive")
        (sent,) = spans
        assert float(sent.attributes[RECEIVING]) >= 2 * Gate.WAIT_NS / 1e9  # type: ignore[arg-type]
        assert float(sent.attributes[FIRST_BYTE]) >= 2 * Gate.WAIT_NS / 1e9  # type: ignore[arg-type]
        assert sent.attributes[CHUNKS_IN] == 2

    def test_time_to_the_first_byte_ends_with_it(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start())
            await send(body(more=True))
            await Gate().hold()
            await send(body())

        sent = server_span(spans, app, phases=True)
        assert float(sent.attributes[FIRST_BYTE]) < sent.duration_ns / 1e9 - Gate.WAIT_NS / 1e9 + 1e-9  # type: ignore[arg-type]

    def test_what_was_neither_sent_nor_received_took_no_time(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

        sent = server_span(spans, app, phases=True)
        assert (sent.attributes[SENDING], sent.attributes[RECEIVING]) == (0.0, 0.0)
        assert (sent.attributes[CHUNKS_IN], sent.attributes[CHUNKS_OUT]) == (0, 0)
        assert FIRST_BYTE not in sent.attributes

    def test_the_span_ends_when_the_server_has_taken_the_last_message(self, spans: InMemoryExporter) -> None:
        taken: list[bool] = []

        async def main() -> None:
            async def send(message: Message) -> None:
                await asyncio.sleep(0)
                taken.append(len(spans) == 0)

            async def receive() -> Message:
                raise AssertionError

            await RvhTraceMiddleware(answering(), phases=True)(http_scope(), receive, send)

        asyncio.run(main())
        assert taken == [True, True]
        assert len(spans) == 1


class TestBodySizes:
    @pytest.mark.parametrize(
        "parts", [[b""], [b"abc"], [b"a" * 70_000, b"b", b""], [bytearray(b"ab"), memoryview(b"cde")]], ids=len
    )
    def test_are_the_bytes_that_passed(self, spans: InMemoryExporter, parts: list[bytes]) -> None:
        received = [request_part(part, more=part is not parts[-1]) for part in parts]
        out = [start(headers=[(b"content-length", b"999999")]), *(body(part, more=True) for part in parts), body(b"")]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            while (await receive()).get("more_body"):
                pass
            for message in out:
                await send(message)

        run(app, received=received, opt_in=SIZES)
        (sent,) = spans
        total = sum(map(len, parts))
        assert (sent.attributes[SIZE_IN], sent.attributes[SIZE_OUT]) == (total, total)

    def test_a_body_that_nobody_read_did_not_pass(self, spans: InMemoryExporter) -> None:
        run(received=[request_part(b"unread")], opt_in=SIZES)
        assert spans[0].attributes[SIZE_IN] == 0

    @pytest.mark.parametrize("name", SIZES)
    def test_each_is_asked_for_by_name(self, spans: InMemoryExporter, name: str) -> None:
        assert set(SIZES) & set(server_span(spans, opt_in=name).attributes) == {name}

    @pytest.mark.parametrize("content", [None, 7, [b"a"], object()], ids=repr)
    def test_a_body_that_is_none_counts_nothing(self, spans: InMemoryExporter, content: Any) -> None:
        assert watched(spans, start(), {**body(), "body": content}).attributes[SIZE_OUT] == 0


class TestWaysToRespond:
    """What passes, and when the span ends, for every kind of message that ends a response."""

    def test_chunks(self, spans: InMemoryExporter) -> None:
        sent = watched(spans, start(), body(b"ab", more=True), body(b"c", more=True), body(b""))
        assert (sent.attributes[CHUNKS_OUT], sent.attributes[SIZE_OUT]) == (3, 3)

    def test_trailers(self, spans: InMemoryExporter) -> None:
        recording: list[bool] = []
        messages = [
            start(trailers=True),
            body(),
            {"type": "http.response.trailers", "headers": [], "more_trailers": True},
            {"type": "http.response.trailers", "headers": []},
        ]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in messages:
                await send(message)
                recording.append(current_span().is_recording)

        sent = server_span(spans, app, phases=True)
        assert recording == [True, True, True, False]
        assert sent.attributes[CHUNKS_OUT] == 1

    @pytest.mark.parametrize("phases", [False, True])
    @pytest.mark.parametrize(
        "messages",
        [
            [START, {"type": "http.response.pathsend", "path": "/srv/file"}],
            [START, {"type": "http.response.zerocopysend", "file": 3}],
            [START, {"type": "http.response.zerocopysend", "file": 3, "more_body": True}, body()],
        ],
        ids=["pathsend", "zerocopysend", "zerocopysend and body"],
    )
    def test_a_file_that_the_server_sends(self, spans: InMemoryExporter, messages: list[Message], phases: bool) -> None:
        assert run(answering(*messages), phases=phases, opt_in=SIZES) == messages
        (sent,) = spans
        assert sent.attributes["http.response.status_code"] == 200
        if phases:
            assert sent.attributes[CHUNKS_OUT] == len(messages) - 1
            assert FIRST_BYTE in sent.attributes

    @pytest.mark.parametrize(
        "message",
        [
            {"type": "http.response.pathsend", "path": "/srv/file"},
            {"type": "http.response.zerocopysend", "file": 3},
        ],
        ids=["pathsend", "zerocopysend"],
    )
    def test_the_size_of_a_file_that_the_server_sends_is_not_known(
        self, spans: InMemoryExporter, message: Message
    ) -> None:
        """Better none than one that is wrong."""
        assert SIZE_OUT not in watched(spans, START, message).attributes

    def test_a_part_of_a_file_has_the_size_that_it_says(self, spans: InMemoryExporter) -> None:
        part = {"type": "http.response.zerocopysend", "file": 3, "count": 70_000, "more_body": True}
        assert watched(spans, START, part, body(b"ok")).attributes[SIZE_OUT] == 70_002

    def test_early_hints_and_pushes_are_not_the_response(self, spans: InMemoryExporter) -> None:
        early = [
            {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
            {"type": "http.response.push", "path": "/a.css", "headers": []},
            {"type": "http.response.debug", "info": {}},
        ]
        sent = watched(spans, *early, start(201), body())
        assert (sent.attributes["http.response.status_code"], sent.attributes[CHUNKS_OUT]) == (201, 1)

    def test_head_passes_no_body(self, spans: InMemoryExporter) -> None:
        """Applications answer HEAD as GET, and servers keep the body back (RFC 9110, section 9.3.2)."""
        sent = watched(spans, start(), body(b"as for GET"), method="HEAD")
        assert (sent.name, sent.attributes["http.response.status_code"], sent.attributes[SIZE_OUT]) == ("HEAD", 200, 0)

    @pytest.mark.parametrize("status", [204, 304])
    def test_responses_without_a_body(self, spans: InMemoryExporter, status: int) -> None:
        sent = watched(spans, start(status), body(b""))
        assert (sent.attributes["http.response.status_code"], sent.attributes[SIZE_OUT]) == (status, 0)
        assert (sent.status, sent.attributes[CHUNKS_OUT]) == ("unset", 1)

    def test_an_informational_response_before_the_real_one(self, spans: InMemoryExporter) -> None:
        sent = watched(spans, start(103), start(200), body())
        assert sent.attributes["http.response.status_code"] == 200


class TestStreaming:
    @pytest.mark.parametrize("phases", [False, True])
    def test_server_sent_events_are_one_span_to_the_last_event(self, spans: InMemoryExporter, phases: bool) -> None:
        async def events(request: Request) -> StreamingResponse:
            async def stream() -> AsyncIterator[str]:
                for number in range(3):
                    with span("make event"):
                        await asyncio.sleep(0)
                    yield f"data: {number}\n\n"

            return StreamingResponse(stream(), media_type="text/event-stream")

        app = Starlette(routes=[Route("/events", events)])
        app.add_middleware(RvhTraceMiddleware, phases=phases, opt_in=SIZES)
        sent = asyncio.run(serve(app, http_scope("/events")))
        server = spans.one("GET /events")
        assert len(spans.children(server)) == 3
        assert all(child.end_unix_ns <= server.end_unix_ns for child in spans.children(server))
        assert server.attributes[SIZE_OUT] == sum(len(message.get("body", b"")) for message in sent)
        if phases:
            assert server.attributes[CHUNKS_OUT] == len(sent) - 1

    def test_a_long_stream_is_open_until_its_end(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start())
            for _ in range(100):
                await send(body(b"x", more=True))
                assert len(spans) == 0
            await send(body(b""))
            assert len(spans) == 1

        assert watched_app(spans, app).attributes[SIZE_OUT] == 100

    @pytest.mark.parametrize("pathsend", [False, True])
    def test_a_file(self, spans: InMemoryExporter, tmp_path: Path, pathsend: bool) -> None:
        file = tmp_path / "file.txt"
        file.write_bytes(b"x" * 200_000)

        async def download(request: Request) -> FileResponse:
            return FileResponse(file)

        app = Starlette(routes=[Route("/file", download)])
        app.add_middleware(RvhTraceMiddleware, opt_in=SIZES)
        scope = http_scope("/file", extensions={"http.response.pathsend": {}} if pathsend else {})
        sent = asyncio.run(serve(app, scope))
        assert ("http.response.pathsend" in {message["type"] for message in sent}) is pathsend
        server = spans.one("GET /file")
        assert server.attributes.get(SIZE_OUT) == (None if pathsend else 200_000)


def watched_app(spans: InMemoryExporter, app: App) -> FinishedSpan:
    return server_span(spans, app, phases=True, opt_in=SIZES)


@pytest.mark.parametrize(
    "options", [{}, {"phases": True}, {"opt_in": SIZES}, {"phases": True, "opt_in": SIZES}], ids=str
)
def test_what_passes_is_the_same_with_everything_on(spans: InMemoryExporter, options: dict[str, Any]) -> None:
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.extend([await receive(), await receive()])
        await send(START)
        await send(LAST_BODY)

    parts = [request_part(b"a", more=True), request_part(b"b")]
    assert run(app, received=parts, **options) == [START, LAST_BODY]
    assert received == parts
    assert all(one is other for one, other in zip(received, parts, strict=True))
