"""`inject`, `extract` and `use_context` over whatever carries headers."""

from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rvh_trace import Context, current_span, extract, inject, new_span, span, use_context
from rvh_trace.testing import InMemoryExporter

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


class ReadOnly(Mapping[str, str]):
    """The least a mapping can be."""

    def __init__(self, items: dict[str, str]) -> None:
        self._items = items

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class CaseInsensitive(MutableMapping[str, str]):
    """What HTTP clients give us: names in any case, kept in lower case."""

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        self._items = {name.lower(): value for name, value in (items or {}).items()}

    def __getitem__(self, key: str) -> str:
        return self._items[key.lower()]

    def __setitem__(self, key: str, value: str) -> None:
        self._items[key.lower()] = value

    def __delitem__(self, key: str) -> None:
        del self._items[key.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class TestExtract:
    @pytest.mark.parametrize(
        "carrier",
        [
            {"traceparent": TRACEPARENT},
            {"Traceparent": TRACEPARENT, "other": "x"},
            {"TRACEPARENT": TRACEPARENT},
            {"traceparent": TRACEPARENT.encode()},
            {b"traceparent": TRACEPARENT.encode()},
            {"traceparent": [TRACEPARENT]},
            {"traceparent": (TRACEPARENT.encode(),)},
            {"traceparent": f" {TRACEPARENT}\t"},
            {"traceparent": TRACEPARENT, "numbers": 7, 8: "x", "none": None},
            [(b"traceparent", TRACEPARENT.encode())],
            [[b"TraceParent", TRACEPARENT.encode()]],
            [("traceparent", TRACEPARENT)],
            ((b"x", b"y"), (b"traceparent", TRACEPARENT.encode())),
            iter([(b"traceparent", TRACEPARENT.encode())]),
            OrderedDict(traceparent=TRACEPARENT),
            UserDict(traceparent=TRACEPARENT),
            ReadOnly({"traceparent": TRACEPARENT}),
            CaseInsensitive({"Traceparent": TRACEPARENT}),
        ],
        ids=lambda carrier: type(carrier).__name__,
    )
    def test_every_carrier_is_read(self, carrier: Any) -> None:
        context = extract(carrier).span_context
        assert (context.trace_id, context.span_id, context.trace_flags) == (TRACE_ID, SPAN_ID, 1)
        assert (context.is_remote, context.is_sampled) == (True, True)

    @pytest.mark.parametrize(
        "carrier",
        [
            {},
            [],
            {"traceparent": ""},
            {"traceparent": TRACEPARENT.upper()},
            {"traceparent": TRACEPARENT + "-extra"},
            {"traceparent": f"ff-{TRACE_ID}-{SPAN_ID}-01"},
            {"traceparent": f"00-{'0' * 32}-{SPAN_ID}-01"},
            {"traceparent": f"00-{TRACE_ID}-{'0' * 16}-01"},
            {"traceparent": [TRACEPARENT, TRACEPARENT]},
            {"traceparent": 7},
            {"traceparent": None},
            {"traceparent": "\ud800" * 55},
            {"traceparent": "é" * 55},
            [(b"traceparent", TRACEPARENT.encode()), (b"Traceparent", TRACEPARENT.encode())],
            [(b"traceparent",)],
            [b"traceparent"],
            [7, None, "ab"],
            [(b"traceparent", b"\xff" * 55)],
        ],
        ids=repr,
    )
    def test_what_is_malformed_is_not_there(self, carrier: Any) -> None:
        context = extract(carrier)
        assert not context.span_context.is_valid
        assert context.span_context.trace_state == ""
        assert context.baggage == {}

    def test_flags_and_versions_follow_the_standard(self) -> None:
        for flags, expected in (("00", 0), ("01", 1), ("02", 2), ("03", 3), ("ff", 3)):
            assert extract({"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-{flags}"}).span_context.trace_flags == expected
        future = extract({"traceparent": f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes"})
        assert future.span_context.trace_id == TRACE_ID
        headers: dict[str, str] = {}
        inject(headers, future)
        assert headers["traceparent"] == TRACEPARENT

    def test_tracestate_headers_are_joined_in_order(self) -> None:
        context = extract(
            [(b"tracestate", b"a=1"), (b"traceparent", TRACEPARENT.encode()), (b"tracestate", b"b=2,c=3")]
        )
        assert context.span_context.trace_state == "a=1,b=2,c=3"

    def test_an_illegal_tracestate_is_dropped_and_the_traceparent_stays(self) -> None:
        context = extract({"traceparent": TRACEPARENT, "tracestate": "UPPER=1"})
        assert (context.span_context.trace_state, context.span_context.is_valid) == ("", True)

    @given(
        st.one_of(
            st.dictionaries(
                st.sampled_from(["traceparent", "tracestate", "baggage", "Baggage", "x"]) | st.text(),
                st.text() | st.binary() | st.none() | st.integers() | st.lists(st.text() | st.binary()),
            ),
            st.lists(
                st.tuples(st.sampled_from([b"traceparent", b"tracestate", b"baggage"]), st.binary() | st.text())
                | st.binary(max_size=3)
                | st.none()
                | st.tuples(st.binary())
            ),
        )
    )
    def test_garbage_never_raises_and_never_makes_a_parent(self, carrier: Any) -> None:
        context = extract(carrier)
        assert isinstance(context, Context)
        assert not context.span_context.is_valid
        inject({}, context)

    @given(
        st.integers(1, 2**128 - 1),
        st.integers(1, 2**64 - 1),
        st.integers(0, 3),
        st.sampled_from(["traceparent", "Traceparent", "TRACEPARENT"]),
        st.booleans(),
    )
    def test_what_inject_writes_extract_reads(
        self, trace: int, one: int, flags: int, name: str, as_bytes: bool
    ) -> None:
        header = f"00-{trace:032x}-{one:016x}-{flags:02x}"
        carrier: Any = [(name.encode(), header.encode())] if as_bytes else {name: header}
        out: Any = [] if as_bytes else {}
        inject(out, extract(carrier))
        assert out == ([(b"traceparent", header.encode())] if as_bytes else {"traceparent": header})
        assert extract(out) == extract(carrier)


class TestInject:
    def test_writes_the_current_span(self, spans: InMemoryExporter) -> None:
        headers: dict[str, str] = {}
        with span("op") as op:
            inject(headers)
            assert headers == {"traceparent": f"00-{op.context.trace_id}-{op.context.span_id}-03"}

    def test_outside_of_spans_writes_nothing(self, spans: InMemoryExporter) -> None:
        headers: dict[str, str] = {}
        listed: list[tuple[bytes, bytes]] = []
        inject(headers)
        inject(listed)
        assert (headers, listed) == ({}, [])

    @pytest.mark.parametrize("make", [dict, OrderedDict, UserDict, CaseInsensitive])
    def test_every_mutable_mapping_will_do(self, spans: InMemoryExporter, make: Any) -> None:
        carrier = make({"other": "kept"})
        with span("op") as op:
            inject(carrier)
            assert op.context.span_id in carrier["traceparent"]
        assert carrier["other"] == "kept"

    def test_a_list_gets_byte_pairs(self, spans: InMemoryExporter) -> None:
        headers = [(b"x", b"y")]
        with span("op") as op:
            inject(headers)
            expected = f"00-{op.context.trace_id}-{op.context.span_id}-03".encode()
        assert headers == [(b"x", b"y"), (b"traceparent", expected)]

    @pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
    def test_what_was_copied_from_an_incoming_request_is_replaced_whatever_its_case(
        self, spans: InMemoryExporter, name: str
    ) -> None:
        """Two `traceparent` headers are invalid: the next service would start a new trace."""
        mapping = {name: TRACEPARENT, "other": "kept"}
        listed = [(name.encode(), TRACEPARENT.encode()), (b"other", b"kept"), (name.encode(), TRACEPARENT.encode())]
        with span("op") as op:
            inject(mapping)
            inject(listed)
        for carrier in (mapping, listed):
            assert extract(carrier).span_context.span_id == op.context.span_id
        assert sorted(key.lower() for key in mapping) == ["other", "traceparent"]
        assert sorted(key.lower() for key, _ in listed) == [b"other", b"traceparent"]

    def test_another_context_is_written_when_given(self, spans: InMemoryExporter) -> None:
        other, remote = new_span("other"), extract({"traceparent": TRACEPARENT, "tracestate": "v=1", "baggage": "a=1"})
        with span("current"):
            for context, expected in (
                (other, other.context.span_id),
                (other.context, other.context.span_id),
                (remote, SPAN_ID),
                (remote.span_context, SPAN_ID),
            ):
                headers: dict[str, str] = {}
                inject(headers, context)
                assert headers["traceparent"].split("-")[2] == expected
        headers = {}
        inject(headers, remote)
        assert headers == {"traceparent": TRACEPARENT, "tracestate": "v=1", "baggage": "a=1"}

    def test_what_is_not_sampled_is_still_propagated(self) -> None:
        with InMemoryExporter(sampler="always_off"), span("op") as op:
            headers: dict[str, str] = {}
            inject(headers)
            assert headers["traceparent"] == f"00-{op.context.trace_id}-{op.context.span_id}-02"


class TestUseContext:
    def test_a_remote_context_is_the_parent_inside(self, spans: InMemoryExporter) -> None:
        with use_context(extract({"traceparent": TRACEPARENT, "tracestate": "v=1"})) as remote:
            assert remote.context.span_id == SPAN_ID
            assert not remote.is_recording
            with span("child"):
                pass
        assert not current_span().context.is_valid
        child = spans.one("child")
        assert (child.trace_id, child.parent_span_id, child.trace_state) == (TRACE_ID, SPAN_ID, "v=1")

    def test_none_means_a_new_root(self, spans: InMemoryExporter) -> None:
        with span("outer") as outer:
            with use_context(None):
                assert not current_span().context.is_valid
                with span("root"):
                    pass
            assert current_span() is outer
        assert spans.one("root").parent_span_id is None
        assert spans.one("root").trace_id != spans.one("outer").trace_id

    def test_bad_headers_mean_a_new_root_even_inside_a_span(self, spans: InMemoryExporter) -> None:
        with span("outer"), use_context(extract({"traceparent": "nonsense"})), span("root"):
            pass
        assert spans.one("root").parent_span_id is None

    def test_a_span_or_its_context_is_the_parent_and_not_ended(self, spans: InMemoryExporter) -> None:
        upload = new_span("upload")
        for form in (upload, upload.context):
            with use_context(form), span("part"):
                pass
        assert upload.is_recording
        upload.end()
        assert len(spans.children(spans.one("upload"))) == 2

    def test_says_what_it_makes_current(self) -> None:
        remote = extract({"traceparent": TRACEPARENT})
        assert use_context(remote).span_context == remote.span_context

    def test_exceptions_pass_and_the_context_is_restored(self) -> None:
        error = ValueError("inside")
        with pytest.raises(ValueError, match="inside") as caught, use_context(extract({"traceparent": TRACEPARENT})):
            raise error
        assert caught.value is error
        assert not current_span().context.is_valid

    def test_one_may_be_entered_again_and_nested(self, spans: InMemoryExporter) -> None:
        context = use_context(extract({"traceparent": TRACEPARENT}))
        with context:
            with span("outer") as outer, context:
                assert current_span().context.span_id == SPAN_ID
                with context:
                    assert current_span().context.span_id == SPAN_ID
                assert current_span().context.span_id == SPAN_ID
            assert current_span().context.span_id == SPAN_ID
        assert not current_span().context.is_valid
        assert not outer.is_recording

    def test_an_unsampled_remote_parent_is_respected_and_passed_on(self, spans: InMemoryExporter) -> None:
        unsampled = f"00-{TRACE_ID}-{SPAN_ID}-00"
        headers: dict[str, str] = {}
        with use_context(extract({"traceparent": unsampled})), span("op") as op:
            assert not op.is_recording
            inject(headers)
        assert list(spans) == []
        assert headers["traceparent"].startswith(f"00-{TRACE_ID}-")
        assert headers["traceparent"].endswith("-00")


class TestBaggage:
    def test_travels_from_request_to_request(self, spans: InMemoryExporter) -> None:
        incoming = {"traceparent": TRACEPARENT, "baggage": "tenant=acme%20inc,key=value;ttl=3"}
        outgoing: dict[str, str] = {}
        with use_context(extract(incoming)), span("op"):
            inject(outgoing)
        assert extract(outgoing).baggage == {"tenant": "acme inc", "key": "value"}
        assert "key=value;ttl=3" in outgoing["baggage"]
        assert spans.one("op").attributes == {}

    def test_does_not_outlive_its_scope(self, spans: InMemoryExporter) -> None:
        with use_context(extract({"baggage": "a=1"})):
            with use_context(extract({"traceparent": TRACEPARENT, "baggage": "b=2"})):
                inner: dict[str, str] = {}
                inject(inner)
            outer: dict[str, str] = {}
            inject(outer)
        after: dict[str, str] = {}
        inject(after)
        assert inner["baggage"] == "b=2"
        assert outer["baggage"] == "a=1"
        assert after == {}

    def test_malformed_members_are_skipped(self) -> None:
        assert extract({"baggage": "good=1,,=,bad,b d=2,also=%C3%BC"}).baggage == {"good": "1", "also": "ü"}

    def test_is_a_copy(self) -> None:
        context = extract({"baggage": "a=1"})
        context.baggage["a"] = "changed"
        assert context.baggage == {"a": "1"}

    @given(st.dictionaries(st.from_regex("[a-z]{1,10}", fullmatch=True), st.text(max_size=20), max_size=5))
    def test_any_value_survives_the_round_trip(self, members: dict[str, str]) -> None:
        from urllib.parse import quote

        header = ",".join(f"{key}={quote(value, safe='')}" for key, value in members.items())
        headers: dict[str, str] = {}
        inject(headers, extract({"baggage": header}))
        assert extract(headers).baggage == members
