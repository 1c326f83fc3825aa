"""Programs: trees of the constructs of asyncio, drawn by hypothesis.

A node runs at most once, so its label names one span or none. What a program does never depends on spans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from hypothesis import strategies as st

__all__ = (
    "Body",
    "Callback",
    "Catch",
    "Expire",
    "Fail",
    "Fork",
    "Iterate",
    "Managed",
    "Node",
    "Open",
    "Outside",
    "Pause",
    "Thread",
    "numbered",
    "programs",
)


@dataclass(eq=False)
class Node:
    """A statement of a program. `label` is unique once the program is `numbered`."""

    label: str = field(default="", init=False)


Body = tuple[Node, ...]


@dataclass(eq=False)
class Open(Node):
    """A span of the node's label around a body."""

    how: str
    body: Body


@dataclass(eq=False)
class Managed(Node):
    """`async with` a context manager made of an async generator: traced, or with a span open over its `yield`."""

    traced: bool
    before: Body
    body: Body


@dataclass(eq=False)
class Outside(Node):
    """`use_context` around a body: of a remote parent, or of none."""

    remote: bool
    body: Body


@dataclass(eq=False)
class Pause(Node):
    """Lets the others run."""

    times: int


@dataclass(eq=False)
class Fail(Node):
    """Raises."""


@dataclass(eq=False)
class Catch(Node):
    """Catches what `Fail` raises, alone or in groups."""

    body: Body


@dataclass(eq=False)
class Fork(Node):
    """Bodies in tasks, awaited here or at the end of the program."""

    how: str
    bodies: tuple[Body, ...]


@dataclass(eq=False)
class Expire(Node):
    """A body that is followed by an endless wait, and cancelled at some point before or in it."""

    how: str
    pauses: int
    body: Body


@dataclass(eq=False)
class Callback(Node):
    """A body that the loop calls some time later."""

    how: str
    body: Body


@dataclass(eq=False)
class Iterate(Node):
    """A loop over a generator, which runs a segment before each of its `yield`s.

    The loop is left after as many rounds as it has bodies, unless the generator ends before. `ending` says who closes
    the generator then. `after` runs when that was done. A `nested` one has a second span open over its `yield`s.
    """

    is_async: bool
    traced: bool
    nested: bool
    segments: tuple[Body, ...]
    rounds: tuple[Body, ...]
    ending: str
    after: Body


@dataclass(eq=False)
class Thread(Node):
    """A body in another thread, awaited."""

    how: str
    body: Body


SPANS = ("with", "decorated", "exit stack", "pushed", "activate")
ASYNC_SPANS = (*SPANS, "async with", "run", "decorated coroutine", "async exit stack", "run in task")
FORKS = ("create_task", "ensure_future", "gather", "gather all", "group", "as_completed", "wait", "wait_for", "shield")
FORKS = (*FORKS, "queue", "own context", "detached")
EXPIRIES = ("timeout", "wait_for", "cancel", "shielded")
CALLBACKS = ("call_soon", "call_later", "call_soon_threadsafe", "add_done_callback")
ENDINGS = ("exhaust", "drop", "close", "elsewhere", "elsewhere, clean", "collect", "leave")
SYNC_ENDINGS = ("exhaust", "drop", "close", "collect")
SYNC_THREADS = ("to_thread", "executor", "context", "bare")
ASYNC_THREADS = ("nested loop", "threadsafe")


def _bodies(inner: st.SearchStrategy[Node], most: int = 3) -> st.SearchStrategy[Body]:
    return st.lists(inner, max_size=most).map(tuple)


def _sync_node(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    body = _bodies(inner)
    few = st.lists(_bodies(inner, 2), max_size=3).map(tuple)
    return st.one_of(
        st.builds(Open, st.sampled_from(SPANS), body),
        st.builds(Open, st.sampled_from(SPANS), body),
        st.builds(Outside, st.booleans(), body),
        st.builds(Catch, body),
        st.builds(Iterate, st.just(False), st.just(True), st.booleans(), few, few, st.sampled_from(SYNC_ENDINGS), body),
    )


_SYNC_LEAVES = st.one_of(st.builds(Open, st.sampled_from(SPANS), st.just(())), st.builds(Fail))
SYNC: st.SearchStrategy[Node] = st.recursive(_SYNC_LEAVES, _sync_node, max_leaves=4)
SYNC_BODY = _bodies(SYNC)


def _async_node(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    body = _bodies(inner)
    few = st.lists(_bodies(inner, 2), max_size=3).map(tuple)
    some = st.lists(body, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Open, st.sampled_from(ASYNC_SPANS), body),
        st.builds(Open, st.sampled_from(ASYNC_SPANS), body),
        st.builds(Managed, st.booleans(), _bodies(inner, 1), body),
        st.builds(Outside, st.booleans(), body),
        st.builds(Catch, body),
        st.builds(Fork, st.sampled_from(FORKS), some),
        st.builds(Fork, st.sampled_from(FORKS), some),
        st.builds(Expire, st.sampled_from(EXPIRIES), st.integers(0, 4), body),
        st.builds(Iterate, st.just(True), st.booleans(), st.booleans(), few, few, st.sampled_from(ENDINGS), body),
        st.builds(Thread, st.sampled_from(ASYNC_THREADS), body),
    )


_ASYNC_LEAVES = st.one_of(
    st.builds(Pause, st.integers(0, 3)),
    st.builds(Open, st.sampled_from(ASYNC_SPANS), st.just(())),
    SYNC,
    st.builds(Callback, st.sampled_from(CALLBACKS), SYNC_BODY),
    st.builds(Thread, st.sampled_from(SYNC_THREADS), SYNC_BODY),
)


def programs(size: int = 12) -> st.SearchStrategy[Body]:
    """Programs of up to `size` leaves, numbered."""
    node = st.recursive(_ASYNC_LEAVES, _async_node, max_leaves=size)
    return st.lists(node, min_size=1, max_size=3).map(tuple).map(numbered)


def numbered(program: Body) -> Body:
    """The same program; every node has its label."""
    for number, node in enumerate(nodes(program)):
        node.label = f"{type(node).__name__.lower()} {number}"
    return program


def nodes(part: Any) -> Iterator[Node]:
    """The nodes of a body, a tuple of bodies or a node, outermost first."""
    if isinstance(part, Node):
        yield part
        for each in fields(part):
            yield from nodes(getattr(part, each.name))
    elif isinstance(part, tuple):
        for member in part:
            yield from nodes(member)
