"""After set-up nothing raises into user code: bad use is ignored, counted in `stats()`, and said once.

In processes without `RVH_TRACE_STRICT`, as applications run; and once with it, where the same use must raise.
"""

import pytest
from interpreter import run_quietly, run_script

PRELUDE = """
import asyncio, rvh_trace
from rvh_trace import *
from rvh_trace import current_span, extract, inject, new_span, span, stats, trace, use_context
from rvh_trace.testing import InMemoryExporter

class Broken:
    def __str__(self): raise RuntimeError("no text")

class BrokenMapping(__import__("collections").UserDict):
    def __iter__(self): raise RuntimeError("no iteration")
    def items(self): raise RuntimeError("no items")
"""

# Each is one misuse inside `with span("op") as op`.
MISUSES = {
    "value without text": 'op.set_attribute("key", Broken())',
    "member without text": 'op.set_attribute("key", [Broken()])',
    "key without text": "op.set_attribute(Broken(), 1)",
    "attributes that are no mapping": "op.set_attributes(7)",
    "attributes that fail": "op.set_attributes(BrokenMapping())",
    "event name without text": "op.add_event(Broken())",
    "event attributes that are no mapping": 'op.add_event("event", 7)',
    "event value without text": 'op.add_event("event", {"key": Broken()})',
    "link to something else": "op.add_link(7)",
    "link attributes that are no mapping": "op.add_link(op, 7)",
    "unknown status": 'op.set_status("fine")',
    "status without text": "op.set_status(Broken())",
    "name without text": "op.update_name(Broken())",
    "span name without text": "\n    with span(Broken()): pass",
    "span attributes that are no mapping": '\n    with span("other", 7): pass',
    "span attribute without text": '\n    with span("other", {"key": Broken()}): pass',
    "span links that are no links": '\n    with span("other", links=[7]): pass',
    "span links that are no iterable": '\n    with span("other", links=7): pass',
    "span kind that does not exist": '\n    with span("other", kind="sideways"): pass',
    "span kind of a wrong type": '\n    with span("other", kind=7): pass',
    "new span with a broken attribute": 'new_span("other", key=Broken()).end()',
    "extract from nothing": "assert not extract(None).span_context.is_valid",
    "extract from a number": "assert not extract(7).span_context.is_valid",
    "extract from a failing mapping": "assert not extract(BrokenMapping()).span_context.is_valid",
    "inject into nothing": "inject(None)",
    "inject into a tuple": "inject(())",
    "inject of something else": "inject({}, 7)",
    "use of something else": "\n    with use_context(7): pass",
    "decorating with a span that has started": "assert op(len) is len",
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES.keys())
def test_bad_use_costs_the_detail_never_the_span_nor_the_application(misuse: str) -> None:
    finished = run_script(
        PRELUDE
        + f"""
spans = InMemoryExporter()
spans.install()
with span("op") as op:
    before = stats()["swallowed_errors"]
    for _ in range(2):
        {misuse.replace(chr(10) + "    ", chr(10) + "        ")}
    op.set_attribute("after", 1)
    assert current_span() is op
    assert stats()["swallowed_errors"] >= before + 2, stats()
assert spans.one("op").attributes["after"] == 1
assert spans.one("op").status == "unset"
"""
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.splitlines() == finished.warnings, "more than the library's own line"
    assert 1 <= len(finished.warnings) == len(set(finished.warnings)) <= 2, "said once a cause, not once a call"


@pytest.mark.parametrize("misuse", ['op.set_attribute("key", Broken())', "inject(None)", 'op.set_status("fine")'])
def test_strict_mode_raises_what_is_swallowed_otherwise(misuse: str) -> None:
    script = PRELUDE + f'\nInMemoryExporter().install()\nwith span("op") as op:\n    {misuse}\n'
    finished = run_script(script, RVH_TRACE_STRICT="1")
    assert finished.returncode == 1
    assert "Traceback" in finished.stderr


@pytest.mark.parametrize("time", ["-1", "2**70", "'now'", "1.5"])
@pytest.mark.parametrize(
    "use",
    [
        'new_span("by hand").end({time})',
        'new_span("by hand", start_unix_ns={time}).end()',
        'by_hand = new_span("by hand"); by_hand.add_event("event", unix_ns={time}); by_hand.end()',
    ],
    ids=["end", "start", "event"],
)
def test_an_impossible_time_does_not_raise_and_the_span_is_exported(use: str, time: str) -> None:
    finished = run_script(
        PRELUDE
        + f"""
spans = InMemoryExporter()
spans.install()
{use.format(time=time)}
assert len(spans.named("by hand")) == 1, spans
"""
    )
    assert finished.returncode == 0, finished.stderr


def test_recording_what_is_no_exception_does_not_raise() -> None:
    finished = run_script(
        PRELUDE
        + """
spans = InMemoryExporter()
spans.install()
with span("op") as op:
    op.record_exception("not an exception")
    op.record_exception(ValueError)
new_span("by hand").finish("not an exception")
assert len(spans) == 2, spans
"""
    )
    assert finished.returncode == 0, finished.stderr


def test_one_bad_attribute_does_not_keep_the_others_from_the_span() -> None:
    run = run_script(
        PRELUDE
        + """
spans = InMemoryExporter()
spans.install()
with span("op", {"before": 1, "broken": Broken(), "after": 2}, keyword=3, links=[7]) as op:
    op.set_attributes({"set before": 1, "broken": Broken(), "set after": 2})
assert spans.one("op").attributes == {"before": 1, "after": 2, "keyword": 3, "set before": 1, "set after": 2}, spans[0]
"""
    )
    assert run.returncode == 0, run.stderr


def test_without_init_every_call_does_nothing_and_raises_nothing() -> None:
    run_quietly(
        PRELUDE
        + """
@trace
def work():
    with span("op", {"key": Broken()}) as op:
        op.set_attribute("key", Broken())
        assert not op.is_recording and not op.context.is_valid
        new_span("by hand").end()
        headers = {}
        inject(headers)
        assert headers == {}, headers
    return 7
assert work() == 7

async def main():
    install_task_factory()
    async with span("op"):
        assert await span("op").run(asyncio.sleep(0, 1)) == 1
        assert await asyncio.create_task(asyncio.sleep(0, 2)) == 2
        assert await span_future("op", asyncio.sleep(0, 3)) == 3
    assert await aflush() and await ashutdown()
asyncio.run(main())
assert force_flush() and shutdown()
assert stats()["ended"] == stats()["swallowed_errors"] == 0
"""
    )


def test_without_init_a_context_that_came_in_goes_out_again() -> None:
    run_quietly(
        PRELUDE
        + """
incoming = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "baggage": "a=1"}
with use_context(extract(incoming)), span("op"):
    outgoing = {}
    inject(outgoing)
assert outgoing == incoming, outgoing
"""
    )


def test_an_interrupt_in_the_str_of_a_value_is_not_swallowed() -> None:
    finished = run_script(
        PRELUDE
        + """
class Interrupting:
    def __str__(self): raise KeyboardInterrupt
InMemoryExporter().install()
with span("op") as op:
    try:
        op.set_attribute("key", Interrupting())
    except KeyboardInterrupt:
        print("seen")
"""
    )
    assert (finished.returncode, finished.stdout) == (0, "seen\n")
