"""Nothing in these tests writes a line."""

import gc
import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Not a line in a log or on standard error."""
    gc.collect()
    gc.freeze()  # makes the collections of every example cheap
    with caplog.at_level(logging.WARNING):
        yield
    gc.unfreeze()
    assert [record.getMessage() for record in caplog.records] == []
    assert capfd.readouterr().err == ""
