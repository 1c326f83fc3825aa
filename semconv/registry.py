"""The registry of the telemetry of rvh_trace, and what the official semantic conventions know.

The YAML files beside this module are in the format of OpenTelemetry's weaver. The official names are the constants of
the package `opentelemetry-semantic-conventions`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import opentelemetry.semconv
import yaml

FOLDER = Path(__file__).parent

# Events have no constants in the package.
OFFICIAL_EVENTS = frozenset({"exception"})

# Named by the metrics SDK specification, "Overflow attribute", and by no registry.
OF_THE_SPECIFICATION = frozenset({"otel.metric.overflow"})


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the registry: attributes that are declared, or a signal that refers to some."""

    id: str
    type: str
    title: str
    brief: str
    attributes: list[dict[str, Any]]
    name: str | None
    span_names: tuple[str, ...]


@cache
def documents() -> Mapping[str, Any]:
    """The files of the registry by their names."""
    files = sorted(FOLDER.glob("*.yaml"))
    return {file.name: yaml.safe_load(file.read_text("utf-8")) for file in files if file.name != "manifest.yaml"}


def groups() -> list[Group]:
    """Every group, in the order of the files."""
    return [
        Group(
            group["id"],
            group["type"],
            group.get("display_name", group["id"]),
            group["brief"].strip(),
            group.get("attributes", []),
            group.get("name"),
            tuple(group.get("annotations", {}).get("span_names", ())),
        )
        for document in documents().values()
        for group in document["groups"]
    ]


@cache
def declared() -> Mapping[str, dict[str, Any]]:
    """Our own attributes by their names."""
    return {attribute["id"]: attribute for group in groups() for attribute in group.attributes if "id" in attribute}


def metrics() -> list[str]:
    """The official metrics that are recorded."""
    return [name for document in documents().values() for name in document.get("imports", {}).get("metrics", [])]


@cache
def official() -> Mapping[str, str]:
    """The official attributes and metrics, and the stability of each. Templates are known by their prefix."""
    known: dict[str, str] = {}
    for stability, folder in (("development", "_incubating."), ("stable", "")):
        for kind in ("attributes", "metrics"):
            for name in _modules(folder + kind):
                module = importlib.import_module(f"opentelemetry.semconv.{folder}{kind}.{name}")
                names = (value for constant, value in vars(module).items() if constant.isupper())
                known.update({value: stability for value in names if isinstance(value, str)})
    return known


@cache
def own_metrics() -> Mapping[str, tuple[str, str]]:
    """Our own metrics by their names: instrument and unit."""
    return {
        group["metric_name"]: (group["instrument"], group["unit"])
        for document in documents().values()
        for group in document["groups"]
        if group["type"] == "metric"
    }


def is_known(name: str) -> bool:
    """Whether an attribute or a metric of this name is declared, by us or officially."""
    if name in declared() or name in own_metrics() or name in official() or name in OF_THE_SPECIFICATION:
        return True
    return any(name.startswith(f"{template}.") for template in templates())


def is_known_span(name: str) -> bool:
    """Whether it is the name of a span that is made unasked. Those of requests and of the user's own vary."""
    return any(name in group.span_names for group in groups())


@cache
def templates() -> frozenset[str]:
    """The prefixes of attributes whose last part is free, `http.request.header`."""
    return frozenset(
        attribute["ref"]
        for group in groups()
        for attribute in group.attributes
        if attribute.get("annotations", {}).get("type", "").startswith("template[")
    )


def is_known_event(name: str) -> bool:
    """Whether an event of this name is declared, by us or officially."""
    return name in OFFICIAL_EVENTS or any(group.name == name for group in groups() if group.type == "event")


def _modules(folder: str) -> Iterator[str]:
    for path in opentelemetry.semconv.__path__:
        for file in sorted(Path(path, *folder.split(".")).glob("[a-z]*.py")):
            yield file.stem
