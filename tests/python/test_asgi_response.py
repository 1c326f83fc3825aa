"""How a SERVER span ends: status, errors, cancellation, and when."""

import asyncio
from typing import Any

import pytest
from handmade_server import LAST_BODY, START, App, Message, Receive, Scope, Send, answering, http_scope, serve

from rvh_trace import RvhTraceMiddleware, current_span, span
from rvh_trace.testing import InMemoryExporter


class ShopError(Exception):
    """Escapes from the application."""


def start(status: int = 200, **more: Any) -> Message:
    return START | {"status": status} | more


def body(more_body: bool = False) -> Message:
    return LAST_BODY | {"more_body": more_body}


class TestStatus:
    @pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 499])
    def test_below_500_is_no_error(self, spans: InMemoryExporter, status: int) -> None:
        asyncio.run(serve(RvhTraceMiddleware(answering(start(status), body()))))
        (sent,) = spans
        assert sent.attributes["http.response.status_code"] == status
        assert (sent.status, sent.status_description) == ("unset", "")
        assert "error.type" not in sent.attributes

    @pytest.mark.parametrize("status", [500, 503, 599])
    def test_from_500_on_is_an_error_without_a_description(self, spans: InMemoryExporter, status: int) -> None:
        asyncio.run(serve(RvhTraceMiddleware(answering(start(status), body()))))
        (sent,) = spans
        assert sent.attributes["http.response.status_code"] == status
        assert sent.attributes["error.type"] == str(status)
        assert (sent.status, sent.status_description, sent.events) == ("error", "", ())

    def test_an_application_that_answers_nothing_has_no_status(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

        asyncio.run(serve(RvhTraceMiddleware(app)))
        assert "http.response.status_code" not in spans[0].attributes
        assert spans[0].status == "unset"


class TestEscapingExceptions:
    def test_before_the_start_it_is_the_error(self, spans: InMemoryExporter) -> None:
        error = ShopError("sold out")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise error

        with pytest.raises(ShopError) as caught:
            asyncio.run(serve(RvhTraceMiddleware(app)))
        assert caught.value is error
        (sent,) = spans
        assert sent.attributes["error.type"] == f"{__name__}.ShopError"
        assert "http.response.status_code" not in sent.attributes
        assert (sent.status, sent.status_description) == ("error", "sold out")
        assert [event.name for event in sent.events] == ["exception"]
        assert sent.events[0].attributes["exception.message"] == "sold out"

    def test_after_the_start_of_a_good_response_it_is_an_error_with_that_status(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start(200))
            raise ShopError("half way")

        with pytest.raises(ShopError):
            asyncio.run(serve(RvhTraceMiddleware(app)))
        (sent,) = spans
        assert sent.attributes["http.response.status_code"] == 200
        assert sent.attributes["error.type"] == f"{__name__}.ShopError"
        assert (sent.status, sent.status_description) == ("error", "half way")

    @pytest.mark.parametrize("complete", [True, False])
    def test_after_a_5xx_the_status_is_the_type_and_the_exception_an_event(
        self, spans: InMemoryExporter, complete: bool
    ) -> None:
        """Starlette's ServerErrorMiddleware sends the 500 and raises again."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start(500))
            await send(body(more_body=not complete))
            raise ShopError("sold out")

        with pytest.raises(ShopError):
            asyncio.run(serve(RvhTraceMiddleware(app)))
        (sent,) = spans
        assert sent.attributes["http.response.status_code"] == 500
        assert sent.attributes["error.type"] == "500"
        assert sent.status == "error"
        assert [event.attributes["exception.type"] for event in sent.events] == [f"{__name__}.ShopError"]

    def test_after_a_complete_good_response_it_is_not_of_the_request(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await answering()(scope, receive, send)
            raise ShopError("in a background task")

        with pytest.raises(ShopError):
            asyncio.run(serve(RvhTraceMiddleware(app)))
        assert (spans[0].status, spans[0].events) == ("unset", ())
        assert "error.type" not in spans[0].attributes

    def test_of_the_server_while_sending_is_recorded(self, spans: InMemoryExporter) -> None:
        error = OSError("connection lost")

        async def main() -> None:
            async def send(message: Message) -> None:
                raise error

            async def receive() -> Message:
                return {"type": "http.disconnect"}

            await RvhTraceMiddleware(answering())(http_scope(), receive, send)

        with pytest.raises(OSError, match="connection lost") as caught:
            asyncio.run(main())
        assert caught.value is error
        assert len(spans) == 1


class TestCancellation:
    @pytest.mark.parametrize("started", [False, True])
    def test_is_visible_and_not_an_error(self, spans: InMemoryExporter, started: bool) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if started:
                await send(start(200))
            await asyncio.Event().wait()

        async def main() -> None:
            task = asyncio.create_task(serve(RvhTraceMiddleware(app)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        (sent,) = spans
        assert sent.attributes["rvh_trace.outcome"] == "cancelled"
        assert "error.type" not in sent.attributes
        assert (sent.status, sent.events) == ("unset", ())
        assert sent.attributes.get("http.response.status_code") == (200 if started else None)


class TestEnd:
    """The span ends when the last message has been handed to the server, not before and not later."""

    @pytest.mark.parametrize(
        "messages",
        [
            [start(), body()],
            [start(), {"type": "http.response.body"}],
            [start(), body(True), body(True), body()],
            [start(trailers=True), body(), {"type": "http.response.trailers", "headers": [], "more_trailers": True},
             {"type": "http.response.trailers", "headers": []}],
            [start(), {"type": "http.response.pathsend", "path": "/tmp/x"}],
            [start(), {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
             {"type": "http.response.zerocopysend", "file": 3}],
            [{"type": "http.response.debug", "info": {}}, {"type": "http.response.push", "path": "/", "headers": []},
             start(), body()],
        ],
        ids=["body", "bare body", "chunks", "trailers", "pathsend", "zerocopysend", "push and debug"],
    )  # fmt: skip
    def test_with_the_last_message_and_not_with_one_before(
        self, spans: InMemoryExporter, messages: list[Message]
    ) -> None:
        recording: list[bool] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in messages:
                recording.append(current_span().is_recording)
                await send(message)
            recording.append(current_span().is_recording)

        assert asyncio.run(serve(RvhTraceMiddleware(app))) == messages
        assert recording == [True] * len(messages) + [False]
        assert len(spans) == 1

    def test_background_work_is_not_in_it_and_links_it(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await answering()(scope, receive, send)
            assert [one.name for one in spans] == ["GET"]
            with span("background"):
                await asyncio.sleep(0)

        asyncio.run(serve(RvhTraceMiddleware(app)))
        server, background = spans.one("GET"), spans.one("background")
        assert background.parent_span_id is None
        assert [(link.trace_id, link.span_id) for link in background.links] == [(server.trace_id, server.span_id)]
        assert server.end_unix_ns <= background.start_unix_ns

    def test_a_5xx_with_background_work_ends_at_its_last_message_too(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start(500))
            await send(body())
            with span("background"):
                await asyncio.sleep(0)

        asyncio.run(serve(RvhTraceMiddleware(app)))
        assert spans.one("GET").end_unix_ns <= spans.one("background").start_unix_ns

    def test_is_open_while_the_body_is_streamed(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start())
            await send(body(True))
            with span("between chunks"):
                pass
            await send(body())

        asyncio.run(serve(RvhTraceMiddleware(app)))
        server = spans.one("GET")
        assert spans.one("between chunks").is_child_of(server)
        assert spans.one("between chunks").end_unix_ns <= server.end_unix_ns

    def test_without_a_last_message_it_ends_with_the_application(self, spans: InMemoryExporter) -> None:
        asyncio.run(serve(RvhTraceMiddleware(answering(start(), body(True)))))
        assert spans[0].attributes["http.response.status_code"] == 200
        assert spans[0].status == "unset"

    def test_sending_after_the_end_goes_on_to_the_server(self, spans: InMemoryExporter) -> None:
        messages = [start(), body(), body()]
        assert asyncio.run(serve(RvhTraceMiddleware(answering(*messages)))) == messages
        assert len(spans) == 1


class TestRequestsAtTheSameTime:
    def test_keep_what_is_theirs(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0)
            await send(start(int(scope["path"][1:])))
            current_span().set_attribute("own", scope["path"])
            await asyncio.sleep(0)
            await send(body())

        async def main() -> None:
            traced: App = RvhTraceMiddleware(app)
            await asyncio.gather(*(serve(traced, http_scope(f"/{status}")) for status in range(200, 240)))

        asyncio.run(main())
        assert len(spans) == len({one.trace_id for one in spans}) == 40
        for one in spans:
            assert (
                one.attributes["url.path"] == one.attributes["own"] == f"/{one.attributes['http.response.status_code']}"
            )


def test_the_span_of_the_request_is_current_and_takes_attributes(spans: InMemoryExporter) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        server = current_span()
        server.set_attribute("user.id", 7)
        server.update_name("named by hand")
        with span("work"):
            assert current_span() is not server
        await asyncio.create_task(answering()(scope, receive, send))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportUnknownVariableType]

    asyncio.run(serve(RvhTraceMiddleware(app)))
    server = spans.one("named by hand")
    assert server.attributes["user.id"] == 7
    assert spans.one("work").is_child_of(server)
