"""Attributes arrive with their values and types, whatever was given."""

import enum
import gc
import math
from collections import OrderedDict, UserDict
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvh_trace import new_span, span
from rvh_trace.testing import InMemoryExporter


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Method(enum.StrEnum):
    GET = "get"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not what it holds"


class Number(float):
    __slots__ = ()


class Scalar:
    """What numpy's scalars are to us: no subclass of anything, with a readable `str()`."""

    def __str__(self) -> str:
        return "2.5"


VALUES: list[tuple[Any, Any]] = [
    ("text", "text"),
    ("", ""),
    ("ünïcødé 🚀 \0", "ünïcødé 🚀 \0"),
    ("x" * 300, "x" * 300),
    (True, True),
    (False, False),
    (0, 0),
    (-1, -1),
    (2**63 - 1, 2**63 - 1),
    (-(2**63), -(2**63)),
    (2**63, str(2**63)),
    (-(2**63) - 1, str(-(2**63) - 1)),
    (10**60, str(10**60)),
    (0.0, 0.0),
    (-1.5e300, -1.5e300),
    (math.inf, math.inf),
    (b"\x00\xff", b"\x00\xff"),
    (b"", b""),
    (Colour.RED, "Colour.RED"),
    (Level.HIGH, 3),
    (Method.GET, "get"),
    (Text("held"), "held"),
    (Number(1.5), 1.5),
    (Scalar(), "2.5"),
    (None, "None"),
    ({"a": 1}, "{'a': 1}"),
    (3 + 4j, "(3+4j)"),
    (ValueError("bad"), "bad"),
    ([], []),
    ((), []),
    (["a", "b"], ["a", "b"]),
    ((1, 2), [1, 2]),
    ([True, 2, 3.5, "four", b"5"], [True, 2, 3.5, "four", b"5"]),
    ([2**64, None, Scalar(), Level.HIGH, Method.GET], [str(2**64), "None", "2.5", 3, "get"]),
    ([[1, 2], (3,)], ["[1, 2]", "(3,)"]),
    (range(3), "range(0, 3)"),
]


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are three values."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@pytest.mark.parametrize(("value", "expected"), VALUES, ids=lambda value: type(value).__name__)
def test_value_arrives_as_it_is_on_every_way_in(spans: InMemoryExporter, value: Any, expected: Any) -> None:
    with span("op", {"mapping": value}, keyword=value) as op:
        op.set_attribute("set", value)
        op.set_attributes({"several": value})
        op.add_event("event", {"event": value})
        op.add_link(op, {"link": value})
    with span("linked", links=[(op, {"link": value})]):
        pass
    (sent, linked) = spans
    assert list(sent.attributes) == ["mapping", "keyword", "set", "several"]
    for arrived in (
        *sent.attributes.values(),
        sent.events[0].attributes["event"],
        sent.links[0].attributes["link"],
        linked.links[0].attributes["link"],
    ):
        assert same(arrived, expected)


def test_nan_arrives_as_nan(spans: InMemoryExporter) -> None:
    with span("op", {"nan": math.nan}):
        pass
    value = spans[0].attributes["nan"]
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize("text", ["a\ud800b", "\udcff", "a\udfffb\ud800"])
def test_surrogates_are_replaced_and_nothing_is_lost_around_them(spans: InMemoryExporter, text: str) -> None:
    with span(f"name {text}", {f"key {text}": f"value {text} end", "list": [text]}) as op:
        op.add_event(f"event {text}", {"key": text})
        op.set_status("error", f"description {text}")
    sent = spans[0]
    assert sent.name.startswith("name ")
    (key, value), (_, listed) = sent.attributes.items()
    assert key.startswith("key ")
    assert isinstance(value, str)
    assert value.startswith("value ")
    assert value.endswith(" end")
    assert isinstance(listed, list)
    assert sent.status_description.startswith("description ")
    assert sent.events[0].name.startswith("event ")


def test_a_str_with_surrogates_in_what_str_returns_is_replaced(spans: InMemoryExporter) -> None:
    class Odd:
        def __str__(self) -> str:
            return "a\ud800b"

    with span("op", {"odd": Odd(), "listed": [Odd()]}):
        pass
    for value in (spans[0].attributes["odd"], *spans[0].attributes["listed"]):  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
        assert isinstance(value, str)
        assert (value[0], value[-1]) == ("a", "b")


def test_keys_that_are_no_strings_are_recorded_by_their_str(spans: InMemoryExporter) -> None:
    attributes: Any = {1: "int", None: "none", Method.GET: "enum"}
    with span("op", attributes) as op:
        op.set_attribute(2, "later")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert spans[0].attributes == {"1": "int", "None": "none", "get": "enum", "2": "later"}


