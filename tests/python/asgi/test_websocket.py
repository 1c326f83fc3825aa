"""Websockets: one span for the connection, its handshake visible at once, a span a message by choice."""

import asyncio

import pytest

from asgi.connecting import (
    ACCEPT,
    CLOSE,
    connect,
    connection,
    echo,
    gone,
    of_socket,
    sending,
    sent_text,
    text,
    websocket_scope,
)
from asgi.serving import SAMPLED, SPAN_ID, TIMEOUT_S, TRACE_ID, UNSAMPLED, Message, Receive, Scope, Send
from rvh_trace import RvhTraceMiddleware, current_span, span
from rvh_trace.testing import InMemoryExporter


class TestHandshake:
    @pytest.mark.parametrize(
        ("messages", "status", "error_type"),
        [
            ([ACCEPT, CLOSE], 101, None),
            ([CLOSE], 403, None),
            ([CLOSE | {"code": 4000}], 403, None),
            ([{"type": "websocket.http.response.start", "status": 401, "headers": []},
              {"type": "websocket.http.response.body", "body": b"who?"}], 401, None),
            ([{"type": "websocket.http.response.start", "status": 503, "headers": []},
              {"type": "websocket.http.response.body", "body": b"", "more_body": True},
              {"type": "websocket.http.response.body", "body": b"full"}], 503, "503"),
        ],
        ids=["accepted", "closed", "closed with a code", "denied", "denied with an error"],
    )  # fmt: skip
    def test_its_status_is_that_of_the_response(
        self, spans: InMemoryExporter, messages: list[Message], status: int, error_type: str | None
    ) -> None:
        """Not `HTTP /ws` with status 200."""
        assert connect(sending(*messages)) == messages
        sent = connection(spans)
        assert (sent.name, sent.attributes["http.request.method"]) == ("GET", "GET")
        assert sent.attributes["http.response.status_code"] == status
        assert sent.attributes.get("error.type") == error_type
        assert sent.status == ("unset" if error_type is None else "error")
        assert "http.request.method_original" not in sent.attributes

    def test_is_described_as_a_request(self, spans: InMemoryExporter) -> None:
        scope = websocket_scope(query_string=b"sig=secret", headers=[(b"host", b"shop.example:81"), SAMPLED])
        connect(sending(ACCEPT, CLOSE), scope=scope)
        sent = connection(spans)
        assert (sent.trace_id, sent.parent_span_id) == (TRACE_ID, SPAN_ID)
        assert (sent.attributes["url.scheme"], sent.attributes["url.path"]) == ("ws", "/ws/kitchen")
        assert sent.attributes["url.query"] == "sig=REDACTED"
        assert (sent.attributes["server.address"], sent.attributes["server.port"]) == ("shop.example", 81)

    def test_is_exported_before_the_connection_ends(self, spans: InMemoryExporter) -> None:
        """One span for a day-long socket shows up when it dies (open-telemetry/opentelemetry-python-contrib#505)."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            (handshake,) = spans
            assert (handshake.name, handshake.kind) == ("websocket.handshake", "internal")
            assert handshake.attributes["http.response.status_code"] == 101
            assert current_span().is_recording
            await send(CLOSE)

        connect(app)
        handshake, server = spans.one("websocket.handshake"), connection(spans)
        assert handshake.is_child_of(server)
        assert handshake.start_unix_ns == server.start_unix_ns
        assert handshake.end_unix_ns <= server.end_unix_ns

    @pytest.mark.parametrize("messages", [[CLOSE], [ACCEPT, ACCEPT, CLOSE]], ids=["refused", "accepted twice"])
    def test_is_one_span_if_it_was_accepted(self, spans: InMemoryExporter, messages: list[Message]) -> None:
        connect(sending(*messages))
        assert len(spans.named("websocket.handshake")) == (1 if ACCEPT in messages else 0)

    def test_a_refused_one_has_no_counts(self, spans: InMemoryExporter) -> None:
        connect(sending(CLOSE))
        assert of_socket(connection(spans)) == {}

    def test_a_client_that_leaves_before_the_answer(self, spans: InMemoryExporter) -> None:
        connect(echo_after_waiting, [gone(1006)])
        sent = connection(spans)
        assert "http.response.status_code" not in sent.attributes
        assert (sent.attributes["rvh_trace.outcome"], sent.status) == ("disconnected", "unset")


async def echo_after_waiting(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


class TestCounts:
    def test_messages_and_bytes_of_both_sides(self, spans: InMemoryExporter) -> None:
        connect(
            echo,
            [text("käse"), {"type": "websocket.receive", "bytes": b"\xff\xfe\xfd"}, text(""),
             {"type": "websocket.receive", "bytes": None, "text": "ab"}, gone()],
        )  # fmt: skip
        assert of_socket(connection(spans)) == {
            "messages.received": 4,
            "messages.sent": 4,
            "bytes.received": 10,
            "bytes.sent": 10,
            "close_code": 1001,
        }

    def test_a_connection_without_messages_has_zeroes(self, spans: InMemoryExporter) -> None:
        connect(echo, [gone()])
        counts = of_socket(connection(spans))
        assert [counts[name] for name in ("messages.sent", "messages.received", "bytes.sent", "bytes.received")] == [
            0
        ] * 4

    def test_messages_are_no_spans_unless_asked_for(self, spans: InMemoryExporter) -> None:
        connect(echo, [text("a"), gone()])
        assert sorted(one.name for one in spans) == ["GET", "websocket.handshake"]


class TestClose:
    @pytest.mark.parametrize(
        ("received", "messages", "code", "reason"),
        [
            ([gone(1001, reason="bye")], [], 1001, "bye"),
            ([gone(1001, reason="")], [], 1001, None),
            ([gone(1001, reason=None)], [], 1001, None),
            ([{"type": "websocket.disconnect"}], [], 1005, None),
            ([gone(1006)], [], 1006, None),
            ([], [CLOSE], 1000, None),
            ([], [CLOSE | {"code": 4001, "reason": "spilled"}], 4001, "spilled"),
            ([], [CLOSE | {"code": 1011, "reason": None}], 1011, None),
        ],
    )
    def test_code_and_reason_of_whoever_closes(
        self,
        spans: InMemoryExporter,
        received: list[Message],
        messages: list[Message],
        code: int,
        reason: str | None,
    ) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            for _ in received:
                await receive()
            for message in messages:
                await send(message)

        connect(app, received)
        of = of_socket(connection(spans))
        assert (of["close_code"], of.get("close_reason")) == (code, reason)

    @pytest.mark.parametrize("by_client", [True, False])
    def test_the_span_ends_there_and_the_first_to_close_counts(self, spans: InMemoryExporter, by_client: bool) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            assert len(spans) == 1
            await (receive() if by_client else send(CLOSE | {"code": 4001}))
            assert len(spans) == 2
            await (send(CLOSE | {"code": 4001}) if by_client else receive())
            with span("afterwards"):
                pass

        connect(app, [gone(1001)])
        assert of_socket(connection(spans))["close_code"] == (1001 if by_client else 4001)
        assert spans.one("afterwards").parent_span_id is None

    def test_an_ordinary_close_is_no_error_whatever_the_code(self, spans: InMemoryExporter) -> None:
        connect(echo, [gone(1011)])
        sent = connection(spans)
        assert (sent.status, sent.attributes["http.response.status_code"]) == ("unset", 101)
        assert "rvh_trace.outcome" not in sent.attributes


class TestMessageSpans:
    def test_are_children_with_direction_type_and_size(self, spans: InMemoryExporter) -> None:
        messages = [text("käse"), {"type": "websocket.receive", "bytes": b"123"}, gone()]
        connect(echo, messages, websocket_messages=True)
        server = connection(spans)
        children = [one for one in spans if one.name in ("websocket.send", "websocket.receive")]
        assert [(one.name, of_socket(one)["message.type"], of_socket(one)["message.size"]) for one in children] == [
            ("websocket.receive", "text", 5),
            ("websocket.send", "text", 5),
            ("websocket.receive", "binary", 3),
            ("websocket.send", "binary", 3),
        ]  # fmt: skip
        assert all(one.is_child_of(server) for one in children)
        assert all(
            server.start_unix_ns <= one.start_unix_ns <= one.end_unix_ns <= server.end_unix_ns for one in children
        )
        assert of_socket(server)["messages.sent"] == 2

    def test_variable(self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RVH_TRACE_WEBSOCKET_MESSAGES", "true")
        connect(echo, [text("a"), gone()])
        assert len(spans.named("websocket.receive")) == 1
        spans.clear()
        connect(echo, [text("a"), gone()], websocket_messages=False)
        assert spans.named("websocket.receive") == []

    def test_messages_are_the_same_with_and_without(self, spans: InMemoryExporter) -> None:
        received = [text("a"), {"type": "websocket.receive", "bytes": b"b"}, gone()]
        assert connect(echo, received) == connect(echo, received, websocket_messages=True, phases=True)


class TestFailures:
    @pytest.mark.parametrize("accepted", [True, False])
    def test_an_exception_is_the_error_of_the_connection(self, spans: InMemoryExporter, accepted: bool) -> None:
        error = LookupError("no such room")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            if accepted:
                await send(ACCEPT)
                await send(sent_text("hello"))
            raise error

        with pytest.raises(LookupError) as caught:
            connect(app)
        assert caught.value is error
        sent = connection(spans)
        assert (sent.status, sent.status_description) == ("error", "no such room")
        assert sent.attributes["error.type"] == "LookupError"
        assert sent.attributes.get("http.response.status_code") == (101 if accepted else None)
        assert of_socket(sent).get("messages.sent") == (1 if accepted else None)

    def test_cancellation_is_its_own_ending(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            waiting = asyncio.Event()

            async def receive() -> Message:
                waiting.set()
                return await asyncio.Event().wait()  # type: ignore[return-value]

            async def send(message: Message) -> None: ...

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await send(ACCEPT)
                await receive()

            task = asyncio.create_task(RvhTraceMiddleware(app)(websocket_scope(), receive, send))  # type: ignore[arg-type]
            await asyncio.wait_for(waiting.wait(), TIMEOUT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        sent = connection(spans)
        assert (sent.attributes["rvh_trace.outcome"], sent.status) == ("cancelled", "unset")
        assert of_socket(sent)["messages.received"] == 0
        assert "close_code" not in of_socket(sent)

    def test_an_exception_after_the_close_is_not_of_the_connection(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await echo(scope, receive, send)
            raise LookupError("cleaning up")

        with pytest.raises(LookupError):
            connect(app, [gone()])
        assert (connection(spans).status, connection(spans).events) == ("unset", ())


def test_one_that_is_not_sampled_makes_no_span_and_is_passed_on() -> None:
    scope = websocket_scope(headers=[UNSAMPLED])
    with InMemoryExporter() as spans:
        assert [message["type"] for message in connect(echo, [text("a"), gone()], scope)] == [
            "websocket.accept",
            "websocket.send",
        ]
        assert list(spans) == []
