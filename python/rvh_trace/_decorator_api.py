"""`@trace`: a span around every call of a function."""

from __future__ import annotations

from rvh_trace._rvh_trace import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, ParamSpec, TypeVar, overload

    from rvh_trace._types import AttributeValue, SpanKind

    P = ParamSpec("P")
    R = TypeVar("R")

    @overload
    def trace(name: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def trace(
        name: str | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        /,
        *,
        kind: SpanKind | None = None,
        **attrs: AttributeValue,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def trace(
    name: Callable[..., Any] | str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    /,
    *,
    kind: SpanKind | None = None,
    **attrs: AttributeValue,
) -> Callable[..., Any]:
    """Puts a span around every call of a function, coroutine function, generator or async generator function.

    The span is named after the function, `Shop.price`, unless a name is given. A generator's span lasts from its first
    step to its end and is current only while its body runs.

    Args:
        name: The span's name; the function's qualified name by default.
        attributes: Attributes of every span.
        kind: `internal` (default), `server`, `client`, `producer` or `consumer`.
        attrs: More attributes.

    Returns:
        The wrapped function, of the same kind, with the same signature.

    Example:
        >>> @trace
        ... def price(item):
        ...     return 3 * item
        >>> price(2)
        6
        >>> @trace("load", {"db.system.name": "sqlite"}, kind="client")
        ... async def load(key): ...
    """
    if name is not None and not isinstance(name, str):
        return span(_name_of(name))(name)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return span(name or _name_of(function), attributes, kind=kind, links=None, **attrs)(function)

    return decorate


def _name_of(function: Callable[..., Any]) -> str:
    """The qualified name of a function; of any other callable that of its class."""
    return getattr(function, "__qualname__", None) or type(function).__qualname__
