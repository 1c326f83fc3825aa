"""Values of wrong types, and what an attacker, a test client or a careless middleware puts where text should be."""

import operator
import os
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from hypothesis import strategies as st

from transparency.recipe import Make

__all__ = ("ANYTHING", "HOSTILE", "ODD", "PRODUCTION", "Octets", "Pairs", "Table", "Text", "View", "Whole")

# What runs code that raises when it is looked at is swallowed and said once in production, and raised in strict mode.
PRODUCTION = os.environ.get("RVH_TRACE_STRICT") != "1"


class Text(str):
    """Equal to nothing, like a lazily translated string that has not been made yet."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False


class Octets(bytes):
    """A subclass of bytes with a representation of its own."""

    def __repr__(self) -> str:
        return "octets"


class Whole(int):
    """A subclass of int, as `http.HTTPStatus` is."""

    def __repr__(self) -> str:
        return "whole"


class Table(dict[Any, Any]):
    """A dict whose look-ups are its own, like a case-insensitive one."""

    def __getitem__(self, key: Any) -> Any:
        return dict.__getitem__(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        return dict.get(self, key, default)


class View(Mapping[Any, Any]):
    """A mapping that is no dict."""

    def __init__(self, entries: dict[Any, Any]) -> None:
        self._entries = entries

    def __getitem__(self, key: Any) -> Any:
        return self._entries[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class Pairs:
    """Headers that can be iterated again and again and do nothing else."""

    def __init__(self, pairs: list[Any]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pairs)


class Unreadable:
    """Raises whatever is asked of it."""

    def _refuse(self, *arguments: Any) -> NoReturn:
        raise LookupError("unreadable")

    __bool__ = __index__ = __int__ = __len__ = __iter__ = __getitem__ = __str__ = __repr__ = __eq__ = _refuse
    keys = get = items = decode = lower = split = _refuse
    __hash__ = object.__hash__


class UnreadableTable(dict[Any, Any]):
    """A dict whose methods raise."""

    def _refuse(self, *arguments: Any) -> NoReturn:
        raise LookupError("unreadable")

    __getitem__ = get = __iter__ = __contains__ = keys = items = __len__ = _refuse


# What only production must survive without a difference, see PRODUCTION.
HOSTILE: list[Any] = [Make(Unreadable), Make(UnreadableTable, ({"type": "http.response.start"},))]

_SAMPLES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "\ud800",
    "\x00\n\r",
    "ü\U0001f600",
    Make(operator.mul, ("x", 70_000)),
    b"",
    b"\xff\xfe",
    b"\x00",
    Make(operator.mul, (b"x", 70_000)),
    (),
    [],
    {},
    [[[[]]]],
    (None, None),
    ("192.0.2.1",),
    {"http": {"type": "http"}},
    Make(Text, ("http",)),
    Make(Octets, (b"http",)),
    Make(Whole, (200,)),
    Make(bytearray, (b"http",)),
    Make(memoryview, (b"http",)),
    Make(object),
    Make(View, ({"type": "http"},)),
    Make(Table, ({"type": "http"},)),
    Make(deque, ([b"a", b"b"],)),
    Make(iter, ([1, 2],)),
    Make(set),
    int,
    ...,
]

ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(_SAMPLES + (HOSTILE if PRODUCTION else [])),
    st.text(max_size=6),
    st.binary(max_size=6),
    st.integers(),
)

# Nested, and with keys that are no strings.
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    ODD,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.binary(max_size=3), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=4,
)
