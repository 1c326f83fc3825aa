"""The part of a program that does not suspend."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager

from programs.log import Log
from programs.model import nested
from programs.program import Body, Catch, Fail, Iterate, Node, Open, Outside
from rvh_trace import extract, new_span, span, trace, use_context

__all__ = ("REMOTE", "REMOTE_SPAN_ID", "PlannedError", "SyncRunner", "lose")

REMOTE_SPAN_ID = "b7ad6b7169203331"
REMOTE = {"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{REMOTE_SPAN_ID}-01"}


class PlannedError(Exception):
    """What `Fail` raises."""


class SyncRunner:
    """Runs what does not suspend, on any thread."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def sync(self, body: Body) -> None:
        for node in body:
            self.log.note(node.label)
            self.sync_node(node)
            self.log.note(node.label)

    def _sync_inside(self, label: str, body: Body) -> None:
        with self.log.inside(label):
            self.sync(body)

    def sync_node(self, node: Node) -> None:
        match node:
            case Open():
                self._sync_open(node)
            case Outside():
                with use_context(extract(REMOTE) if node.remote else None):
                    self.sync(node.body)
            case Catch():
                try:
                    self.sync(node.body)
                except PlannedError:
                    pass
            case Fail():
                raise PlannedError(node.label)
            case Iterate():
                self._sync_iterate(node)
            case _:
                raise NotImplementedError(node)

    def _sync_open(self, node: Open) -> None:
        label = node.label
        match node.how:
            case "with":
                with span(label):
                    self._sync_inside(label, node.body)
            case "activate":
                made = new_span(label)
                try:
                    with made.activate():
                        self._sync_inside(label, node.body)
                finally:
                    made.end()
            case "exit stack":
                with ExitStack() as stack:
                    stack.enter_context(span(label))
                    self._sync_inside(label, node.body)
            case "pushed":
                with ExitStack() as stack:
                    stack.push(span(label).__enter__())
                    self._sync_inside(label, node.body)
            case _:
                trace(label)(self._sync_inside)(label, node.body)

    def _sync_iterate(self, node: Iterate) -> None:
        def segments() -> Generator[int]:
            with self.over_yields(node):
                for number, segment in enumerate(node.segments):
                    self.sync(segment)
                    yield number

        generator = trace(node.label)(segments)()
        try:
            if node.rounds or node.ending == "exhaust":
                for number in generator:
                    if number < len(node.rounds):
                        self.sync(node.rounds[number])
                    if number + 1 >= len(node.rounds) and node.ending != "exhaust":
                        break
        finally:
            if node.ending == "close":
                generator.close()
        if node.ending == "collect":
            lose(generator)
        del generator
        if node.ending == "collect":
            gc.collect()
        self.sync(node.after)

    @contextmanager
    def over_yields(self, node: Iterate) -> Iterator[None]:
        """The spans of a generator, but for the one that `trace` makes."""
        with ExitStack() as stack:
            if not node.traced:
                stack.enter_context(span(node.label))
            stack.enter_context(self.log.inside(node.label))
            if node.nested:
                stack.enter_context(span(nested(node)))
                stack.enter_context(self.log.inside(nested(node)))
            yield


def lose(generator: object) -> None:
    """Leaves it to the garbage collector."""
    circle = [generator]
    circle.append(circle)
