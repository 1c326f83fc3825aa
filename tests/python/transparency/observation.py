"""What one run of an example showed to those outside the middleware, and how two runs differ."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import rvh_trace
from transparency.recipe import frozen

__all__ = ("Difference", "Observation")

Event = tuple[Any, ...]

# The library, and the middlewares that are broken on purpose.
_OWN_FILES = (str(Path(rvh_trace.__file__).parent), str(Path(__file__).with_name("broken.py")))
_MAX_DEPTH = 6
_NOT_SEEN = object()
# Addresses, and the numbers that asyncio gives to the tasks of a process: anyio puts both into messages.
_ADDRESS = re.compile(r"(?<=Cancelled via cancel scope )[0-9a-f]+|\b0x[0-9a-f]{6,}\b|(?<=\bTask-)\d+")


class Difference(AssertionError):  # noqa: N818 - what it is, not that it is an error
    """Somebody outside could tell the two runs apart."""


@dataclass(slots=True)
class Observation:
    """The events of one run in order. Objects that the run made have names, so that runs can be compared."""

    events: list[Event] = field(default_factory=list[Event])
    _names: dict[int, tuple[Any, str]] = field(default_factory=dict[int, tuple[Any, str]])

    def note(self, *event: Any) -> None:
        """Adds an event; its parts are compared with `==`."""
        self.events.append(event)

    def name(self, value: Any, name: str) -> Any:
        """Gives `value` a name for this run, and `value` back."""
        self._names[id(value)] = (value, name)
        return value

    def name_of(self, value: Any) -> str | None:
        """The name of this very object, None if it is none of the run's own."""
        named = self._names.get(id(value))
        return named[1] if named is not None else None

    def seen(self, value: Any) -> Any:
        """Which object it is, and what it looks like now."""
        return self.name_of(value), frozen(value)

    def error(self, error: BaseException, depth: int = 0) -> Any:
        """What can be seen of an exception. Of the frames, those in files of rvh_trace are left out."""
        if depth == _MAX_DEPTH:
            return self.name_of(error), type(error)
        frames: list[tuple[str, str, int]] = []
        traceback = error.__traceback__
        while traceback is not None:
            code = traceback.tb_frame.f_code
            if not code.co_filename.startswith(_OWN_FILES):
                frames.append((code.co_filename, code.co_name, traceback.tb_lineno))
            traceback = traceback.tb_next
        members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        related = (error.__cause__, error.__context__, *members)
        return (
            self.name_of(error),
            type(error),
            frozen(_without_addresses(error.args)),
            error.__suppress_context__,
            frozen(getattr(error, "__notes__", None)),
            tuple(frames),
            tuple([each and self.error(each, depth + 1) for each in related]),
        )

    def compare(
        self, traced: "Observation", added_headers: frozenset[bytes] = frozenset(), *, inside: bool = False
    ) -> None:
        """Raises unless `traced` shows the same as this run.

        Args:
            traced: The run with the middleware.
            added_headers: Names of response headers that the middleware was asked to add; they may stand behind the
                application's own.
            inside: Other middlewares are around it, which may add headers behind those.

        Raises:
            Difference: With the first event that differs, and what came before it.
        """
        if self.events == traced.events:
            return
        for index in range(max(len(self.events), len(traced.events))):
            plain, other = self._at(index), traced._at(index)
            if plain != other and not (added_headers and _differ_by_headers(plain, other, added_headers, inside)):
                self._fail(traced, index)

    def _at(self, index: int) -> Any:
        return self.events[index] if index < len(self.events) else _NOT_SEEN

    def _fail(self, traced: "Observation", index: int) -> NoReturn:
        before = "\n".join(f"    {_short(event)}" for event in self.events[max(0, index - 8) : index])
        raise Difference(
            f"event {index} differs\n  before:\n{before}\n  without: {_short(self._at(index), 2000)}\n"
            f"  with:    {_short(traced._at(index), 2000)}"
        )


def _without_addresses(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """anyio says which scope and which task cancelled, by address: those of two runs differ with or without us."""
    return tuple([_ADDRESS.sub("...", each) if type(each) is str else each for each in arguments])


def _short(event: Any, length: int = 300) -> str:
    text = "nothing" if event is _NOT_SEEN else repr(event)
    return text if len(text) <= length else text[:length] + "..."


def _differ_by_headers(plain: Any, traced: Any, added: frozenset[bytes], inside: bool) -> bool:
    """Whether two messages are the same but for headers of these names, behind the application's own or among them."""
    if _NOT_SEEN in (plain, traced) or plain[0] != "sent" or traced[0] != "sent":
        return False
    (kind, entries), (other_kind, others) = plain[1][1], traced[1][1]
    if kind is not dict or other_kind is not dict:
        return False
    ours, theirs = dict(entries), dict(others)
    key = frozen("headers")
    headers, more = ours.pop(key, (list, ())), theirs.pop(key, (list, ()))
    if ours != theirs or not all(isinstance(each, tuple) and isinstance(each[1], tuple) for each in (headers, more)):
        return False
    own, pairs = headers[1], more[1]
    count = len(pairs) - len(own)
    return count >= 0 and any(
        pairs[:at] + pairs[at + count :] == own and all(pair[1][0][1].lower() in added for pair in pairs[at:][:count])
        for at in (range(len(own) + 1) if inside else [len(own)])
    )
