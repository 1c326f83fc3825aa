"""The model: the span that a reader of a program expects to be current at every node, and the parent of every span.

It knows nothing of time. Which nodes are reached depends on scheduling, exceptions and cancellation; what is current
where they are does not.
"""

from __future__ import annotations

import sys

from programs.program import (
    Body,
    Callback,
    Catch,
    Expire,
    Fork,
    Iterate,
    Managed,
    Node,
    Open,
    Outside,
    Thread,
)

# What is current: the label of a span, `REMOTE`, or nothing.
Current = str | None
REMOTE = "remote"

# Before 3.12 `wait_for` wraps what it waits for in a task.
WAIT_FOR_MAKES_A_TASK = sys.version_info < (3, 12)


def branch(node: Node, number: int = 0) -> str:
    """The name of a task that a node makes."""
    return f"{node.label} task {number}"


def nested(node: Node) -> str:
    """The name of the second span of a generator."""
    return f"{node.label} nested"


def cleanup(node: Node) -> str:
    """The name of the end of a generator's body."""
    return f"{node.label} cleanup"


class Model:
    """What is expected of a program.

    Attributes:
        current: By label of a node: what is current where it stands, before and after it.
        parents: By label of a span or task: what is current where it is made.
        tasks: The labels that are tasks, which have a span or not, see `spanned`.
        untraced_loops: Tasks on loops without our factory.
        open_over_yields: Spans whose scope somebody else may leave.
    """

    def __init__(self, program: Body) -> None:
        self.current: dict[str, Current] = {}
        self.parents: dict[str, Current] = {}
        self.tasks: set[str] = set()
        self.untraced_loops: set[str] = set()
        self.open_over_yields: set[str] = set()
        self._walk(program, None, True)

    def _walk(self, body: Body, current: Current, traced_loop: bool) -> None:
        for node in body:
            self.current[node.label] = current
            self._node(node, current, traced_loop)

    def _span(self, label: str, parent: Current) -> str:
        self.parents[label] = parent
        return label

    def _task(self, label: str, parent: Current, traced_loop: bool) -> str:
        self.tasks.add(label)
        if not traced_loop:
            self.untraced_loops.add(label)
        return self._span(label, parent)

    def _node(self, node: Node, current: Current, traced_loop: bool) -> None:
        match node:
            case Open(how="run in task"):
                task = self._task(branch(node), current, traced_loop)
                self._walk(node.body, self._span(node.label, task), traced_loop)
            case Open():
                self._walk(node.body, self._span(node.label, current), traced_loop)
            case Managed():
                inside = self._span(node.label, current)
                self._walk(node.before, inside, traced_loop)
                # A traced generator is current only while its body runs.
                self._walk(node.body, current if node.traced else inside, traced_loop)
            case Outside():
                self._walk(node.body, REMOTE if node.remote else None, traced_loop)
            case Catch():
                self._walk(node.body, current, traced_loop)
            case Callback():
                self._walk(node.body, current, traced_loop)
            case Fork():
                for number, body in enumerate(node.bodies):
                    is_task = node.how != "wait_for" or WAIT_FOR_MAKES_A_TASK
                    inside = self._task(branch(node, number), current, traced_loop) if is_task else current
                    self._walk(body, inside, traced_loop)
            case Expire():
                is_task = node.how in ("cancel", "shielded") or (node.how == "wait_for" and WAIT_FOR_MAKES_A_TASK)
                inside = self._task(branch(node), current, traced_loop) if is_task else current
                self._walk(node.body, inside, traced_loop)
            case Iterate():
                self._iterate(node, current, traced_loop)
            case Thread(how="threadsafe"):
                self._walk(node.body, self._task(branch(node), current, traced_loop), traced_loop)
            case Thread(how="nested loop"):
                self._walk(node.body, self._task(branch(node), current, False), False)
            case Thread():
                # A plain thread, and so a plain executor, starts with an empty context.
                self._walk(node.body, None if node.how in ("executor", "bare") else current, traced_loop)
            case _:
                pass

    def _iterate(self, node: Iterate, current: Current, traced_loop: bool) -> None:
        if not node.traced:
            # The span over the `yield`s of a plain generator is current in the loop too: that is how context variables
            # work. The loop has a task of its own, for it may stay so.
            current = self._task(branch(node), current, traced_loop)
        inside = self._span(node.label, current)
        if node.nested:
            inside = self._span(nested(node), inside)
        self.open_over_yields |= {node.label, inside}
        self.current[cleanup(node)] = inside
        for segment in node.segments:
            self._walk(segment, inside, traced_loop)
        for body in node.rounds:
            self._walk(body, current if node.traced else inside, traced_loop)
        self._walk(node.after, current, traced_loop)
