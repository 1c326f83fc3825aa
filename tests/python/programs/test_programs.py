"""Random programs: the tree of their spans is the one that a reader expects, on every loop, whatever is cancelled."""

import os
import sys

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from programs.check import FACTORIES, LOOPS, check
from programs.program import Body, programs

pytestmark = pytest.mark.usefixtures("quiet")

EXAMPLES = int(os.environ.get("RVH_TRACE_PROGRAMS", "60"))
STEPS = st.none() | st.integers(0, 80)


def check_many(loop: str, factory: str) -> None:
    @settings(max_examples=EXAMPLES, phases=[Phase.reuse, Phase.generate, Phase.shrink])
    @given(programs(), STEPS)
    def checked(program: Body, step: int | None) -> None:
        check(program, LOOPS[loop], factory, step)

    checked()


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_span_is_current_where_a_reader_expects_it(loop: str, factory: str) -> None:
    check_many(loop, factory)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_also_in_eager_tasks() -> None:
    check_many("asyncio", "eager task spans")  # uvloop 0.23 cannot run CPython's eager factory
