"""Middlewares that are broken on purpose, each in one way: a suite that does not find them out proves nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from rvh_trace import RvhTraceMiddleware, current_span, new_span
from transparency.script import Suspend

App = Callable[[Any, Any, Any], Awaitable[Any]]


class Traced:
    """Not broken itself; has the real middleware inside it."""

    def __init__(self, application: App, **options: Any) -> None:
        self.application: App = RvhTraceMiddleware(application, **options)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await self.application(scope, receive, send)


class SwallowsErrors(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            return await self.application(scope, receive, send)
        except Exception:
            pass


class SwallowsCancellation(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            return await self.application(scope, receive, send)
        except asyncio.CancelledError:
            pass


class ReplacesErrors(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            return await self.application(scope, receive, send)
        except ValueError as error:
            raise ValueError(*error.args).with_traceback(error.__traceback__) from error.__cause__


class ChainsErrors(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            return await self.application(scope, receive, send)
        except Exception as error:
            raise error from error.__cause__


class AnnotatesErrors(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            return await self.application(scope, receive, send)
        except Exception as error:
            error.add_note("seen by a middleware")
            raise


class CutsTracebacks(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        try:
            return await self.application(scope, receive, send)
        except Exception as error:
            raise error.with_traceback(None)  # noqa: B904 - it must not be chained


class SendsThrough(Traced):
    """Not broken itself; wraps `send` for those that are."""

    def send(self, message: Any, send: Any) -> Any:
        return send(message)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await self.application(scope, receive, lambda message: self.send(message, send))


class CopiesMessages(SendsThrough):
    def send(self, message: Any, send: Any) -> Any:
        return send(dict(message) if type(message) is dict else message)


class ChangesMessages(SendsThrough):
    def send(self, message: Any, send: Any) -> Any:
        if type(message) is dict and message.get("type") == "http.response.start":
            message.setdefault("headers", [])
        return send(message)


class DropsABody(SendsThrough):
    def send(self, message: Any, send: Any) -> Any:
        if type(message) is dict and message.get("type") == "http.response.body" and message.get("body") == b"chunk":
            return self.nothing()
        return send(message)

    async def nothing(self) -> None: ...


class SuspendsOnce(SendsThrough):
    async def send(self, message: Any, send: Any) -> Any:
        await Suspend()
        return await send(message)


class LosesResults(SendsThrough):
    async def send(self, message: Any, send: Any) -> Any:
        await send(message)


class RejectsBadStatus(SendsThrough):
    def send(self, message: Any, send: Any) -> Any:
        if type(message) is dict and message.get("type") == "http.response.start":
            int(message.get("status", 0))
        return send(message)


class ReadsHeaders(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if isinstance(scope, dict):
            scope["headers"] = list(scope.get("headers") or ())
        return await self.application(scope, receive, send)


class ConsumesHeaders(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if isinstance(scope, dict):
            dict(pair for pair in scope.get("headers") or () if isinstance(pair, tuple) and len(pair) == 2)
        return await self.application(scope, receive, send)


class AddsToTheScope(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if type(scope) is dict:
            scope["rvh_trace"] = True
        return await self.application(scope, receive, send)


class CopiesTheScope(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await self.application(dict(scope) if type(scope) is dict else scope, receive, send)


class ReceivesAhead(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        first = [await receive()]

        async def replayed() -> Any:
            return first.pop() if first else await receive()

        return await self.application(scope, replayed, send)


class RunsInATask(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await asyncio.create_task(self.application(scope, receive, send))  # type: ignore[arg-type]


class LeavesASpan(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        new_span("left behind").activate().__enter__()
        return await self.application(scope, receive, send)


class MakesTwoSpans(Traced):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        if current_span().is_recording or type(scope) is dict:
            new_span("another", kind="server").end()
        return await self.application(scope, receive, send)


class MakesNoSpan:
    def __init__(self, application: App) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await self.application(scope, receive, send)
