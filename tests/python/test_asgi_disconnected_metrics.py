"""A client that goes away is in the metrics as it is on the span, sampled or not."""

import pytest
from interpreter import run_quietly
from receiver import Receiver


@pytest.mark.parametrize("sampler", ["always_on", "always_off"])
def test_a_disconnect_that_counts_as_an_error_is_one_in_the_metrics(receiver: Receiver, sampler: str) -> None:
    run_quietly(
        f"""
        import asyncio
        import rvh_trace

        async def app(scope, receive, send):
            await receive()

        async def receive():
            return {{"type": "http.disconnect"}}

        async def send(message): ...

        rvh_trace.init_tracing("shop", endpoint={receiver.http_endpoint!r}, sampler={sampler!r})
        traced = rvh_trace.RvhTraceMiddleware(app, error_outcomes=["disconnected"])
        scope = {{"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": []}}
        asyncio.run(traced(scope, receive, send))
        assert rvh_trace.shutdown()
        """
    )
    (metric,) = receiver.metrics
    (point,) = metric.histogram.data_points
    found = {attribute.key: attribute.value.string_value for attribute in point.attributes}
    assert found["error.type"] == "disconnected"
    assert [span.attributes.get("error.type") for span in receiver.spans] == ["disconnected"] * (sampler == "always_on")
