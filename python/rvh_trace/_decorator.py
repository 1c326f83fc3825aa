"""Functions in spans: what `@trace` and `@span(...)` make of sync, async and generator functions.

A generator's span lasts from its first step to its end and is current only while its body runs, so it is never current
in the code that iterates.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from rvh_trace._rvh_trace import step_in, step_out

if TYPE_CHECKING:
    from rvh_trace._rvh_trace import SpanTemplate


def traced_function(function: Callable[..., Any], template: SpanTemplate) -> Callable[..., Any]:
    """`function`, with a span of `template` around every call."""
    if isinstance(function, staticmethod | classmethod):
        return type(function)(traced_function(function.__func__, template))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportReturnType, reportUnknownVariableType]
    if inspect.isasyncgenfunction(function):
        wrapper = _async_generator(function, template)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, template)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function, template)
    else:
        wrapper = _plain(function, template)
    return functools.update_wrapper(wrapper, function)


def _plain(function: Callable[..., Any], template: SpanTemplate) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with template.span():
            return function(*args, **kwargs)

    return call


def _coroutine(function: Callable[..., Any], template: SpanTemplate) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with template.span():
            return await function(*args, **kwargs)

    return call


def _generator(function: Callable[..., Generator[Any, Any, Any]], template: SpanTemplate) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        body = function(*args, **kwargs)
        span = inside = template.start()
        step: Callable[[], Any] = functools.partial(next, body)
        try:
            while True:
                token = step_in(inside)
                try:
                    item = step()
                except StopIteration as stop:
                    span.finish()
                    return stop.value
                finally:
                    inside = step_out(token)
                try:
                    sent = yield item
                except BaseException as error:
                    step = functools.partial(body.throw, error)
                else:
                    step = functools.partial(body.send, sent)
        except BaseException as error:
            span.finish(error)
            raise

    return call


def _async_generator(function: Callable[..., AsyncGenerator[Any, Any]], template: SpanTemplate) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        body = function(*args, **kwargs)
        span = inside = template.start()
        step: Callable[[], Any] = functools.partial(_first_step, body)
        try:
            while True:
                token = step_in(inside)
                try:
                    item = await step()
                except StopAsyncIteration:
                    span.finish()
                    return
                finally:
                    inside = step_out(token)
                try:
                    sent = yield item
                except BaseException as error:
                    step = functools.partial(body.athrow, error)
                else:
                    step = functools.partial(body.asend, sent)
        except BaseException as error:
            span.finish(error)
            raise

    return call


def _first_step(body: AsyncGenerator[Any, Any]) -> Awaitable[Any]:
    """`anext(body)`, with the body kept from the event loop's hooks.

    The loop closes the generators it knows, at its end or when they are garbage. It knows the wrapper, which closes the
    body; both at once would get in each other's way ("async generator ignored GeneratorExit"). Nor may the interpreter
    close the body when it is garbage: a hook of ours leaves that to the wrapper. If the loop was closed before, the
    wrapper is not resumed, and the body is not closed either, as with any async generator of a closed loop.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None, finalizer=hooks.finalizer and _left_to_the_wrapper)
    try:
        return anext(body)
    finally:
        sys.set_asyncgen_hooks(*hooks)


def _left_to_the_wrapper(body: AsyncGenerator[Any, Any]) -> None:
    """Finalises nothing."""
