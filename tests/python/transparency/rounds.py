"""One round: hypothesis draws examples from a seed and gives them to a check."""

import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from transparency import tally
from transparency.comparison import OPTIONS, Options

__all__ = ("draw_round",)


def draw_round(
    number: int,
    examples: st.SearchStrategy[Any],
    check: Callable[[Any, Options], None],
    max_examples: int = tally.ROUND,
    shrink: bool = True,
) -> None:
    """Gives `max_examples` examples to `check`, each with a set of options, the same whenever `number` is the same.

    An engine for each round keeps what hypothesis remembers of the examples it has drawn small, whatever the total.
    """
    # Hypothesis favours the first of several, and that is another one in every round.
    first = number % len(OPTIONS)
    options = OPTIONS[first:] + OPTIONS[:first]
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

    @seed(number)
    @settings(
        max_examples=max_examples,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        print_blob=False,
    )
    @given(examples, st.sampled_from(options))
    def checked(example: Any, options: Options) -> None:
        check(example, options)

    state = random.getstate()
    try:
        checked()
    finally:
        random.setstate(state)
