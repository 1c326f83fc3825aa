"""The programs where the interpreter looks hardest: development mode, debug mode, a collection at every allocation."""

from pathlib import Path

import pytest
from interpreter import run_quietly

_RUN = """
import gc, sys
from programs.check import FACTORIES, LOOPS, check
from programs.known import KNOWN, known

gc.collect()
gc.freeze()
{before}
for name in KNOWN:
    for loop in LOOPS.values():
        for factory in FACTORIES:
            for step in {steps}:
                check(known(name), loop, factory, step, debug={debug})
"""
_HERE = {"PYTHONPATH": str(Path(__file__).parents[1]), "RVH_TRACE_STRICT": "1"}


@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug mode"])
def test_development_mode_has_nothing_to_say(debug: bool) -> None:
    run_quietly(
        _RUN.format(before="", steps="(None, 2)", debug=debug),
        options=("-X", "dev", "-X", "faulthandler", "-W", "error"),
        **_HERE,
    )


def test_a_collection_at_every_allocation_finds_nothing_broken() -> None:
    # Before 3.12 the C API of context variables is fragile there.
    run_quietly(
        _RUN.format(before="gc.set_threshold(1, 1, 1)", steps="(None,)", debug=False),
        options=("-X", "faulthandler", "-W", "error"),
        **_HERE,
    )
