"""The layers of this process, and how they are called.

Records come from the native module in the order in which they were made: on the thread that `run` is the body of, or,
for immediate layers, at the end of whatever was done to a span. A layer knows a span from `on_new_span` to `on_close`
and is told of no other; so it never matters what was on its way when it was added.
"""

from __future__ import annotations

import _thread
import os
from itertools import islice

from rvh_trace._rvh_trace import layer_records, log_layer, read_layer_counts, set_layers
from rvh_trace.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rvh_trace.layers import Layer, NewSpan

    Record = tuple[int, int, tuple[Any, ...]]

_METHODS = ("on_new_span", "on_event", "on_record", "on_close")
_NEW_SPAN, _EVENT, _RECORD, _CLOSE = range(4)
_BATCHED, _IMMEDIATE = 1, 2
# `inspect.CO_COROUTINE` and `inspect.CO_ASYNC_GENERATOR`.
_ASYNC = 0x80 | 0x200

# Spans that a layer knows at the most; one that nobody ever ends is forgotten when there are more.
MAX_SPANS = 65_536

_MISSING: Any = object()


class LayerHandle:
    """A layer that was added. Made by `add_layer`, never by calling the class.

    Attributes:
        layer: The object that was given.
        immediate: Whether it is called by the thread that does something to a span.
    """

    __slots__ = ("_dropped_before", "_forgotten", "_methods", "_since", "_states", "immediate", "layer")

    def __init__(self, layer: Layer, methods: tuple[Callable[..., Any] | None, ...], immediate: bool) -> None:
        self.layer: Layer = layer
        self.immediate: bool = immediate
        self._methods = methods
        # The first record that it is shown, and what was dropped before.
        self._since, self._dropped_before = read_layer_counts()
        self._states: dict[str, Any] = {}
        self._forgotten = 0

    @property
    def is_active(self) -> bool:
        """Whether it is called: until it is removed, by `remove_layer` or because it raised."""
        return self in _handles

    @property
    def dropped(self) -> int:
        """What it was not told, because too much waited for the layers of this process or it knew too many spans.

        Of a span that was dropped at its begin nothing else is shown. An immediate layer loses nothing but what had to
        wait for the other thread.
        """
        return read_layer_counts()[1] - self._dropped_before + self._forgotten

    def __repr__(self) -> str:
        state = "" if self.is_active else " removed"
        return f"<LayerHandle {type(self.layer).__qualname__}{' immediate' if self.immediate else ''}{state}>"

    def _tell(self, kind: int, told: Any, number: int | None) -> None:
        """Calls the method for this kind of record, if it knows the span."""
        method, states, span_id = self._methods[kind], self._states, told.span_id
        if kind == _NEW_SPAN:
            if number is None or number >= self._since:
                self._meet(method, told)
        elif kind == _CLOSE:
            state = states.pop(span_id, _MISSING)
            if method is not None and state is not _MISSING:
                method(told, state)
        elif method is not None and span_id in states:
            method(told, states[span_id])

    def _meet(self, method: Callable[[NewSpan], Any] | None, span: NewSpan) -> None:
        states = self._states
        if len(states) >= MAX_SPANS:
            # Several at once: finding the oldest takes as long as there were others before it.
            oldest = list(islice(states, MAX_SPANS // 8))
            for span_id in oldest:
                del states[span_id]
            self._forgotten += len(oldest)
        # Known before the call: on another thread the span may end meanwhile.
        states[span.span_id] = None
        if method is not None:
            state = method(span)
            if state is not None and span.span_id in states:
                states[span.span_id] = state

    def _enter_forked_child(self) -> None:
        self._states = {}
        self._since = self._dropped_before = self._forgotten = 0


# Replaced, never changed: whoever walks through it sees one state of it.
_handles: tuple[LayerHandle, ...] = ()
_lock = _thread.allocate_lock()
_fork_registered = False
_types: tuple[Callable[[tuple[Any, ...]], Any], ...] = ()


def add_layer(layer: Layer, *, immediate: bool = False) -> LayerHandle:
    """Shows every recorded span of this process to `layer`, while it lives: spans of Python and of Rust alike.

    A layer is any object with at least one of these methods (see `rvh_trace.layers`):

    - `on_new_span(span)`: one has begun. What it returns is the `state` that the later calls for that span get.
    - `on_event(event, state)`: an event was added, an exception among them.
    - `on_record(record, state)`: attributes were set after it began.
    - `on_close(span, state)`: it has ended; once for every `on_new_span`.

    By default they are called one at a time on a thread of the library's, within about a tenth of a second and in the
    order in which things happened, so that nothing that is traced waits for a layer or takes the GIL for it. Up to
    4 MiB of records wait; what finds no room is counted in `dropped` of the handle. `force_flush`, `shutdown` and the
    exit have what waits delivered, within their deadline.

    With `immediate` the thread that does something to a span calls the layer before it goes on, so layers run on
    several threads and in event loops: keep them short. Where that cannot be (a thread without the GIL, a span of Rust
    code, a span that is freed without an end, a websocket's handshake, an event that `watch_loop` adds) the layer is
    called on the library's thread instead, and for the rest of that span too, so that their order holds.

    A layer sees no span that had begun before it was added, none that is not sampled, and nothing that is done on a
    thread while that thread calls a layer. With a layer, spans are recorded even if nothing is exported. A layer that
    raises, whatever it raises, is removed, and logged. A forked child has the same layers, which know no spans yet.

    Args:
        layer: The object. It is kept until it is removed.
        immediate: Call it on the thread that makes the record.

    Returns:
        What `remove_layer` takes, and what tells how many records were `dropped`.

    Raises:
        ConfigurationError: The object has none of the methods, one cannot be called or is a coroutine function, it is a
            class, or it was added before.

    Example:
        >>> class Names:
        ...     def on_close(self, span, state):
        ...         print(span.name, span.duration_ns)
        >>> handle = add_layer(Names())
        >>> remove_layer(handle)

    Source: the `Layer` trait of the crate tracing-subscriber.
    """
    methods = _methods_of(layer)
    if type(immediate) is not bool:
        raise ConfigurationError(f"immediate: must be True or False, not {type(immediate).__name__}")
    _prepare()
    global _handles
    with _lock:
        if any(handle.layer is layer for handle in _handles):
            raise ConfigurationError("layer: this object was added before; a layer is added once")
        handle = LayerHandle(layer, methods, immediate)
        _handles = (*_handles, handle)
        _listen()
    return handle


def remove_layer(layer: Layer | LayerHandle) -> None:
    """Removes a layer. What it was given with `on_new_span` is let go; it gets no `on_close` for spans that are open.

    A call that is under way on another thread goes on. To have everything delivered that happened before, call
    `force_flush` first. Does nothing if the layer was removed already.

    Args:
        layer: The object that was added, or its handle.

    Example:
        >>> import rvh_trace
        >>> class Names:
        ...     def on_close(self, span, state): ...
        >>> layer = Names()
        >>> handle = rvh_trace.add_layer(layer)
        >>> rvh_trace.remove_layer(layer)
        >>> handle.is_active
        False
    """
    global _handles
    with _lock:
        removed = [handle for handle in _handles if handle is layer or handle.layer is layer]
        _handles = tuple(handle for handle in _handles if handle not in removed)
        _listen()
    for handle in removed:
        # Not under the lock: whatever a state holds may do anything when it is let go.
        handle._states.clear()  # pyright: ignore[reportPrivateUsage]


def deliver(records: list[Record], first: int | None = None) -> None:
    """Calls the layers with `records`, the first of which has the number `first`; None for those that had none."""
    number = first
    for kind, targets, fields in records:
        told = _types[kind](fields)
        for handle in _handles:
            if targets & (_IMMEDIATE if handle.immediate else _BATCHED) and handle in _handles:
                try:
                    handle._tell(kind, told, number)  # pyright: ignore[reportPrivateUsage]
                except BaseException as error:
                    if handle.immediate and isinstance(error, KeyboardInterrupt):
                        # For the application, which gets it as soon as its own code goes on.
                        _thread.interrupt_main()
                    else:
                        _fail(handle, _METHODS[kind], error)
        if number is not None:
            number += 1


def run() -> None:
    """Calls the layers with what is queued, as long as the process lives. The body of a thread."""
    while True:
        deliver(*layer_records())


def _methods_of(layer: object) -> tuple[Callable[..., Any] | None, ...]:
    if isinstance(layer, type):
        raise ConfigurationError(f"layer: must be an object, not the class {layer.__name__}; add {layer.__name__}()")
    methods = tuple(getattr(layer, name, None) for name in _METHODS)
    if all(method is None for method in methods):
        right = "an object with at least one of the methods on_new_span, on_event, on_record and on_close"
        raise ConfigurationError(f"layer: must be {right}; {type(layer).__qualname__} has none of them")
    for name, method in zip(_METHODS, methods, strict=True):
        if method is not None and not callable(method):
            raise ConfigurationError(f"layer: its {name} must be a method, not {type(method).__qualname__}")
        if getattr(getattr(method, "__code__", None), "co_flags", 0) & _ASYNC:
            raise ConfigurationError(f"layer: its {name} must not be a coroutine function: nobody would await it")
    return methods


def _prepare() -> None:
    """What the first layer needs, and nobody without one is to pay for."""
    global _types, _fork_registered
    from rvh_trace.layers import ClosedSpan, NewSpan, SpanEvent, SpanRecord

    _types = (NewSpan._make, SpanEvent._make, SpanRecord._make, ClosedSpan._make)
    if not _fork_registered and hasattr(os, "register_at_fork"):
        _fork_registered = True
        os.register_at_fork(after_in_child=_enter_forked_child)


def _listen() -> None:
    """Tells the native module which records somebody wants."""
    wanted = [0, 0]
    for handle in _handles:
        for kind, method in enumerate(handle._methods):  # pyright: ignore[reportPrivateUsage]
            if method is not None:
                wanted[handle.immediate] |= 1 << kind
    set_layers(*wanted)


def _fail(handle: LayerHandle, method: str, error: BaseException) -> None:
    import traceback

    remove_layer(handle)
    details = "".join(traceback.format_exception(error)).rstrip()
    name = type(handle.layer).__qualname__
    log_layer(f"the layer {name} was removed: its {method} raised\n{details}")


def _enter_forked_child() -> None:
    global _lock
    # Another thread of the parent may have held it.
    _lock = _thread.allocate_lock()
    for handle in _handles:
        handle._enter_forked_child()  # pyright: ignore[reportPrivateUsage]
