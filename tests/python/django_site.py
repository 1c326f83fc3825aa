"""A Django site for tests, and what it takes to send it requests: by hand, or through a real server."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import django
import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.core.signals import got_request_exception
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import include, path, re_path
from handmade_server import App, Message, http_scope

from rvh_trace import current_span, span
from rvh_trace.django import wrap_application
from rvh_trace.testing import FinishedSpan, InMemoryExporter

TRACING = "rvh_trace.django.TracingMiddleware"
SYNC_ONLY = f"{__name__}.sync_only"
DEADLINE_S = 20.0

Run = Callable[[Coroutine[Any, Any, Any]], Any]

settings.configure(
    ALLOWED_HOSTS=["*"],
    LOGGING_CONFIG=None,
    MIDDLEWARE=[TRACING],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of no use outside tests",
    USE_TZ=True,
)
django.setup()


class SoldOutError(Exception):
    """Raised by a view."""


def sync_only(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware as it was before Django 3.1."""
    return lambda request: get_response(request)


class Gate:
    """Where a view waits until the test lets it go on."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.cancelled = 0

    async def wait(self) -> None:
        self.reached.set()
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


gate = Gate()


def new_gate() -> Gate:
    """A closed gate for the next requests. To be called inside the event loop."""
    global gate
    gate = Gate()
    return gate


async def answer(request: HttpRequest, **parameters: object) -> HttpResponse:
    return HttpResponse("ok")


async def status(request: HttpRequest, status: int) -> HttpResponse:
    return HttpResponse("ok", status=status)


async def where(request: HttpRequest) -> HttpResponse:
    with span("in an async view"):
        return HttpResponse(str(threading.get_ident()))


def where_sync(request: HttpRequest) -> HttpResponse:
    current_span().set_attribute("test.set_in", "a sync view")
    with span("in a sync view"):
        return HttpResponse(str(threading.get_ident()))


async def gather(request: HttpRequest) -> HttpResponse:
    async def branch() -> None: ...

    branch.__qualname__ = "branch"
    async with asyncio.TaskGroup() as group:
        group.create_task(branch())
        group.create_task(branch())
    return HttpResponse("ok")


async def fail(request: HttpRequest, why: str) -> HttpResponse:
    raise SoldOutError(why)


def fail_sync(request: HttpRequest, why: str) -> HttpResponse:
    raise SoldOutError(why)


async def report(request: HttpRequest) -> HttpResponse:
    """Tells the receivers of Django's signal and goes on, as libraries do."""
    try:
        raise SoldOutError("reported")
    except SoldOutError:
        got_request_exception.send(sender=None)
    return HttpResponse("ok")


async def refuse(request: HttpRequest, how: str) -> HttpResponse:
    raise {"missing": Http404, "denied": PermissionDenied, "suspicious": SuspiciousOperation}[how]("no")


async def overlap(request: HttpRequest, number: int) -> HttpResponse:
    await gate.wait()
    current_span().set_attribute("own", number)
    with span(f"own {number}"):
        await asyncio.sleep(0)
    return HttpResponse(str(number), status=200 + number)


async def wait(request: HttpRequest, name: str) -> HttpResponse:
    await gate.wait()
    return HttpResponse(name)


def stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield "first "
        await gate.wait()
        with span("second part"):
            yield "second"

    return StreamingHttpResponse(parts())


def stream_sync(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[str]:
        for number in range(3):
            with span(f"part {number}"):
                yield str(number)

    return StreamingHttpResponse(parts())


async def stream_and_fail(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        yield "first "
        raise SoldOutError("half way")

    return StreamingHttpResponse(parts())


api = [
    path("items/<slug:slug>/", answer),
    re_path(r"^v(\d+)/users\.(?P<format>json|xml)$", answer),
    re_path(r"^(?:tags|labels)/(?P<tag>(?:[a-z]|\))+)\Z", answer),
]
urlpatterns = [
    path("", answer),
    path("articles/<int:year>/", answer),
    re_path(r"^archive/(?P<year>[0-9]{4})/$", answer),
    path("api/", include(api)),
    re_path(r"^legacy-(?P<tenant>\w+)/", include(api)),
    path("status/<int:status>/", status),
    path("where/", where),
    path("where-sync/", where_sync),
    path("gather/", gather),
    path("fail/<str:why>/", fail),
    path("fail-sync/<str:why>/", fail_sync),
    path("report/", report),
    path("refuse/<str:how>/", refuse),
    path("overlap/<int:number>/", overlap),
    path("wait/<str:name>/", wait),
    path("stream/<str:name>/", stream),
    path("stream-sync/", stream_sync),
    path("stream-and-fail/", stream_and_fail),
]


def application(*, wrapped: bool = True, **overrides: Any) -> App:
    """The site's ASGI application, loaded with other settings than above where `overrides` says so."""
    with override_settings(**overrides):
        loaded = get_asgi_application()
        return wrap_application(loaded) if wrapped else cast("App", loaded)


async def visit(app: App, path: str = "/", *, leave: asyncio.Event | None = None, **scope: Any) -> list[Message]:
    """One request, as a server makes it: the client is there until the last message or until `leave` is set."""
    sent: list[Message] = []
    over = leave or asyncio.Event()
    requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        for message in requests:
            return message
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            over.set()

    await app(http_scope(path, **scope), receive, send)
    return sent


def status_of(sent: list[Message]) -> int:
    return next(message["status"] for message in sent if message["type"] == "http.response.start")


def body_of(sent: list[Message]) -> bytes:
    return b"".join(
        message["body"] for message in sent if message["type"] == "http.response.body" and "body" in message
    )


@asynccontextmanager
async def serving(app: App) -> AsyncGenerator[int]:
    """The port of a uvicorn on this event loop, ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            await until(lambda: server.started)
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            await running


def traced(run: Run, spans: InMemoryExporter, app: App, path: str, **scope: Any) -> tuple[FinishedSpan, int]:
    """The one SERVER span of a request for `path`, and the status that was sent."""
    spans.clear()
    sent = run(visit(app, path, **scope))
    (server,) = (one for one in spans if one.kind == "server")
    return server, status_of(sent)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; raises `TimeoutError` after `DEADLINE_S`."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 (nothing tells when)
            await asyncio.sleep(0.005)
