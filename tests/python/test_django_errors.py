"""Exceptions inside Django: those it turns into responses, and those it lets through."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django_site import TRACING, Run, SoldOutError, application, status_of, visit

from rvh_trace.testing import InMemoryExporter

SOLD_OUT = "django_site.SoldOutError"


@pytest.fixture
def body_left_open() -> Iterator[None]:
    """Django leaves the file with the request's body to the garbage collector when its handler raises."""
    yield
    gc.collect()


class BrokenError(Exception):
    """Raised outside of views."""


def broken_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        raise BrokenError("a middleware")

    return middleware


class Apologising:
    """A middleware that answers the exceptions of views itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        return HttpResponse("sorry", status=409)


def broken_handler(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
    raise BrokenError("an error handler")


class BrokenHandlers:
    """A URL configuration."""

    from django_site import urlpatterns

    handler404 = staticmethod(broken_handler)
    handler500 = staticmethod(broken_handler)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(("path", "view"), [("/fail/sold out/", "fail"), ("/fail-sync/sold out/", "fail_sync")])
def test_an_exception_that_becomes_a_500_is_an_event_of_the_server_span(
    run: Run, spans: InMemoryExporter, path: str, view: str, debug: bool
) -> None:
    with override_settings(DEBUG=debug):
        assert status_of(run(visit(application(), path))) == 500
    (server,) = spans
    assert server.name == f"GET {path.replace('sold out', '<str:why>')}"
    assert server.attributes["http.response.status_code"] == 500
    assert server.attributes["error.type"] == "500"
    assert (server.status, server.status_description) == ("error", "")
    (event,) = server.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == SOLD_OUT
    assert event.attributes["exception.message"] == "sold out"
    assert f"in {view}" in str(event.attributes["exception.stacktrace"])
    assert server.start_unix_ns <= event.unix_ns <= server.end_unix_ns


@pytest.mark.parametrize(("how", "status"), [("missing", 404), ("denied", 403), ("suspicious", 400)])
def test_an_exception_that_becomes_a_4xx_is_no_error(run: Run, spans: InMemoryExporter, how: str, status: int) -> None:
    assert status_of(run(visit(application(), f"/refuse/{how}/"))) == status
    (server,) = spans
    assert (server.name, server.status, server.events) == ("GET /refuse/<str:how>/", "unset", ())
    assert "error.type" not in server.attributes


def test_a_5xx_that_a_view_returns_has_no_event(run: Run, spans: InMemoryExporter) -> None:
    assert status_of(run(visit(application(), "/status/503/"))) == 503
    (server,) = spans
    assert (server.attributes["error.type"], server.status, server.events) == ("503", "error", ())


@pytest.mark.parametrize("position", ["before", "after"])
def test_the_exception_of_a_middleware_is_recorded_wherever_it_stands(
    run: Run, spans: InMemoryExporter, position: str
) -> None:
    broken = f"{__name__}.broken_middleware"
    middleware = [broken, TRACING] if position == "before" else [TRACING, broken]
    assert status_of(run(visit(application(MIDDLEWARE=middleware), "/articles/2003/"))) == 500
    (server,) = spans
    assert (server.name, server.attributes["error.type"]) == ("GET", "500")
    assert [event.attributes["exception.type"] for event in server.events] == [f"{__name__}.BrokenError"]


def test_an_exception_that_is_reported_without_a_request_is_recorded(run: Run, spans: InMemoryExporter) -> None:
    assert status_of(run(visit(application(), "/report/"))) == 200
    (server,) = spans
    assert [event.attributes["exception.type"] for event in server.events] == [SOLD_OUT]
    assert server.status == "unset"


def test_an_exception_that_a_middleware_handles_is_not_recorded(run: Run, spans: InMemoryExporter) -> None:
    app = application(MIDDLEWARE=[TRACING, f"{__name__}.Apologising"])
    assert status_of(run(visit(app, "/fail/sold out/"))) == 409
    (server,) = spans
    assert (server.status, server.events) == ("unset", ())


def test_the_exception_of_a_404_handler_is_recorded_once(run: Run, spans: InMemoryExporter) -> None:
    class Working(BrokenHandlers):
        handler500 = staticmethod(lambda request: HttpResponse("sorry", status=500))

    with override_settings(ROOT_URLCONF=Working):
        assert status_of(run(visit(application(), "/nothing"))) == 500
    (server,) = spans
    assert [event.attributes["exception.message"] for event in server.events] == ["an error handler"]
    assert (server.name, server.attributes["error.type"]) == ("GET", "500")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("body_left_open")
def test_when_the_500_handler_fails_too_the_first_and_the_escaping_exception_are_recorded(
    run: Run, spans: InMemoryExporter
) -> None:
    """Every middleware calls the handler again, so Django reports it once for each."""
    app = application(MIDDLEWARE=[TRACING, f"{__name__}.Passing", f"{__name__}.Passing"])
    with override_settings(ROOT_URLCONF=BrokenHandlers), pytest.raises(BrokenError, match="an error handler"):
        run(visit(app, "/fail/sold out/"))
    (server,) = spans
    assert [event.attributes["exception.message"] for event in server.events] == ["sold out", "an error handler"]
    assert server.attributes["error.type"] == f"{__name__}.BrokenError"
    assert server.attributes["http.route"] == "/fail/<str:why>/"


class Passing:
    """A middleware that is not there once it is loaded."""

    sync_capable = async_capable = True

    def __new__(cls, get_response: Any) -> Any:
        return get_response


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("body_left_open")
def test_an_exception_that_django_lets_through_is_recorded_once(run: Run, spans: InMemoryExporter) -> None:
    with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True), pytest.raises(SoldOutError):
        run(visit(application(), "/fail/sold out/"))
    (server,) = spans
    assert [event.attributes["exception.type"] for event in server.events] == [SOLD_OUT]
    assert (server.attributes["error.type"], server.status_description) == (SOLD_OUT, "sold out")
    assert "http.response.status_code" not in server.attributes
    assert server.name == "GET /fail/<str:why>/"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("body_left_open")
def test_an_exception_in_the_middle_of_a_stream_is_an_error_with_the_status_that_was_sent(
    run: Run, spans: InMemoryExporter
) -> None:
    with pytest.raises(SoldOutError):
        run(visit(application(), "/stream-and-fail/"))
    (server,) = spans
    assert server.attributes["http.response.status_code"] == 200
    assert (server.attributes["error.type"], server.status) == (SOLD_OUT, "error")
    assert "rvh_trace.outcome" not in server.attributes
    assert len(server.events) == 1
