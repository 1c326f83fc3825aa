"""Spans in tests: an in-memory exporter, and with pytest the `spans` fixture.

    def test_checkout_is_one_span(spans):
        checkout(cart)
        assert [span.name for span in spans] == ["checkout"]

The fixture comes with the package: pytest loads `rvh_trace.testing.plugin` by itself. Without pytest, use
`InMemoryExporter` as a context manager.
"""

from __future__ import annotations

from rvh_trace._rvh_trace import decode_spans, render_waterfall
from rvh_trace.testing.exporter import Event, FinishedSpan, InMemoryExporter, Link, decode

__all__ = ("Event", "FinishedSpan", "InMemoryExporter", "Link", "decode", "decode_spans", "render_waterfall")
