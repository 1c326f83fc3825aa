"""What the servers put into the scope, and what is made of it."""

from .client import Run, one_after_the_other
from .request import root_request
from .server import Server


def test_the_addresses_of_both_sides_are_on_the_span(server: Server, run: Run) -> None:
    request = root_request("/plain")
    run(one_after_the_other(server.port, [request]))
    (span,) = server.assert_traces([request])
    assert isinstance(span.attributes.get("network.peer.port"), int)
    assert span.attributes["network.peer.address"] == span.attributes["client.address"] == "127.0.0.1"
    assert span.attributes["server.address"] == "shop.test"
    assert span.attributes["network.protocol.version"] == "1.1"
    assert span.attributes["url.scheme"] == "http"
