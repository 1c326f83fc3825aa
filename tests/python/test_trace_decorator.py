"""`@trace` and `@span(...)` on functions and coroutine functions: same kind, same signature, one span a call."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from rvh_trace import current_span, span, trace
from rvh_trace.testing import InMemoryExporter

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@trace
def price(item: int, *, factor: int = 3) -> int:
    """What it costs."""
    current_span().set_attribute("item", item)
    return factor * item


@trace
async def load(key: int) -> int:
    """From the store."""
    current_span().set_attribute("key", key)
    await asyncio.sleep(0)
    return key


class Shop:
    @trace
    def method(self, item: int) -> int:
        return item

    @trace
    async def async_method(self, item: int) -> int:
        return item

    @trace
    @staticmethod
    def static_inside(item: int) -> int:
        return item

    @staticmethod
    @trace
    def static_outside(item: int) -> int:
        return item

    @trace
    @classmethod
    def class_inside(cls, item: int) -> tuple[type, int]:
        return cls, item

    @classmethod
    @trace
    def class_outside(cls, item: int) -> tuple[type, int]:
        return cls, item

    @property
    @trace
    def size(self) -> int:
        return 9


def test_a_function_gets_a_span_a_call_named_after_it(spans: InMemoryExporter) -> None:
    assert [price(2), price(item=3, factor=1)] == [6, 3]
    assert [(one.name, one.attributes) for one in spans] == [("price", {"item": 2}), ("price", {"item": 3})]


def test_a_coroutine_function_gets_a_span_around_the_await(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        coroutine = load(7)
        with span("awaited in") as outer:
            assert await coroutine == 7
            assert current_span() is outer

    run(main())
    assert spans.one("load").is_child_of(spans.one("awaited in"))
    assert spans.one("load").attributes == {"key": 7}


def test_calls_at_the_same_time_have_spans_of_their_own(spans: InMemoryExporter, run: Run) -> None:
    async def main() -> None:
        assert await asyncio.gather(*(load(key) for key in range(5))) == list(range(5))

    run(main())
    assert sorted(one.attributes["key"] for one in spans) == list(range(5))  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    assert len({one.span_id for one in spans}) == 5


def test_recursion_nests(spans: InMemoryExporter) -> None:
    @trace("down")
    def down(depth: int) -> int:
        return depth and down(depth - 1)

    assert down(2) == 0
    innermost, middle, outermost = spans
    assert innermost.is_child_of(middle)
    assert middle.is_child_of(outermost)


def test_methods_of_every_kind_work_and_are_named_with_their_class(spans: InMemoryExporter, run: Run) -> None:
    shop = Shop()
    assert shop.method(1) == Shop.method(shop, 1) == 1
    assert run(shop.async_method(2)) == 2
    assert shop.static_inside(3) == Shop.static_inside(3) == 3
    assert shop.static_outside(4) == Shop.static_outside(4) == 4
    assert shop.class_inside(5) == Shop.class_inside(5) == (Shop, 5)
    assert shop.class_outside(6) == Shop.class_outside(6) == (Shop, 6)
    assert shop.size == 9
    assert sorted({one.name for one in spans}) == [
        "Shop.async_method",
        "Shop.class_inside",
        "Shop.class_outside",
        "Shop.method",
        "Shop.size",
        "Shop.static_inside",
        "Shop.static_outside",
    ]


def test_the_wrapper_is_of_the_same_kind_with_the_same_signature() -> None:
    assert not inspect.iscoroutinefunction(price)
    assert inspect.iscoroutinefunction(load)
    assert inspect.iscoroutinefunction(Shop.async_method)
    assert str(inspect.signature(price)) == "(item: int, *, factor: int = 3) -> int"
    assert str(inspect.signature(load)) == "(key: int) -> int"
    assert (price.__name__, price.__qualname__, price.__module__) == ("price", "price", __name__)
    assert (price.__doc__, load.__doc__) == ("What it costs.", "From the store.")
    assert inspect.unwrap(price) is not price


def test_name_attributes_and_kind_are_those_of_every_call(spans: InMemoryExporter) -> None:
    @trace("lookup", {"db.system.name": "sqlite"}, kind="client", shard=3)
    def look_up() -> None: ...

    look_up()
    look_up()
    for one in spans:
        assert (one.name, one.kind) == ("lookup", "client")
        assert one.attributes == {"db.system.name": "sqlite", "shard": 3}
    assert len(spans) == 2


def test_without_a_name_the_function_has_it(spans: InMemoryExporter) -> None:
    @trace()
    def empty() -> None: ...

    @trace(kind="client", shard=3)
    def keyword() -> None: ...

    empty()
    keyword()
    assert [one.name for one in spans] == [empty.__qualname__, keyword.__qualname__]


def test_span_decorates_too(spans: InMemoryExporter, run: Run) -> None:
    @span("price", {"a": 1}, kind="client")
    def work() -> int:
        return 1

    @span("load")
    async def awork() -> int:
        return 2

    assert [work(), work(), run(awork())] == [1, 1, 2]
    assert [(one.name, one.attributes) for one in spans] == [("price", {"a": 1}), ("price", {"a": 1}), ("load", {})]


def test_the_same_exception_comes_out(spans: InMemoryExporter, run: Run) -> None:
    error = LookupError("none")

    @trace
    def fail() -> None:
        raise error

    @trace
    async def afail() -> None:
        raise error

    with pytest.raises(LookupError) as caught:
        fail()
    assert caught.value is error
    with pytest.raises(LookupError) as caught:
        run(afail())
    assert caught.value is error
    assert [(one.status, one.status_description) for one in spans] == [("error", "none")] * 2


def test_cancellation_passes_through_and_is_visible(spans: InMemoryExporter, run: Run) -> None:
    @trace
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(), 0.001)

    run(main())
    assert (spans[0].status, spans[0].attributes) == ("unset", {"rvh_trace.outcome": "cancelled"})


def test_a_traced_coroutine_function_that_is_not_awaited_makes_no_span(spans: InMemoryExporter) -> None:
    coroutine = load(7)
    coroutine.close()
    assert list(spans) == []


def test_a_function_that_returns_an_awaitable_gives_it_untouched(spans: InMemoryExporter, run: Run) -> None:
    async def inner() -> int:
        return 3

    coroutine = inner()

    @trace
    def make() -> Coroutine[Any, Any, int]:
        return coroutine

    assert make() is coroutine
    assert run(coroutine) == 3


class Pricer:
    def __call__(self, item: int) -> int:
        return item


@pytest.mark.parametrize("function", [functools.partial(max, 1), Pricer(), abs], ids=["partial", "object", "builtin"])
def test_callables_that_are_no_functions_can_be_traced(spans: InMemoryExporter, function: Callable[[int], int]) -> None:
    assert trace("named")(function)(3) == 3
    assert trace(function)(3) == 3
    assert spans[0].name == "named"
    assert len(spans) == 2


def test_decorating_before_tracing_is_set_up_is_no_loss() -> None:
    @trace
    def work() -> None: ...

    work()
    with InMemoryExporter() as spans:
        work()
        assert len(spans) == 1
    work()
    assert len(spans) == 1


@pytest.mark.parametrize("decorator", [trace, span("Shop.price"), span("Shop.price", {"item": 7})])
def test_a_function_that_was_decorated_under_another_tracer_traces_to_the_present_one(
    spans: InMemoryExporter, decorator: Callable[..., Any]
) -> None:
    with InMemoryExporter() as before:
        decorators = [decorator, span("made under the other")]
        functions = [each(lambda: None) for each in decorators]
    for function in functions:
        function()
    assert len(spans) == 2
    assert list(before) == []
