"""Examples whose application plays a script: what it does, what the server does, and what happens from outside."""

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

from transparency.observation import Observation
from transparency.recipe import build, frozen

__all__ = ("CLOSE", "NOTE", "Action", "Example", "Run", "Suspend")

Action = tuple[Any, ...]

# What an application sets for others of its request; the middleware must not run it in a copy of the context.
_LEFT_BEHIND: contextvars.ContextVar[Any] = contextvars.ContextVar("_LEFT_BEHIND", default=None)
# `note` of the run that is going on, for applications that do not know their run.
NOTE: contextvars.ContextVar[Callable[..., None]] = contextvars.ContextVar("NOTE")
CLOSE = "close"


@dataclass(frozen=True)
class Example:
    """One example, of recipes.

    Attributes:
        scope: The scope.
        received: What `receive` gives, in order; then `http.disconnect`.
        script: What the application does, see `Run._play`.
        application: How the application is callable, a key of `Run.applications`.
        send: How the server's `send` is, a key of `Run.sends`.
        suspensions: How often `receive` and `send` suspend.
        fails_at: The message with which the server's `send` fails, counted from 0.
        failure: What it then raises.
        interruptions: What is thrown into the application at its n-th suspension, or `CLOSE`.
        late: What the application's `send` is called with after it has returned.
        inside_span: Whether the server calls it inside of another span.
        count_rounds: Whether the rounds of an event loop are events; not when threads take part.
    """

    scope: Any
    received: list[Any]
    script: list[Action]
    application: str = "function"
    send: str = "coroutine"
    suspensions: int = 0
    fails_at: int | None = None
    failure: Any = None
    interruptions: tuple[tuple[int, Any], ...] = ()
    late: tuple[Any, ...] = ()
    inside_span: bool = False
    count_rounds: bool = True


class Suspend:
    """Gives control to whoever drives the application, once; an event loop comes back in its next round.

    Not while the application of `run` is closed: Python forbids it.
    """

    def __init__(self, run: "Run | None" = None) -> None:
        self._run = run

    def __await__(self) -> Generator[None, None, None]:
        if self._run is None or not self._run.closing:
            yield


class _Sending:
    """An awaitable that is no coroutine, as servers written in other languages give."""

    def __init__(self, send: Callable[[Any], Awaitable[Any]], message: Any) -> None:
        self._send, self._message = send, message

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._send(self._message).__await__()


def _let_go(awaitable: Any) -> None:
    """A coroutine that nobody awaits is closed, or Python would warn."""
    if asyncio.iscoroutine(awaitable):
        awaitable.close()


class _Instance:
    def __init__(self, run: "Run") -> None:
        self._run = run

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        return await self._run.play(scope, receive, send)


class _Awaited:
    def __init__(self, run: "Run", *arguments: Any) -> None:
        self._run, self._arguments = run, arguments

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run.play(*self._arguments).__await__()


