"""The end of an ASGI application's lifespan: the last spans are sent before the server hears of it.

uvicorn raises the signal that stopped it again once the application has shut down, so `atexit` never runs there. The
last message of the lifespan protocol is the last that an application says in any server: what waits is sent in its way.
"""

from __future__ import annotations

from rvh_trace._rvh_trace import flush_before_exit
from rvh_trace.lifecycle import off_loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any

    from rvh_trace._types import Message, Send

_LAST_MESSAGES = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


def flushing(send: Send) -> Send:
    """The `send` of a lifespan, which sends the last spans before it passes the last message on.

    Other messages go straight to the server's `send`. The flush takes `exit_timeout_ms` at most, does not block the
    event loop and cannot fail: a message is passed on whatever became of the spans.

    Source: ASGI specification 3.0, "Lifespan Protocol".
    """

    def send_or_flush(*args: Any, **kwargs: Any) -> Awaitable[None]:
        # As a server would be called, wrong calls included.
        if len(args) == 1 and _is_last(args[0]):
            return _flush_and_send(send, args[0])
        return send(*args, **kwargs)

    return send_or_flush


def _is_last(message: object) -> bool:
    kind = message.get("type") if type(message) is dict else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return type(kind) is str and kind in _LAST_MESSAGES  # pyright: ignore[reportUnknownArgumentType]


async def _flush_and_send(send: Send, message: Message) -> None:
    await off_loop(flush_before_exit)
    return await send(message)
