"""The comparison of what was exported with what the model expects of what happened."""

from __future__ import annotations

from collections import Counter

from programs.log import Log, Made
from programs.model import REMOTE, Current, Model
from programs.program import Body, Open, nodes
from programs.sync_runner import REMOTE_SPAN_ID
from rvh_trace.testing import FinishedSpan

__all__ = ("Comparison",)

_NOTHING = "0" * 16


class Comparison:
    """One run of one program.

    Args:
        program: What ran.
        log: What happened.
        exported: Every span.
        task_spans: Whether the loop has our task factory.
    """

    def __init__(self, program: Body, log: Log, exported: list[FinishedSpan], *, task_spans: bool) -> None:
        self._model = Model(program)
        self._log = log
        self._exported = exported
        self._task_spans = task_spans
        self._names: dict[str | None, Current] = {span.span_id: span.name for span in exported}
        self._names |= {_NOTHING: None, None: None, REMOTE_SPAN_ID: REMOTE}
        self._ended_by_hand = {
            node.label for node in nodes(program) if isinstance(node, Open) and node.how == "activate"
        }

    def check(self) -> None:
        """Every span once, with its parent, in its trace and with its outcome; the right one current at every node."""
        tasks = {task for task in self._log.tasks if self._has_span(task)}
        expected = self._log.spans.keys() | tasks
        names = Counter(span.name for span in self._exported)
        assert names == Counter(expected), (
            f"missing: {expected - names.keys()}, unexpected or twice: {names - Counter(expected)}"
        )
        by_id = {span.span_id: span for span in self._exported}
        assert len(by_id) == len(self._exported)
        for span in self._exported:
            made = self._made(span.name)
            found = self._names.get(span.parent_span_id, span.parent_span_id)
            self._compare(f"parent of {span.name}", found, self._model.parents[span.name], made.start)
            if span.parent_span_id in by_id:
                assert span.trace_id == by_id[span.parent_span_id].trace_id
            self._check_outcome(span, made)
        for seen in self._log.seen:
            found = self._names.get(seen.span_id, seen.span_id)
            self._compare(f"current at {seen.label}", found, self._model.current[seen.label], seen.moment)

    def _made(self, label: str) -> Made:
        return self._log.spans.get(label) or self._log.tasks[label]

    def _compare(self, what: str, found: Current, expected: Current, moment: int) -> None:
        expected = self._actual(expected)
        allowed = [expected]
        # Where somebody else has closed a generator, what outlives it may stand one further out.
        while expected in self._model.open_over_yields and self._is_over(expected, moment):
            expected = self._actual(self._model.parents[expected])
            allowed.append(expected)
        assert found in allowed, f"{what} is {found}, expected {allowed}"

    def _is_over(self, label: str, moment: int) -> bool:
        end = self._made(label).end
        return end is not None and end < moment

    def _actual(self, label: Current) -> Current:
        """A task without a span of its own has the span that is current where it is made."""
        while label in self._model.tasks and not self._has_span(label):
            label = self._model.parents[label]
        return label

    def _has_span(self, task: str) -> bool:
        """The rule of `install_task_factory`: tasks that are made inside of a span that is being recorded."""
        if not self._task_spans or task not in self._model.tasks or task in self._model.untraced_loops:
            return False
        parent = self._actual(self._model.parents[task])
        if parent is None or parent == REMOTE:
            return False
        return parent in self._model.tasks or not self._is_over(parent, self._log.tasks[task].start)

    def _check_outcome(self, span: FinishedSpan, made: Made) -> None:
        if made.end is None:  # a task that asyncio keeps to itself
            return
        raised = None if span.name in self._ended_by_hand else made.raised
        is_cancelled = raised == "CancelledError"
        is_error = raised not in (None, "CancelledError", "GeneratorExit")
        # A task that was cancelled before its first step never started.
        cancelled = span.attributes.get("rvh_trace.outcome") in ("cancelled", "never_started")
        assert cancelled == is_cancelled, (span, made)
        assert span.status == ("error" if is_error else "unset"), (span, made)
        if is_error:
            assert str(span.attributes["error.type"]).endswith(str(raised)), (span, made)
