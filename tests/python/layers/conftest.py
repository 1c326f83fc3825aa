"""Layers of either sort, and none left behind."""

import gc
from collections.abc import Iterator

import pytest

from layers.keeper import Add, Keeper
from rvh_trace import _layers, add_layer, remove_layer
from rvh_trace.testing import InMemoryExporter


@pytest.fixture(autouse=True)
def no_layer_is_left() -> Iterator[None]:
    yield
    for handle in _layers._handles:
        remove_layer(handle)


@pytest.fixture(params=[False, True], ids=["batched", "immediate"])
def add(request: pytest.FixtureRequest, spans: InMemoryExporter) -> Add:
    """Adds a layer of either sort."""
    return lambda layer: add_layer(layer, immediate=request.param)


@pytest.fixture
def keeper(add: Add) -> Keeper:
    """A layer of either sort that was added."""
    gc.collect()  # what other tests left does not end now
    keeper = Keeper()
    add(keeper)
    return keeper
