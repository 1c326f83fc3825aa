"""The types of the public signatures. For annotations: nothing imports it when a program runs.

The ASGI ones are those of the ASGI specification 3.0, "Applications".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Literal, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_Scalar: TypeAlias = str | bool | int | float | bytes

AttributeValue: TypeAlias = _Scalar | Sequence[_Scalar] | object
"""What an attribute may be: str, bool, int, float, bytes, or a list or tuple of them.

Anything else is recorded as its `str()`, and so is an integer beyond 64 bits.
"""

SpanKind: TypeAlias = Literal["internal", "server", "client", "producer", "consumer"]
"""The role of a span. Source: OpenTelemetry specification, "SpanKind"."""

SpanStatus: TypeAlias = Literal["unset", "ok", "error"]
"""The status of a span. Source: OpenTelemetry specification, "Set Status"."""

Carrier: TypeAlias = Mapping[str, Any] | Iterable[tuple[bytes, bytes]]
"""Headers to read: a mapping of strings, or `(name, value)` byte pairs as in an ASGI scope."""

MutableCarrier: TypeAlias = MutableMapping[str, str] | list[tuple[bytes, bytes]]
"""Headers to write: a mutable mapping of strings, or a list of `(name, value)` byte pairs."""
