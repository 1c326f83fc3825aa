"""Random programs: whatever is awaited, cancelled, forked or dropped, every begin that a layer sees has one end."""

import os

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from layers.keeper import Keeper

from programs.check import FACTORIES, LOOPS, check
from programs.program import Body, programs
from rvh_trace import add_layer, force_flush, remove_layer

pytestmark = pytest.mark.usefixtures("quiet")

EXAMPLES = int(os.environ.get("RVH_TRACE_PROGRAMS", "40"))


def spans_of(keeper: Keeper) -> dict[str, list[str]]:
    """The calls for every span, in their order; each is told of with the state that its begin returned."""
    calls: dict[str, list[str]] = {}
    numbers: dict[str, int] = {}
    for method, told, state in keeper.calls:
        if method == "new":
            numbers[told.span_id] = len(numbers) + 1
        else:
            assert state == numbers[told.span_id]
        calls.setdefault(told.span_id, []).append(method)
    return calls


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("loop", LOOPS)
def test_every_begin_has_one_end(loop: str, factory: str) -> None:
    @settings(max_examples=EXAMPLES, phases=[Phase.reuse, Phase.generate, Phase.shrink])
    @given(programs(), st.none() | st.integers(0, 80))
    def checked(program: Body, step: int | None) -> None:
        batched, immediate = Keeper(), Keeper()
        handles = [add_layer(batched), add_layer(immediate, immediate=True)]
        try:
            check(program, LOOPS[loop], factory, step)
            assert force_flush()
            assert all(handle.is_active and handle.dropped == 0 for handle in handles)
            assert all(handle._states == {} for handle in handles)
        finally:
            for handle in handles:
                remove_layer(handle)
        calls = spans_of(batched)
        for of_span in calls.values():
            assert (of_span[0], of_span[-1]) == ("new", "close")
            assert of_span.count("new") == of_span.count("close") == 1
        assert spans_of(immediate) == calls

    checked()
