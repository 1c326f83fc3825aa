"""How many examples were run, of which family, and how many must be."""

import os
from collections import Counter

__all__ = ("FAMILIES", "REQUIRED", "ROUND", "by_options", "count", "count_comparison", "counted", "rounds", "summary")

# What is claimed of the suite; a run with another number in the environment must reach that number.
REQUIRED = int(os.environ.get("RVH_TRACE_EXAMPLES", "20000"))
ROUND = 500

# The share of each family in percent.
FAMILIES = {"http": 46, "websocket": 12, "other": 8, "loop": 20, "starlette": 7, "fastapi": 7}

counted: Counter[str] = Counter()
by_options: Counter[str] = Counter()
_comparisons: Counter[str] = Counter()


def rounds(family: str) -> int:
    """How many rounds of `ROUND` examples a family is given: enough for its share of what is required."""
    return -(-REQUIRED * FAMILIES[family] // (100 * ROUND))


def count(family: str, options: str) -> None:
    """One example was run. Those of no family prove other things than transparency."""
    if family in FAMILIES:
        counted[family] += 1
        by_options[options] += 1


def count_comparison(family: str) -> None:
    """A run with the middleware was compared with the run without."""
    if family in FAMILIES:
        _comparisons[family] += 1


def summary() -> str:
    """One line."""
    families, options = (
        ", ".join(f"{what} {number}" for what, number in counter.items()) for counter in (counted, by_options)
    )
    return f"transparency: {counted.total()} examples in {_comparisons.total()} comparisons ({families}; {options})"
