"""Writes docs/telemetry.md from the registry: `make docs-tables`. With `--check`, only says whether it is current."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import registry

PAGE = Path(__file__).parent.parent / "docs" / "telemetry.md"

INTRODUCTION = """\
# Telemetry

<!-- Made by `make docs-tables` from semconv/. Change it there. -->

Every attribute, event and metric that rvh_trace sends by itself. Names without the prefix `rvh_trace.` are those of the
OpenTelemetry semantic conventions 1.44, and so are their meanings. Our own are declared in `semconv/`, a registry for
OpenTelemetry's weaver; names under `rvh_trace.` may change while they are in development.
"""

_METRICS = """\
Of requests, whether their spans are sampled or not; the same value as the span where both have one. All but
`http.server.request.duration` are recorded with the `opt_in` of their name.

Those of the library itself, `otel.sdk.*`, are exported with `self_metrics=True`. They are cumulative whatever
temporality is preferred, and the capacity of the queue is there if it has one in spans."""


def page() -> str:
    """The page as it should be."""
    signals = [group for group in registry.groups() if any("ref" in attribute for attribute in group.attributes)]
    events = [group for group in registry.groups() if group.type == "event"]
    sections = [INTRODUCTION]
    sections += [_section(group.title, group.brief, _attributes(group)) for group in signals]
    sections += [_section(group.title, group.brief, ()) for group in events if group not in signals]
    sections.append(_section("Metrics", _METRICS, _metrics()))
    sections.append(_section("Our own attributes", "What they mean.", _own()))
    return "\n".join(sections)


def _section(title: str, brief: str, table: Iterator[str] | tuple[str, ...]) -> str:
    lines = [f"## {title}", "", brief, *table]
    return "\n".join(lines).rstrip() + "\n"


def _attributes(group: registry.Group) -> Iterator[str]:
    yield from _head("attribute", "type", "unit", "when it is set", "stability")
    for attribute in group.attributes:
        name: str = attribute.get("ref") or attribute["id"]
        own = registry.declared().get(name, {})
        notes: dict[str, str] = own.get("annotations", {}) | attribute.get("annotations", {})
        stability: str = own.get("stability") or registry.official()[name]
        yield _row(
            f"`{name}.<key>`" if name in registry.templates() else f"`{name}`",
            _type(own.get("type") or notes["type"]),
            _unit(notes.get("unit", "")),
            notes.get("when") or _level(attribute.get("requirement_level", "recommended")),
            stability,
        )


def _metrics() -> Iterator[str]:
    yield from _head("metric", "instrument", "unit", "stability")
    for name in registry.metrics():
        instrument, unit = _instrument(name)
        yield _row(f"`{name}`", instrument, _unit(unit), registry.official()[name])


def _own() -> Iterator[str]:
    yield from _head("attribute", "meaning")
    for name, attribute in registry.declared().items():
        meaning = [attribute["brief"], attribute.get("note", "")]
        meaning += [f"`{member['value']}`: {member['brief']}" for member in _members(attribute["type"])]
        yield _row(f"`{name}`", " ".join(" ".join(meaning).split()))


def _head(*columns: str) -> Iterator[str]:
    yield ""
    yield _row(*columns)
    yield _row(*["---"] * len(columns))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(declared: Any) -> str:
    members = _members(declared)
    if members:
        return "string: " + ", ".join(f"`{member['value']}`" for member in members)
    return declared.removeprefix("template[").removesuffix("]") if declared.startswith("template[") else declared


def _members(declared: Any) -> list[dict[str, str]]:
    return [] if isinstance(declared, str) else declared["members"]


def _unit(unit: str) -> str:
    return f"`{unit}`" if unit else ""


def _level(level: str | dict[str, str]) -> str:
    if isinstance(level, dict):
        (condition,) = level.values()
        return condition
    return {"required": "Always.", "recommended": "If known.", "opt_in": "By choice."}[level]


def _instrument(name: str) -> tuple[str, str]:
    """Instrument and unit, out of the docstring below the constant, which is all that the package has of them."""
    for module in (
        "opentelemetry.semconv.metrics.http_metrics",
        "opentelemetry.semconv._incubating.metrics.http_metrics",
        "opentelemetry.semconv._incubating.metrics.otel_metrics",
    ):
        source = Path(str(importlib.import_module(module).__file__)).read_text("utf-8")
        found = re.search(rf'"{re.escape(name)}"\n"""[^"]*?Instrument: (\w+)\nUnit: (\S+)', source)
        if found is not None:
            return found[1], found[2]
    raise LookupError(name)


def main() -> int:
    """Writes the page, or says that it is not current."""
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(page(), "utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text("utf-8") == page():
        return 0
    print(f"{PAGE.name} is not what semconv/ says. Run `make docs-tables`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
