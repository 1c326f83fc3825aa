"""Exceptions as text, for span events. Imported with the first exception that leaves a span."""

from __future__ import annotations

import traceback

_MAX_DEPTH = 16


def describe(raised: BaseException, max_members: int) -> list[tuple[str, str, str, str]]:
    """Type, message, stack trace and group path of `raised`, then of the members of its exception group.

    The path of `raised` is empty, of its first member "0", of the second member of that one "0.1". The stack trace of a
    group already prints its members' traces, so theirs are empty.
    """
    described = [(type_name(raised), _message(raised), _stacktrace(raised), "")]
    _add_members(described, raised, "", max_members, 0)
    return described


def type_name(raised: BaseException) -> str:
    """The fully-qualified class name; built-in classes without their module."""
    cls = type(raised)
    return cls.__qualname__ if cls.__module__ in ("builtins", None) else f"{cls.__module__}.{cls.__qualname__}"


def _add_members(
    described: list[tuple[str, str, str, str]],
    raised: BaseException,
    path: str,
    max_members: int,
    depth: int,
) -> None:
    members: tuple[BaseException, ...] = getattr(raised, "exceptions", ()) if _is_group(raised) else ()
    for index, member in enumerate(members):
        if len(described) > max_members:
            return
        member_path = f"{path}.{index}" if path else str(index)
        described.append((type_name(member), _message(member), "", member_path))
        if depth < _MAX_DEPTH:
            _add_members(described, member, member_path, max_members, depth + 1)


def _is_group(raised: BaseException) -> bool:
    return isinstance(raised, BaseExceptionGroup)


def _message(raised: BaseException) -> str:
    try:
        return _encodable(str(raised))
    except Exception:
        return f"<{type(raised).__qualname__} whose str() raised>"


def _stacktrace(raised: BaseException) -> str:
    try:
        return _encodable("".join(traceback.format_exception(raised)))
    except Exception:
        return ""


def _encodable(text: str) -> str:
    """`text` with lone surrogates replaced: they have no UTF-8."""
    return text.encode("utf-8", "replace").decode()
