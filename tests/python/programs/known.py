"""Programs of every construct, made by hand: they are run at every step, and under stress."""

from programs.program import (
    ASYNC_SPANS,
    ASYNC_THREADS,
    CALLBACKS,
    ENDINGS,
    EXPIRIES,
    FORKS,
    SYNC_ENDINGS,
    SYNC_THREADS,
    Body,
    Callback,
    Catch,
    Expire,
    Fail,
    Fork,
    Iterate,
    Managed,
    Node,
    Open,
    Outside,
    Pause,
    Thread,
    numbered,
)

__all__ = ("KNOWN", "known")


def _busy(*more: Node) -> Body:
    return (Pause(1), Open("with", ()), *more)


def _iterated(is_async: bool, traced: bool, ending: str) -> Node:
    def body() -> Body:
        return _busy() if is_async else (Open("with", ()),)

    return Iterate(is_async, traced, True, (body(), body(), body()), (body(), body()), ending, body())


def known(name: str) -> Body:
    """A new copy of a program: it runs inside of a span, and beside one."""
    return numbered((Open("with", _MAKE[name]()), Open("with", ())))


_MAKE = {
    "spans": lambda: tuple(Open(how, _busy()) for how in ASYNC_SPANS),
    "context managers": lambda: tuple(Managed(traced, _busy(), _busy()) for traced in (True, False)),
    "use_context": lambda: tuple(Outside(remote, _busy()) for remote in (True, False)),
    "callbacks": lambda: (*(Callback(how, (Open("with", ()),)) for how in CALLBACKS), Pause(3)),
    "failing group": lambda: (Catch((Fork("group", (_busy(), _busy(Fail()), _busy(Pause(5)))),)),),
    "failing gather": lambda: (Catch((Fork("gather", (_busy(), _busy(Fail()), _busy(Pause(5)))),)),),
    "sync generators": lambda: (Pause(1), *(_iterated(False, True, ending) for ending in SYNC_ENDINGS)),
    "sync threads": lambda: tuple(Thread(how, (Open("with", ()),)) for how in SYNC_THREADS),
    **{f"fork: {how}": lambda how=how: (Fork(how, (_busy(), _busy())),) for how in FORKS},
    **{
        f"expire: {how}": lambda how=how: (Expire(how, 2, _busy(Pause(2), Open("async with", ()))),) for how in EXPIRIES
    },
    **{f"traced generator: {how}": lambda how=how: (_iterated(True, True, how),) for how in ENDINGS},
    **{f"generator: {how}": lambda how=how: (_iterated(True, False, how),) for how in ENDINGS},
    **{f"thread: {how}": lambda how=how: (Thread(how, _busy()),) for how in ASYNC_THREADS},
}

KNOWN = tuple(_MAKE)
