"""Cancellation at every await: each program is run again for each of its suspensions, and cancelled there."""

import pytest

from programs.check import FACTORIES, LOOPS, check
from programs.known import KNOWN, known

pytestmark = pytest.mark.usefixtures("quiet")

MOST = 400


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", KNOWN)
def test_cancelled_at_every_step(name: str, loop: str, factory: str) -> None:
    check(known(name), LOOPS[loop], factory, None)
    cancelled = 0
    while check(known(name), LOOPS[loop], factory, cancelled).came:
        cancelled += 1
        assert cancelled < MOST
    assert cancelled > 0