class Run:
    """One run of an example: the objects that it is made of, its application and its server."""

    def __init__(self, example: Example) -> None:
        self.example = example
        self.seen = Observation()
        named = self.seen.name
        self.scope: Any = named(build(example.scope), "scope")
        self._headers: Any = dict.get(self.scope, "headers") if isinstance(self.scope, dict) else None
        if not isinstance(self._headers, str | bytes | int | None):
            named(self._headers, "headers")
        self._received = [named(build(message), f"received {n}") for n, message in enumerate(example.received)]
        self._script = [(action[0], *map(build, action[1:])) for action in example.script]
        for n, action in enumerate(self._script):
            for argument in action[1:]:
                if isinstance(argument, BaseException | dict):
                    named(argument, f"action {n}")
                elif isinstance(argument, list):
                    for m, message in enumerate(argument):
                        named(message, f"action {n}.{m}")
        self._failure: Any = named(build(example.failure), "failure")
        self.interruptions = {step: named(build(what), "interruption") for step, what in example.interruptions}
        self.late: list[Any] = [named(build(message), f"late {n}") for n, message in enumerate(example.late)]
        self._sent = 0
        self.kept_send: Any = None
        self.closing = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.application: Any = getattr(self, f"_as_{example.application}")()
        self.send: Any = getattr(self, f"_send_{example.send}")

    # The application.

    def _as_function(self) -> Any:
        async def application(scope: Any, receive: Any, send: Any) -> Any:
            return await self.play(scope, receive, send)

        return application

    def _as_instance(self) -> Any:
        return _Instance(self)

    def _as_awaitable(self) -> Any:
        return lambda *arguments: _Awaited(self, *arguments)

    def _as_raising(self) -> Any:
        def application(scope: Any, receive: Any, send: Any) -> Any:
            self.seen.note("called", self.seen.seen(scope))
            raise TypeError("not today") if self._failure is None else self._failure

        return application

    def _as_unawaitable(self) -> Any:
        return lambda scope, receive, send: 7

    async def play(self, scope: Any, receive: Any, send: Any) -> Any:
        """The application: plays the script."""
        note = self.seen.note
        note("called", self.seen.seen(scope), sys.exc_info()[0])
        if isinstance(scope, dict):
            self._read_headers(dict.get(scope, "headers"))
        self.kept_send = send
        for action in self._script:
            match action:
                case ("return", value):
                    return value
                case ("raise", error):
                    raise error
                case ("raise while handling", handled, error):
                    try:
                        raise handled
                    except BaseException:
                        raise error  # noqa: B904 - the context is what is wanted
                case ("suppress", message):
                    try:
                        note("result", frozen(await send(message)))
                    except BaseException as error:
                        note("suppressed", self.seen.error(error))
                case ("finally", *messages):
                    try:
                        await Suspend(self)
                    finally:
                        for message in messages:
                            await send(message)
                case _:
                    await self._act(action, scope, receive, send)
        return None

    def _read_headers(self, headers: Any) -> None:
        try:
            self.seen.note("headers", self.seen.name_of(headers), [frozen(pair) for pair in headers])
        except Exception as error:
            self.seen.note("headers", type(error))

    async def _act(self, action: Action, scope: Any, receive: Any, send: Any) -> None:
        note = self.seen.note
        match action:
            case ("receive",):
                note("received", self.seen.seen(await receive()))
            case ("send", message):
                note("result", frozen(await send(message)))
            case ("send by keyword", message):
                note("result", frozen(await send(message=message)))
            case ("call send", message):
                _let_go(send(message))
            case ("await later", message, between):
                awaitable = send(message)
                try:
                    await send(between)
                except BaseException:
                    _let_go(awaitable)
                    raise
                await awaitable
            case ("suspend",):
                await Suspend(self)
            case ("put", key, value) if isinstance(scope, dict):
                scope[key] = value
            case ("clear",) if isinstance(scope, dict):
                scope.clear()
            case ("leave", value):
                _LEFT_BEHIND.set(value)
            case ("change", message, key, value) if isinstance(message, dict):
                await send(message)
                message[key] = value
            case ("spawn", messages):
                self.tasks.append(asyncio.create_task(self._send_all(send, messages)))
            case ("join",):
                note(
                    "joined",
                    [self._outcome(each) for each in await asyncio.gather(*self.tasks, return_exceptions=True)],
                )
            case ("gather", messages):
                sends = [self._send_all(send, [message]) for message in messages]
                note("gathered", [self._outcome(each) for each in await asyncio.gather(*sends, return_exceptions=True)])
            case ("group", messages):
                async with asyncio.TaskGroup() as group:
                    for message in messages:
                        group.create_task(self._send_all(send, [message]))
            case ("time out", messages):
                async with asyncio.timeout(0):
                    await self._send_all(send, messages)
                    await asyncio.Event().wait()
            case _:
                pass

    async def _send_all(self, send: Any, messages: list[Any]) -> None:
        for message in messages:
            await send(message)

    def _outcome(self, result: Any) -> Any:
        return self.seen.error(result) if isinstance(result, BaseException) else frozen(result)

    # The server.

    async def receive(self) -> Any:
        """The server's `receive`."""
        self.seen.note("receive")
        for _ in range(self.example.suspensions):
            await Suspend(self)
        return self._received.pop(0) if self._received else {"type": "http.disconnect"}

    def _take(self, message: Any) -> None:
        self.seen.note("sent", self.seen.seen(message))
        self._sent += 1
        if self.example.fails_at == self._sent - 1:
            raise OSError(32, "Broken pipe") if self._failure is None else self._failure

    async def _send_coroutine(self, message: Any) -> Any:
        self._take(message)
        for _ in range(self.example.suspensions):
            await Suspend(self)
        return None

    async def _send_valued(self, message: Any) -> Any:
        await self._send_coroutine(message)
        return "value"

    async def _send_slowly(self, message: Any) -> None:
        for _ in range(self.example.suspensions + 1):
            await Suspend(self)
        self._take(message)

    def _send_awaitable(self, message: Any) -> Any:
        return _Sending(self._send_coroutine, message)

    def _send_at_once(self, message: Any) -> Any:
        self._take(message)
        return Suspend(self)

    def _send_unawaitable(self, message: Any) -> Any:
        self._take(message)

    def _send_future(self, message: Any) -> Any:
        self._take(message)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        loop.call_soon(lambda: future.done() or future.set_result(None))
        return future

    # What is the same for every driver.

    async def serve(self, application: Any) -> Any:
        """What a server does with an application."""
        return await application(self.scope, self.receive, self.send)

    def look_back(self, current: Any) -> None:
        """Notes what the server sees after the application has gone."""
        self.seen.note("afterwards", self.seen.seen(self.scope), frozen(_LEFT_BEHIND.get()), current)
        if isinstance(self.scope, dict):
            headers = dict.get(self.scope, "headers")
            self.seen.note("headers afterwards", self.seen.seen(headers))
