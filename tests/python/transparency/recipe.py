"""Recipes: what an example is made of, so that each of its runs gets objects of its own.

A recipe is a plain value, a container of recipes, or a `Make`. `build` gives the object, `frozen` gives what the object
looks like as a value that can be compared with that of another run.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ("Make", "build", "frozen")

_PLAIN = frozenset({str, bytes, int, bool, type(None)})


@dataclass(frozen=True, slots=True)
class Make:
    """An object that is made for each run: `make(*arguments)`, the arguments being recipes."""

    make: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


def build(recipe: Any) -> Any:
    """The object that `recipe` describes; containers and what a `Make` makes are new, everything else is shared."""
    kind = type(recipe)
    if kind is dict:
        return {key: build(value) for key, value in recipe.items()}
    if kind is list:
        return [build(value) for value in recipe]
    if kind is tuple:
        return tuple([build(value) for value in recipe])
    if kind is Make:
        return recipe.make(*map(build, recipe.arguments))
    return recipe


def frozen(value: Any) -> Any:
    """What `value` looks like, its types included. Runs no code of `value`: an iterator stays as it is."""
    kind: type[Any] = type(value)
    if kind in _PLAIN:
        return kind, value
    if kind is float:
        return kind, repr(value)
    if issubclass(kind, dict):
        return kind, tuple([(frozen(key), frozen(entry)) for key, entry in dict.items(value)])
    if issubclass(kind, list | tuple | deque):
        return kind, tuple([frozen(entry) for entry in value])
    if issubclass(kind, str):
        return kind, str.__str__(value)
    if issubclass(kind, int):
        return kind, int.__index__(value)
    if issubclass(kind, bytes | bytearray | memoryview):
        return kind, bytes(memoryview(value))
    return kind
