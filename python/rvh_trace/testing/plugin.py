"""The pytest plugin: the `spans` fixture. Loaded by pytest through the entry point `rvh_trace`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rvh_trace.testing import InMemoryExporter


@pytest.fixture
def spans() -> Iterator[InMemoryExporter]:
    """The spans that end during the test: an `InMemoryExporter`, installed for the time of the test."""
    # Imported late: a test run that uses no span pays nothing for the plugin.
    from rvh_trace.testing import InMemoryExporter

    with InMemoryExporter() as exporter:
        yield exporter