def test_an_empty_key_is_dropped_and_counted(spans: InMemoryExporter) -> None:
    with span("op", {"": 1, "kept": 2}):
        pass
    assert (spans[0].attributes, spans[0].dropped_attributes) == ({"kept": 2}, 1)


@pytest.mark.parametrize("wrap", [dict, OrderedDict, UserDict, MappingProxyType])
def test_any_mapping_of_attributes_will_do(spans: InMemoryExporter, wrap: type[Mapping[str, int]]) -> None:
    attributes: Any = wrap({"a": 1, "b": 2})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with span("op", attributes) as op:
        op.set_attributes(wrap({"b": 3, "c": 4}))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        op.add_event("event", attributes)
    assert spans[0].attributes == {"a": 1, "b": 3, "c": 4}
    assert spans[0].events[0].attributes == {"a": 1, "b": 2}


def test_a_keyword_replaces_the_same_key_of_the_mapping(spans: InMemoryExporter) -> None:
    with span("op", {"key": "mapping", "other": 1}, key="keyword"):
        pass
    assert spans[0].attributes == {"key": "keyword", "other": 1}


def test_name_and_attributes_are_free_as_keyword_attributes(spans: InMemoryExporter) -> None:
    with span("op", name="attribute", attributes="attribute"):
        pass
    assert spans[0].attributes == {"name": "attribute", "attributes": "attribute"}


def test_setting_a_key_again_replaces_value_and_type(spans: InMemoryExporter) -> None:
    with span("op", {"key": "a long text at first", "other": 1}) as op:
        for value in (7, ["a", "b"], "x" * 200, b"bytes", True):
            op.set_attribute("key", value)
    assert spans[0].attributes == {"key": True, "other": 1}
    assert spans[0].dropped_attributes == 0


def test_a_mapping_changed_by_the_str_of_a_value_costs_neither_crash_nor_exception(spans: InMemoryExporter) -> None:
    class Meddler:
        def __init__(self, change: Any) -> None:
            self.change = change

        def __str__(self) -> str:
            self.change()
            gc.collect()
            return "meddled"

    for change in (dict.clear, lambda d: d.update({str(i): i for i in range(1000)}), lambda d: d.popitem()):
        attributes: dict[str, Any] = {"first": 1}
        attributes |= {"meddler": Meddler(lambda d=attributes, c=change: c(d)), "last": 3}
        with span("op", attributes):
            pass
        members: list[Any] = [1]
        members += [Meddler(members.clear), 3]
        with span("list", {"members": members}):
            pass
        assert spans.named("op")[-1].attributes["meddler"] == "meddled"
        assert spans.named("list")[-1].attributes == {"members": [1, "meddled", 3]}


def test_str_of_a_value_may_use_the_span_it_is_set_on(spans: InMemoryExporter) -> None:
    class Curious:
        def __str__(self) -> str:
            op.set_attribute("from str()", 1)
            with span("inside str()"):
                return "curious"

    with span("op") as op:
        op.set_attribute("curious", Curious())
        op.add_event("event", {"curious": Curious()})
    assert spans.one("op").attributes == {"from str()": 1, "curious": "curious"}
    assert len(spans.named("inside str()")) == 2


KEYS = st.sampled_from(["a", "b", "key", "k" * 130, "ü"])
SCALARS = (
    st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.binary(max_size=200)
)
ANY_VALUE = SCALARS | st.lists(SCALARS, max_size=5)


@given(start=st.dictionaries(KEYS, ANY_VALUE), later=st.lists(st.tuples(KEYS, ANY_VALUE), max_size=12))
def test_a_span_is_to_its_attributes_what_a_dict_is(
    spans: InMemoryExporter, start: dict[str, Any], later: list[tuple[str, Any]]
) -> None:
    spans.clear()
    op = new_span("op", start)
    expected = dict(start)
    for key, value in later:
        op.set_attribute(key, value)
        expected[key] = value
    op.end()
    assert dict(spans[0].attributes) == expected
    assert all(same(spans[0].attributes[key], value) for key, value in expected.items())


def test_attributes_over_the_limit_are_dropped_and_counted(spans: InMemoryExporter) -> None:
    with span("op", {f"key.{number}": number for number in range(130)}) as op:
        op.set_attribute("key.0", "replaced")
        op.set_attribute("one more", 1)
    assert len(spans[0].attributes) == 128
    assert spans[0].attributes["key.0"] == "replaced"
    assert "one more" not in spans[0].attributes
    assert spans[0].dropped_attributes == 3
