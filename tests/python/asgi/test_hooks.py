"""Functions of the application's that the middleware calls. One that raises is called no more, and said once."""

import asyncio
from typing import Any

import pytest
from handmade_server import LAST_BODY, START, answering, http_scope, serve

from asgi.serving import Message, Receive, Scope, Send, body, run, server_span, start
from rvh_trace import RvhTraceMiddleware, Span, current_span, span
from rvh_trace.errors import ConfigurationError
from rvh_trace.testing import InMemoryExporter

HOOKS = ["request_hook", "response_hook", "span_name"]


class TestRequestHook:
    def test_gets_the_current_span_and_the_scope(self, spans: InMemoryExporter) -> None:
        seen: list[Any] = []

        def hook(server: Span, scope: Scope) -> None:
            seen.append(scope)
            assert server is current_span()
            server.set_attribute("app.tenant", scope["path"])

        scope = http_scope()
        assert server_span(spans, scope=scope, request_hook=hook).attributes["app.tenant"] == "/items/7"
        assert seen == [scope]
        assert seen[0] is scope

    def test_may_make_spans_of_its_own(self, spans: InMemoryExporter) -> None:
        def hook(server: Span, scope: Scope) -> None:
            with span("in the hook"):
                pass

        server = server_span(spans, request_hook=hook)
        assert spans.one("in the hook").is_child_of(server)

    def test_may_change_the_scope_without_harm(self, spans: InMemoryExporter) -> None:
        def hook(server: Span, scope: Scope) -> None:
            scope.clear()  # type: ignore[attr-defined]

        assert server_span(spans, request_hook=hook).attributes["http.response.status_code"] == 200


class TestResponseHook:
    def test_gets_the_span_and_the_message_that_starts_the_response(self, spans: InMemoryExporter) -> None:
        seen: list[Message] = []

        def hook(server: Span, message: Message) -> None:
            seen.append(message)
            server.set_attribute("app.status", message["status"])

        messages = [start(201), body(more=True), body()]
        sent = server_span(spans, answering(*messages), response_hook=hook)
        assert sent.attributes["app.status"] == 201
        assert seen == messages[:1]

    def test_sees_the_headers_that_are_sent(self, spans: InMemoryExporter) -> None:
        seen: list[Any] = []
        server_span(
            spans,
            trace_response_headers="traceresponse",
            response_hook=lambda server, message: seen.extend(name for name, _ in message["headers"]),
        )
        assert b"traceresponse" in seen

    def test_is_not_called_without_a_response(self, spans: InMemoryExporter) -> None:
        seen: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

        server_span(spans, app, response_hook=lambda server, message: seen.append(message))
        assert seen == []


class TestSpanName:
    def test_names_the_span_by_the_scope(self, spans: InMemoryExporter) -> None:
        sent = server_span(spans, span_name=lambda scope: f"page {scope['path']}")
        assert sent.name == "page /items/7"

    def test_comes_before_the_route_which_stays_an_attribute(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["rvh_trace.http.route"] = "/items/{id}"
            await answering()(scope, receive, send)

        sent = server_span(spans, app, span_name=lambda scope: "mine")
        assert (sent.name, sent.attributes["http.route"]) == ("mine", "/items/{id}")

    def test_is_asked_when_the_request_is_over(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["operation"] = "list items"
            await answering()(scope, receive, send)

        assert server_span(spans, app, span_name=lambda scope: scope.get("operation")).name == "list items"

    def test_none_leaves_the_name(self, spans: InMemoryExporter) -> None:
        assert server_span(spans, span_name=lambda scope: None).name == "GET"

    def test_names_a_request_that_failed(self, spans: InMemoryExporter) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raise ValueError("sold out")

        with pytest.raises(ValueError, match="sold out"):
            run(app, span_name=lambda scope: "mine")
        assert [one.name for one in spans] == ["mine"]

    @pytest.mark.parametrize("wrong", [7, b"bytes", object()], ids=["int", "bytes", "object"])
    def test_a_wrong_result_is_said_once_and_it_is_not_asked_again(
        self, spans: InMemoryExporter, capfd: pytest.CaptureFixture[str], wrong: Any
    ) -> None:
        calls: list[object] = []

        def name(scope: Scope) -> Any:
            calls.append(scope)
            return wrong

        three_requests(spans, span_name=name)
        assert (len(calls), [one.name for one in spans]) == (1, ["GET"] * 3)
        (line,) = capfd.readouterr().err.splitlines()
        assert "span_name" in line
        assert type(wrong).__name__ in line


def three_requests(spans: InMemoryExporter, **options: Any) -> None:
    """Three requests to one middleware, each answered as it would be without."""
    middleware = RvhTraceMiddleware(answering(), **options)

    async def main() -> None:
        for _ in range(3):
            assert await serve(middleware) == [START, LAST_BODY]

    asyncio.run(main())
    assert len(spans) == 3


@pytest.mark.parametrize("hook", HOOKS)
def test_one_that_raises_is_called_no_more_and_said_once(
    spans: InMemoryExporter, capfd: pytest.CaptureFixture[str], hook: str
) -> None:
    calls: list[object] = []

    def broken(*arguments: object) -> None:
        calls.append(arguments)
        raise RuntimeError("broken by mistake")

    three_requests(spans, **dict[str, Any]({hook: broken}))
    assert len(calls) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("rvh_trace: error: ")
    assert hook in line
    assert "broken by mistake" in line
    assert [(one.name, one.status) for one in spans] == [("GET", "unset")] * 3


@pytest.mark.parametrize("hook", HOOKS)
def test_one_with_too_few_parameters_harms_nothing(
    spans: InMemoryExporter, capfd: pytest.CaptureFixture[str], hook: str
) -> None:
    three_requests(spans, **{hook: lambda: None})
    assert len(capfd.readouterr().err.splitlines()) == 1


# At the last message: the server's awaitable is there already, and nobody awaits it.
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.parametrize("hook", HOOKS)
def test_an_interrupt_in_one_is_not_swallowed(spans: InMemoryExporter, hook: str) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(**dict[str, Any]({hook: interrupted}))


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("wrong", [7, "function", True], ids=repr)
def test_a_wrong_argument_is_named(hook: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{hook}.*function"):
        RvhTraceMiddleware(answering(), **{hook: wrong})


@pytest.mark.parametrize("hook", HOOKS)
def test_a_request_that_is_not_sampled_is_served(hook: str) -> None:
    with InMemoryExporter(sampler="always_off") as spans:
        assert run(**dict[str, Any]({hook: lambda *arguments: None})) == [START, LAST_BODY]
        assert list(spans) == []


@pytest.mark.parametrize(
    ("argument", "wrong"),
    [
        ("phases", "yes"),
        ("phases", 1),
        ("websocket_messages", "true"),
        ("opt_in", "http.status"),
        ("opt_in", ["client.port", 7]),
        ("error_outcomes", "404"),
        ("error_outcomes", 5),
        ("known_methods", "GET IT"),
        ("known_methods", 7),
        ("trace_response_headers", "x-trace"),
        ("trace_response_headers", True),
        ("framework", 7),
    ],
)
def test_every_other_wrong_argument_is_named(argument: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        RvhTraceMiddleware(answering(), **{argument: wrong})


def test_an_argument_that_there_is_not_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="exclude_urls"):
        RvhTraceMiddleware(answering(), exclude_urls="/health")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
