"""Django 5 under ASGI: the server span with the route and the exceptions that only Django knows.

    # asgi.py
    application = wrap_application(get_asgi_application())

    # settings.py
    MIDDLEWARE = ["rvh_trace.django.TracingMiddleware", ...]

`wrap_application` makes the span and ends it with the last byte; `TracingMiddleware` tells it what Django dispatched to
and what went wrong inside. Neither moves a request to a thread or back. They meet in the scope, because in between
Django makes tasks, threads and contexts of its own. Every function here may run on any thread and costs a few dict
look-ups.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rvh_trace._routes import ROUTE_KEY, route_template
from rvh_trace._rvh_trace import ServerSpan, TaskFactory, current_span, step_in, step_out
from rvh_trace.asgi import RvhTraceMiddleware

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.conf import settings
    from django.core.signals import got_request_exception
except ModuleNotFoundError as _missing:
    if (_missing.name or "").partition(".")[0] not in ("asgiref", "django"):
        raise
    raise ImportError("rvh_trace.django needs Django 5: pip install 'Django>=5'", name=_missing.name) from _missing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from django.core.handlers.asgi import ASGIHandler
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from rvh_trace._types import ASGIApp, Receive, Scope, Send

    GetResponse = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]

__all__ = ("TracingMiddleware", "wrap_application")

_SERVER_SPAN = "rvh_trace.server_span"
_RECORDED = "_rvh_trace_recorded"


def wrap_application(application: ASGIApp | ASGIHandler, **options: Any) -> RvhTraceMiddleware:
    """A Django ASGI application with one SERVER span a request.

    The span lasts until the last byte of the response has been handed to the server, streaming responses included.
    Route and exceptions need `rvh_trace.django.TracingMiddleware` in `settings.MIDDLEWARE` as well.

    A request that Django gives up because its client went away is marked `rvh_trace.outcome: disconnected` and is no
    error.
    With `install_task_factory`, the two tasks that Django makes of each request get no spans; the server span is then
    current from `TracingMiddleware` on, no longer in receivers of `request_started`.

    Args:
        application: What `django.core.asgi.get_asgi_application()` returned.
        options: As for `RvhTraceMiddleware`; `framework` is `django` unless it says otherwise.

    Returns:
        An ASGI 3 application.

    Warns:
        RuntimeWarning: `TracingMiddleware` is not in `settings.MIDDLEWARE`, so spans would lack route and exceptions.

    Example:
        >>> from django.core.asgi import get_asgi_application
        >>> application = wrap_application(get_asgi_application())

    Source: Django documentation, "How to deploy with ASGI", "Applying ASGI middleware".
    """
    # `get_asgi_application()` has loaded the middleware.
    if not TracingMiddleware.is_loaded:
        warnings.warn(
            "server spans will have neither route nor exceptions of Django: "
            "put 'rvh_trace.django.TracingMiddleware' first in settings.MIDDLEWARE",
            RuntimeWarning,
            stacklevel=2,
        )
    options.setdefault("framework", "django")
    return RvhTraceMiddleware(_ServerSpanInScope(cast("ASGIApp", application)), **options)


class _ServerSpanInScope:
    """Between `RvhTraceMiddleware` and Django: hands the server span of the request over in the scope."""

    __slots__ = ("_application",)

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = current_span()
        if not isinstance(span, ServerSpan):
            await self._application(scope, receive, send)
            return
        scope = {**scope, _SERVER_SPAN: span}
        if TracingMiddleware.is_loaded and _makes_spans_of_tasks(asyncio.get_running_loop()):
            # Django's own tasks are no work of the application, and one of them fails in every request. Where nothing
            # is current they get no spans; `TracingMiddleware` makes the server span current again inside.
            token = step_in(None)
            try:
                await self._application(scope, receive, send)
            finally:
                step_out(token)
        else:
            await self._application(scope, receive, send)


class TracingMiddleware:
    """The Django middleware that gives the server span its `http.route` and its exception.

    Put it first in `settings.MIDDLEWARE`. It works in asynchronous and synchronous stacks and adds no change of thread.

    - `http.route` is the pattern that Django's resolver matched, `/articles/<int:year>/`, with the script name or the
      mounts of an outer framework before it. Of a regular expression, anchors go, groups become placeholders and the
      rest stays: `^articles/(?P<year>[0-9]{4})/$` gives `/articles/<year>/`. What matches nothing has no route.
    - An exception that Django turns into a 500 becomes an `exception` event of the server span; `error.type` is `500`.
      Those it turns into 4xx responses (`Http404`, `PermissionDenied`, ...) are not errors of the server.

    Without `wrap_application` it finds the span of a plain `RvhTraceMiddleware`, unless `install_task_factory` makes
    the span of a task current inside Django. Without either it does nothing.

    Example:
        >>> MIDDLEWARE = [
        ...     "rvh_trace.django.TracingMiddleware",
        ...     "django.middleware.common.CommonMiddleware",
        ... ]

    Sources: Django documentation, "Middleware", "Asynchronous support"; HTTP semantic conventions 1.44, `http.route`.
    """

    sync_capable = True
    async_capable = True
    is_loaded: ClassVar[bool] = False
    """Whether a Django handler of this process has it in its middleware."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response: Callable[[HttpRequest], Any] = get_response
        # On Python 3.11 no other knows what `markcoroutinefunction` has marked.
        self._is_async = iscoroutinefunction(get_response)  # pyright: ignore[reportDeprecated]
        if self._is_async:
            markcoroutinefunction(self)
        got_request_exception.connect(  # pyright: ignore[reportUnknownMemberType]: no type in its stub
            _record_exception, dispatch_uid=_SERVER_SPAN
        )
        TracingMiddleware.is_loaded = True

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._respond(request)
        _make_current(request)
        try:
            return cast("HttpResponseBase", self._get_response(request))
        finally:
            _note_route(request)

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        _make_current(request)
        try:
            return cast("HttpResponseBase", await self._get_response(request))
        finally:
            _note_route(request)


