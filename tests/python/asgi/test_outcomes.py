"""How a request ends: success, server error, exception, a client that left, cancellation; and what comes after it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from handmade_server import START, answering, http_scope, serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from asgi.serving import TIMEOUT_S, App, Message, Receive, Scope, Send, body, run, start
from rvh_trace import RvhTraceMiddleware, current_span
from rvh_trace.errors import ConfigurationError
from rvh_trace.testing import FinishedSpan, InMemoryExporter

OUTCOME = "rvh_trace.outcome"
HERE = __name__


class SoldOutError(Exception):
    """An error of the application's own."""


def ending(sent: FinishedSpan) -> tuple[object, ...]:
    """What tells one ending from another: the status, `error.type`, the outcome and the response status."""
    of = sent.attributes.get
    return (sent.status, of("error.type"), of(OUTCOME), of("http.response.status_code"))


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await answering()(scope, receive, send)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await answering(start(404), body())(scope, receive, send)


async def unavailable(scope: Scope, receive: Receive, send: Send) -> None:
    await answering(start(503), body())(scope, receive, send)


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    raise SoldOutError("tea")


async def group(scope: Scope, receive: Receive, send: Send) -> None:
    raise ExceptionGroup("two", [SoldOutError("tea"), ValueError("mug")])


async def left(scope: Scope, receive: Receive, send: Send) -> None:
    """The application sees the client leave and stops."""
    await send(start())
    await send(body(more=True))
    while (await receive())["type"] != "http.disconnect":
        pass


