"""Log records and spans through a real collector, over both protocols, decoded with the official definitions."""

from pathlib import Path

import pytest
from collector import Collector
from interpreter import run_quietly
from receiver import Protocol, Receiver, attributes, spans

ARRIVAL_TIMEOUT_S = 20.0

SCRIPT = """
import logging
import rvh_trace
from rvh_trace.logging import LoggingHandler
rvh_trace.init_tracing("shop")
logging.getLogger().setLevel(logging.INFO)
logging.getLogger().addHandler(LoggingHandler())
for number in range(20):
    with rvh_trace.span("checkout", number=number):
        logging.getLogger(f"shop.part{number % 3}").info("item %d", number, extra={"item.number": number})
"""


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_record_arrives_once_and_in_its_span(receiver: Receiver, tmp_path: Path, protocol: Protocol) -> None:
    with Collector(receiver.endpoint(protocol), protocol, directory=tmp_path) as collector:
        run_quietly(
            SCRIPT,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint(protocol),
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc" if protocol == "grpc" else "http/protobuf",
        )
        arrived = receiver.wait_for_logs(20, ARRIVAL_TIMEOUT_S)
        receiver.wait_for(lambda requests: len(spans(requests)) >= 20, ARRIVAL_TIMEOUT_S)
    by_number = {one.attributes["number"]: one for one in receiver.spans}
    assert sorted(str(log.body) for log in arrived) == sorted(f"item {number}" for number in range(20))
    for log in arrived:
        number = log.attributes["item.number"]
        assert log.body == f"item {number}"
        assert (log.trace_id, log.span_id) == (by_number[number].trace_id, by_number[number].span_id)
        assert log.scope.name in {"shop.part0", "shop.part1", "shop.part2"}
        assert log.record.severity_number == 9
        assert attributes(log.resource.attributes)["service.name"] == "shop"