def _server_span(request: HttpRequest | None) -> ServerSpan | None:
    span = _scope(request).get(_SERVER_SPAN) or current_span()
    return span if isinstance(span, ServerSpan) else None


def _scope(request: HttpRequest | None) -> Mapping[str, Any]:
    """The ASGI scope; a request under WSGI, or one made for a test, has none."""
    return getattr(request, "scope", None) or {}


def _makes_spans_of_tasks(loop: asyncio.AbstractEventLoop) -> bool:
    return isinstance(getattr(loop.get_task_factory(), "__self__", None), TaskFactory)


def _make_current(request: HttpRequest) -> None:
    """Never undone: the response is streamed in the context of the task that runs the middleware, and ends with it."""
    span = _scope(request).get(_SERVER_SPAN)
    if isinstance(span, ServerSpan) and not current_span().context.is_valid:
        step_in(span)


def _note_route(request: HttpRequest) -> None:
    span = _server_span(request)
    if span is None:
        return
    try:
        route = _full_route(request)
    except Exception:
        # What an outer framework's next release leaves in the scope must not cost the response.
        if os.environ.get("RVH_TRACE_STRICT") == "1":
            raise
        return
    if route is not None:
        span.set_route(route)


def _full_route(request: HttpRequest) -> str | None:
    matched: object = getattr(request.resolver_match, "route", None)
    if not isinstance(matched, str):
        return None
    script_name, scope = str(request.META.get("SCRIPT_NAME", "")), _scope(request)
    dispatched: dict[str, Any] = {ROUTE_KEY: _template(matched), "root_path": script_name}
    # Mounts of an outer framework are in `root_path` with the values of their parameters; `FORCE_SCRIPT_NAME` replaces
    # all of it.
    if script_name == scope.get("root_path"):
        dispatched |= {key: scope[key] for key in ("app_root_path", "router") if key in scope}
    return route_template(dispatched)


_REGEX_TOKEN = re.compile(
    r"""
      \\.                                    # an escape
    | \[\^?\]?(?:\\.|[^\]\\])*\]             # a set of characters
    | \(\?[a-zA-Z]+\)                        # flags
    | \(\?P<(?P<name>\w+)>                   # a named group
    | \(\?                                  # a group that captures nothing
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
_ANCHORS = frozenset(("^", "$", r"\A", r"\Z", r"\z", r"\b", r"\B"))


@lru_cache(maxsize=1024)
def _template(route: str) -> str:
    """`/articles/<int:year>/` of a `path()` and `/articles/<year>/` of a `re_path()`.

    Django joins the two kinds and does not say which is which. A `path()` that passes its checks has no such signs.
    """
    if not any(sign in route for sign in ("^", "$", "\\", "(?")):
        return f"/{route}"
    parts, groups = ["/"], list[bool]()  # for each open group, whether it captures
    for token in _REGEX_TOKEN.finditer(route):
        text, name = token[0], token["name"]
        captured = any(groups)
        if text == ")":
            text = "" if groups and groups.pop() else text
        elif text == "(?":
            groups.append(False)
        elif text == "(" or name:
            groups.append(True)
            text = f"<{name or 'var'}>"
        elif text in _ANCHORS:
            text = ""
        elif len(text) == 2 and text[0] == "\\" and not text[1].isalnum():
            text = text[1]
        if not captured:
            parts.append(text)
    return "".join(parts)


def _record_exception(sender: object, request: HttpRequest | None = None, **_: object) -> None:
    """Receives `got_request_exception`: sent where an exception is handled, and again when an error handler fails."""
    error, span = sys.exception(), _server_span(request)
    # One that Django lets through again reaches `RvhTraceMiddleware`.
    if error is None or span is None or settings.DEBUG_PROPAGATE_EXCEPTIONS or hasattr(request, _RECORDED):
        return
    span.record_exception(error)
    if request is not None:
        setattr(request, _RECORDED, True)
