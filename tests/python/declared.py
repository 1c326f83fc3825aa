"""What the library sent under names that no registry knows."""

import re
from collections.abc import Iterable, Iterator

import registry

from rvh_trace.testing import FinishedSpan

# A name with a dot claims a namespace. Shorter parts are what tests make up, `thread.0`.
NAMESPACED = re.compile(r"[a-z][a-z0-9_]+(\.[a-z][a-z0-9_-]+)+")

# Namespaces that tests and examples use for attributes of their own.
TESTS_OWN = frozenset({"app", "cart", "item", "order", "shop", "stock", "test"})


def names(spans: Iterable[FinishedSpan]) -> Iterator[tuple[str, str]]:
    """Every name on the spans, and whether it is that of an attribute or an event."""
    for span in spans:
        yield from (("attribute", name) for name in span.attributes)
        yield from (("attribute", name) for name in span.resource)
        yield from (("attribute", name) for link in span.links for name in link.attributes)
        yield from (("event", event.name) for event in span.events)
        yield from (("attribute", name) for event in span.events for name in event.attributes)


def undeclared(spans: Iterable[FinishedSpan], *, only_namespaced: bool) -> set[str]:
    """The names that neither registry knows; with `only_namespaced` without those that are the tests' own."""
    known = {"attribute": registry.is_known, "event": registry.is_known_event}
    found = {name for what, name in names(spans) if not known[what](name)}
    if not only_namespaced:
        return found
    return {name for name in found if NAMESPACED.fullmatch(name) and name.partition(".")[0] not in TESTS_OWN}