async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Neither an answer nor a reason."""


ENDINGS: dict[App, tuple[object, ...]] = {
    ok: ("unset", None, None, 200),
    not_found: ("unset", None, None, 404),
    unavailable: ("error", "503", None, 503),
    raising: ("error", f"{HERE}.SoldOutError", None, None),
    group: ("error", "ExceptionGroup", None, None),
    left: ("unset", None, "disconnected", 200),
    cancelled: ("unset", None, "cancelled", None),
    silent: ("unset", None, None, None),
}
OUTCOMES: dict[str, App] = {
    "4xx": not_found,
    "5xx": unavailable,
    "exception": raising,
    "disconnected": left,
    "cancelled": cancelled,
}
name_of: Callable[[Any], str] = lambda value: getattr(value, "__name__", str(value))  # noqa: E731


def ends(spans: InMemoryExporter, app: App, **options: Any) -> FinishedSpan:
    """The span of a request, however it ended."""
    spans.clear()
    try:
        run(app, **options)
    except (SoldOutError, ExceptionGroup, asyncio.CancelledError, OSError):
        pass
    (sent,) = (one for one in spans if one.kind == "server")
    return sent


@pytest.mark.parametrize(("app", "expected"), ENDINGS.items(), ids=name_of)
def test_every_ending_can_be_told_from_the_others(
    spans: InMemoryExporter, app: App, expected: tuple[object, ...]
) -> None:
    assert ending(ends(spans, app)) == expected


def test_no_two_endings_look_the_same() -> None:
    assert len(set(ENDINGS.values())) == len(ENDINGS)


class TestErrorOutcomes:
    """What makes the span an error is a setting."""

    @pytest.mark.parametrize("wanted", [*OUTCOMES, "none"])
    @pytest.mark.parametrize("happened", OUTCOMES)
    def test_an_outcome_is_an_error_if_it_is_listed(self, spans: InMemoryExporter, wanted: str, happened: str) -> None:
        sent = ends(spans, OUTCOMES[happened], error_outcomes=wanted)
        assert (sent.status == "error") is (wanted == happened)
        assert ("error.type" in sent.attributes) is (wanted == happened)
        if happened in ("disconnected", "cancelled"):
            assert sent.attributes[OUTCOME] == happened

    @pytest.mark.parametrize(
        ("happened", "error_type"),
        [("4xx", "404"), ("5xx", "503"), ("exception", f"{HERE}.SoldOutError"), ("disconnected", "disconnected"),
         ("cancelled", "cancelled")],
    )  # fmt: skip
    def test_error_type_says_which(self, spans: InMemoryExporter, happened: str, error_type: str) -> None:
        sent = ends(spans, OUTCOMES[happened], error_outcomes=[*OUTCOMES])
        assert sent.attributes["error.type"] == error_type

    def test_success_is_never_an_error(self, spans: InMemoryExporter) -> None:
        assert ending(ends(spans, ok, error_outcomes=[*OUTCOMES])) == ENDINGS[ok]

    def test_variable(self, spans: InMemoryExporter, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RVH_TRACE_ERROR_OUTCOMES", "cancelled,4xx")
        assert [ends(spans, app).status for app in (cancelled, not_found, unavailable)] == ["error", "error", "unset"]
        assert ends(spans, cancelled, error_outcomes="5xx").status == "unset"

    @pytest.mark.parametrize("wrong", ["5XXX", ["cancelled", "timeout"], 500])
    def test_a_wrong_argument_is_named(self, wrong: Any) -> None:
        with pytest.raises(ConfigurationError, match="error_outcomes"):
            RvhTraceMiddleware(ok, error_outcomes=wrong)


def test_an_exception_group_is_recorded_as_structure(spans: InMemoryExporter) -> None:
    """Not as "unhandled errors in a TaskGroup (1 sub-exception)" and nothing more."""
    sent = ends(spans, group)
    types = [event.attributes["exception.type"] for event in sent.events]
    assert types == ["ExceptionGroup", f"{HERE}.SoldOutError", "ValueError"]
    assert [event.attributes["exception.message"] for event in sent.events[1:]] == ["tea", "mug"]


@pytest.mark.parametrize("error", [SoldOutError("tea"), ExceptionGroup("g", [ValueError()]), KeyError("k")])
def test_the_exception_passes_through_untouched(spans: InMemoryExporter, error: Exception) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(app)
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None


class TestDisconnect:
    def test_a_response_completed_for_nobody_is_one(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await left(scope, receive, send)
            await send(body())

        assert ending(ends(spans, app)) == ("unset", None, "disconnected", 200)

    def test_seen_after_the_response_is_the_ordinary_end_of_a_connection(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await ok(scope, receive, send)
            assert [(await receive())["type"] for _ in range(2)] == ["http.request", "http.disconnect"]

        assert ending(ends(spans, app)) == ENDINGS[ok]

    def test_what_servers_raise_then_is_not_an_error_of_the_application(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await left(scope, receive, send)
            raise BrokenPipeError("the server says so")

        sent = ends(spans, app)
        assert ending(sent) == ("unset", None, "disconnected", 200)
        assert sent.events == ()

    def test_an_error_of_the_application_is_one_even_then(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await left(scope, receive, send)
            raise SoldOutError("tea")

        assert ending(ends(spans, app)) == ("error", f"{HERE}.SoldOutError", None, 200)

    def test_a_task_cancelled_because_the_client_left_is_a_disconnect(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await left(scope, receive, send)
            raise asyncio.CancelledError

        assert ending(ends(spans, app)) == ENDINGS[left]

    def test_a_5xx_before_the_client_left_is_an_error(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send(start(500))
            while (await receive())["type"] != "http.disconnect":
                pass

        assert ending(ends(spans, app)) == ("error", "500", "disconnected", 500)


class TestDisconnectUnderStarlette:
    """Starlette raises `ClientDisconnect`; its error middleware answers that with a 500 that nobody gets."""

    @staticmethod
    def app() -> Starlette:
        async def upload(request: Request) -> PlainTextResponse:
            return PlainTextResponse(str(len(await request.body())))

        async def download(request: Request) -> StreamingResponse:
            async def chunks() -> AsyncIterator[bytes]:
                while True:
                    yield b"x"

            return StreamingResponse(chunks())

        return Starlette(routes=[Route("/upload", upload, methods=["POST"]), Route("/download", download)])

    @staticmethod
    async def upload_breaks_off(app: App) -> list[Message]:
        received = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])
        sent: list[Message] = []

        async def receive() -> Message:
            return next(received)

        async def send(message: Message) -> None:
            sent.append(message)

        async with asyncio.timeout(TIMEOUT_S):
            await app(http_scope("/upload", method="POST"), receive, send)
        return sent

    @pytest.mark.parametrize("inside", [False, True])
    def test_an_upload_that_breaks_off(self, spans: InMemoryExporter, inside: bool) -> None:
        app: Any = self.app()
        if inside:
            app.add_middleware(RvhTraceMiddleware)
        else:
            app = RvhTraceMiddleware(app)
        with pytest.raises(Exception) as caught:  # noqa: PT011 (Starlette decides which)
            asyncio.run(self.upload_breaks_off(app))
        assert type(caught.value).__name__ == "ClientDisconnect"
        (sent,) = spans
        assert (sent.name, sent.status, sent.events) == ("POST /upload", "unset", ())
        assert sent.attributes[OUTCOME] == "disconnected"
        assert "error.type" not in sent.attributes

    def test_a_download_whose_client_leaves(self, spans: InMemoryExporter) -> None:
        async def main() -> None:
            sent: list[Message] = []

            async def receive() -> Message:
                return await asyncio.Event().wait()  # type: ignore[return-value]

            async def send(message: Message) -> None:
                if len(sent) == 3:
                    raise OSError("the client has gone")
                sent.append(message)

            async with asyncio.timeout(TIMEOUT_S):
                await RvhTraceMiddleware(self.app())(http_scope("/download"), receive, send)

        with pytest.raises(Exception) as caught:  # noqa: PT011 (Starlette decides which)
            asyncio.run(main())
        assert type(caught.value).__name__ == "ClientDisconnect"
        (sent,) = spans
        assert (ending(sent), sent.name) == (("unset", None, "disconnected", 200), "GET /download")


class TestCancellation:
    @pytest.mark.parametrize("messages", [[], [START], [START, body(more=True)]], ids=len)
    def test_by_the_server_is_its_own_ending(self, spans: InMemoryExporter, messages: list[Message]) -> None:
        """Users object to cancelled requests among the server errors (DataDog/dd-trace-py#17728)."""
        waiting = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            for message in messages:
                await send(message)
            waiting.set()
            await asyncio.Event().wait()

        async def main() -> None:
            task = asyncio.create_task(serve(RvhTraceMiddleware(app)))
            await asyncio.wait_for(waiting.wait(), TIMEOUT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        (sent,) = spans
        assert ending(sent) == ("unset", None, "cancelled", 200 if messages else None)

    def test_a_timeout_of_the_application_is_an_exception_of_its_own(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            run(app)
        assert ending(spans[0]) == ("error", "TimeoutError", None, None)

    def test_an_application_closed_where_it_stood_is_cancelled(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0)

        coroutine = serve(RvhTraceMiddleware(app))
        coroutine.send(None)
        coroutine.close()
        assert ending(spans[0]) == ("unset", None, "cancelled", None)
        assert not current_span().is_recording
