"""The metrics of HTTP servers, as an OTLP receiver gets them: the same request, the same values as on its span."""

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from collector import Collector
from interpreter import run_quietly
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric, NumberDataPoint
from process import LOOPBACK, Process, child_env, free_ports
from receiver import ReceivedSpan, Receiver, attributes, spans

from asgi.serving import python_path_with_tests

DURATION, ACTIVE = "http.server.request.duration", "http.server.active_requests"
SIZE_IN, SIZE_OUT = "http.server.request.body.size", "http.server.response.body.size"
BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
ARRIVAL_TIMEOUT_S = 20.0

PRELUDE = """
import asyncio
import rvh_trace
from handmade_server import LAST_BODY, START, answering, http_scope, serve, with_headers
from rvh_trace import RvhTraceMiddleware, span

rvh_trace.init_tracing("shop")

def run(app=None, scope=None, received=(), **options):
    try:
        return asyncio.run(serve(RvhTraceMiddleware(app or answering(), **options), scope, received))
    except BaseException as error:
        return error
"""


@dataclass(frozen=True)
class Measured:
    """What a process measured and traced."""

    metrics: dict[str, Metric]
    spans: list[ReceivedSpan]

    def histogram(self, name: str = DURATION) -> Sequence[HistogramDataPoint]:
        return self.metrics[name].histogram.data_points

    def one(self, name: str = DURATION) -> HistogramDataPoint:
        (point,) = self.histogram(name)
        return point

    def sums(self, name: str = ACTIVE) -> Sequence[NumberDataPoint]:
        return self.metrics[name].sum.data_points


def measure(receiver: Receiver, script: str, environ: dict[str, str] | None = None) -> Measured:
    """Runs a script behind `PRELUDE`; what it exported when it ended."""
    run_quietly(
        PRELUDE + textwrap.dedent(script),
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
        PYTHONPATH=python_path_with_tests(),
        **environ or {},  # pyright: ignore[reportArgumentType]
    )
    found = {metric.name: metric for metric in receiver.metrics}
    assert len(found) == len(receiver.metrics), "each metric is exported once, at exit"
    return Measured(found, receiver.spans)


def labels(point: Any) -> dict[str, object]:
    return dict(attributes(point.attributes))


PLAIN: dict[str, object] = {
    "http.request.method": "GET",
    "http.response.status_code": 200,
    "network.protocol.version": "1.1",
    "url.scheme": "http",
}


class TestDuration:
    def test_is_exactly_that_of_the_span_with_its_ids_as_exemplar(self, receiver: Receiver) -> None:
        measured = measure(receiver, "run()")
        (server,) = measured.spans
        point = measured.one()
        duration_ns = server.span.end_time_unix_nano - server.span.start_time_unix_nano
        assert (point.count, point.sum, point.min, point.max) == (1, *[duration_ns / 1e9] * 3)
        assert list(point.explicit_bounds) == BOUNDS
        assert measured.metrics[DURATION].unit == "s"
        (exemplar,) = point.exemplars
        assert (exemplar.trace_id.hex(), exemplar.span_id.hex()) == (server.trace_id, server.span_id)
        assert exemplar.as_double == duration_ns / 1e9
        assert exemplar.time_unix_nano == server.span.end_time_unix_nano

    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            ("run()", PLAIN),
            ("run(scope=http_scope(method='PURGE'))", PLAIN | {"http.request.method": "_OTHER"}),
            ("run(scope=http_scope(scheme='https', http_version='2'))",
             PLAIN | {"url.scheme": "https", "network.protocol.version": "2"}),
            ("run(answering(START | {'status': 404}, LAST_BODY))", PLAIN | {"http.response.status_code": 404}),
            ("run(answering(START | {'status': 500}, LAST_BODY))",
             PLAIN | {"http.response.status_code": 500, "error.type": "500"}),
            ("run(answering(START | {'status': 404}, LAST_BODY), error_outcomes='4xx')",
             PLAIN | {"http.response.status_code": 404, "error.type": "404"}),
            ("run(scope=with_headers((b'host', b'evil.example')), trusted_proxies='*')", PLAIN),
            ("run(scope=with_headers((b'x-forwarded-proto', b'https')), trusted_proxies='*')",
             PLAIN | {"url.scheme": "https"}),
            ("run(scope=with_headers((b'host', b'shop.example:81')), opt_in='server.address')",
             PLAIN | {"server.address": "shop.example", "server.port": 81}),
            ("run(scope={'type': 'http', 'method': 'GET', 'scheme': 'http'})",
             {key: value for key, value in PLAIN.items() if key != "network.protocol.version"}),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )  # fmt: skip
    def test_has_the_attributes_that_are_bounded(
        self, receiver: Receiver, script: str, expected: dict[str, object]
    ) -> None:
        assert labels(measure(receiver, script).one()) == expected

    def test_of_a_failure_names_the_exception_and_has_no_status(self, receiver: Receiver) -> None:
        measured = measure(
            receiver,
            """
            async def app(scope, receive, send):
                raise LookupError("tea")
            assert isinstance(run(app), LookupError)
            """,
        )
        expected = {key: value for key, value in PLAIN.items() if key != "http.response.status_code"}
        assert labels(measured.one()) == expected | {"error.type": "LookupError"}

    def test_has_the_route_and_never_the_path(self, receiver: Receiver) -> None:
        measured = measure(
            receiver,
            """
            async def app(scope, receive, send):
                scope["rvh_trace.http.route"] = "/items/{id}"
                await answering()(scope, receive, send)
            for number in range(50):
                run(app, http_scope(f"/items/{number}"))
            """,
        )
        point = measured.one()
        assert (labels(point), point.count) == (PLAIN | {"http.route": "/items/{id}"}, 50)
        durations = [one.span.end_time_unix_nano - one.span.start_time_unix_nano for one in measured.spans]
        assert (point.min, point.max) == (min(durations) / 1e9, max(durations) / 1e9)
        assert point.sum == pytest.approx(sum(durations) / 1e9, rel=1e-12)

    @pytest.mark.parametrize("phases", [False, True])
    def test_leaves_background_tasks_out_as_the_span_does(self, receiver: Receiver, phases: bool) -> None:
        """open-telemetry/opentelemetry-python-contrib#3591"""
        measured = measure(
            receiver,
            f"""
            async def app(scope, receive, send):
                await answering()(scope, receive, send)
                with span("background"):
                    await asyncio.sleep(0)
            run(app, phases={phases})
            """,
        )
        (server,) = (one for one in measured.spans if one.kind == "server")
        duration_ns = server.span.end_time_unix_nano - server.span.start_time_unix_nano
        assert measured.one().sum == duration_ns / 1e9

    @pytest.mark.parametrize("unheard", [False, True])
    def test_of_a_5xx_that_is_raised_again_is_the_spans_too(self, receiver: Receiver, unheard: bool) -> None:
        measured = measure(
            receiver,
            f"""
            async def app(scope, receive, send):
                while {unheard} and (await receive())["type"] != "http.disconnect":
                    pass
                for message in (START | {{"status": 500}}, LAST_BODY):
                    await send(message)
                with span("between"):
                    await asyncio.sleep(0)
                raise (BrokenPipeError if {unheard} else LookupError)("tea")
            run(app)
            """,
        )
        (server,) = (one for one in measured.spans if one.kind == "server")
        duration_ns = server.span.end_time_unix_nano - server.span.start_time_unix_nano
        assert (measured.one().count, measured.one().sum) == (1, duration_ns / 1e9)
        assert labels(measured.one()).get("error.type") == server.attributes.get("error.type")
        assert server.attributes.get("error.type") == (None if unheard else "500")

    @pytest.mark.parametrize(
        "environ", [{"OTEL_TRACES_SAMPLER": "always_off"}, {"OTEL_TRACES_EXPORTER": "none"}], ids=str
    )
    def test_is_recorded_when_the_span_is_not(self, receiver: Receiver, environ: dict[str, str]) -> None:
        measured = measure(
            receiver,
            """
            async def failing(scope, receive, send):
                raise LookupError("tea")
            for app in (None, answering(START | {"status": 500}, LAST_BODY), failing):
                run(app)
            run(scope=http_scope(method="HEAD"), received=[], phases=True)
            """,
            environ,
        )
        assert measured.spans == []
        found = {
            (found.get("http.request.method"), found.get("http.response.status_code"), found.get("error.type"))
            for found in map(labels, measured.histogram())
        }
        assert found == {("GET", 200, None), ("GET", 500, "500"), ("GET", None, "LookupError"), ("HEAD", 200, None)}
        assert all(point.count == 1 for point in measured.histogram())
        if environ.get("OTEL_TRACES_SAMPLER"):
            assert not any(point.exemplars for point in measured.histogram())

    def test_excluded_requests_and_websockets_make_none(self, receiver: Receiver) -> None:
        measured = measure(
            receiver,
            """
            run(excluded_urls="/items")
            socket = http_scope() | {"type": "websocket", "scheme": "ws"}
            run(answering({"type": "websocket.accept"}, {"type": "websocket.close"}), socket,
                opt_in=["http.server.active_requests", "http.server.request.body.size"])
            """,
        )
        assert measured.metrics == {}

    def test_two_middlewares_make_one(self, receiver: Receiver) -> None:
        assert measure(receiver, "run(RvhTraceMiddleware(answering()))").one().count == 1


class TestActiveRequests:
    OPTION = "opt_in='http.server.active_requests'"

    def test_is_only_for_those_who_ask(self, receiver: Receiver) -> None:
        assert set(measure(receiver, "run()").metrics) == {DURATION}

    @pytest.mark.parametrize("sampler", ["always_on", "always_off"])
    def test_is_back_to_nothing_however_requests_end(self, receiver: Receiver, sampler: str) -> None:
        measured = measure(
            receiver,
            f"""
            async def failing(scope, receive, send):
                raise LookupError("tea")
            async def cancelled(scope, receive, send):
                raise asyncio.CancelledError
            async def left(scope, receive, send):
                while (await receive())["type"] != "http.disconnect":
                    pass
            async def unheard(scope, receive, send):
                await left(scope, receive, send)
                await answering(START | {{"status": 500}}, LAST_BODY)(scope, receive, send)
            async def silent(scope, receive, send):
                pass
            broken = answering(START | {{"status": 500}}, LAST_BODY)
            for app in (None, broken, failing, cancelled, left, unheard, silent, answering(START)):
                run(app, {self.OPTION})
            """,
            {"OTEL_TRACES_SAMPLER": sampler},
        )
        (point,) = measured.sums()
        assert (point.as_int, labels(point)) == (0, {"http.request.method": "GET", "url.scheme": "http"})
        assert sum(point.count for point in measured.histogram()) == 8

    def test_counts_requests_that_are_under_way(self, receiver: Receiver) -> None:
        run_quietly(
            PRELUDE
            + textwrap.dedent(
                f"""
                async def app(scope, receive, send):
                    assert rvh_trace.force_flush()
                    await answering()(scope, receive, send)
                run(app, {self.OPTION})
                """
            ),
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            PYTHONPATH=python_path_with_tests(),
        )
        values = [metric.sum.data_points[0].as_int for metric in receiver.metrics if metric.name == ACTIVE]
        assert values == [1, 0]


class TestBodySizes:
    OPTIONS = "opt_in=['http.server.request.body.size', 'http.server.response.body.size']"
    READING = """
    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        for message in MESSAGES:
            await send(message)
    """

    def test_are_the_bytes_that_passed(self, receiver: Receiver) -> None:
        measured = measure(
            receiver,
            f"""
            MESSAGES = [START, LAST_BODY | {{"body": b"x" * 1000, "more_body": True}}, LAST_BODY]
            {self.READING.strip().replace(chr(10), chr(10) + " " * 8)}
            run(app, received=[{{"type": "http.request", "body": b"a" * 70000}}], {self.OPTIONS})
            """,
        )
        for name, size in ((SIZE_IN, 70_000), (SIZE_OUT, 1002)):
            point = measured.one(name)
            assert (point.count, point.sum, labels(point)) == (1, size, PLAIN)
            assert measured.metrics[name].unit == "By"
            assert [one.span_id.hex() for one in point.exemplars] == [measured.spans[0].span_id]

    def test_one_that_is_not_known_is_not_measured(self, receiver: Receiver) -> None:
        measured = measure(
            receiver,
            f"run(answering(START, {{'type': 'http.response.pathsend', 'path': '/srv/file'}}), {self.OPTIONS})",
        )
        assert set(measured.metrics) == {DURATION, SIZE_IN}


SERVICE = """
from fastapi import FastAPI
import rvh_trace
from rvh_trace import RvhTraceMiddleware

rvh_trace.init_tracing(service_name="shop")
app = FastAPI()
app.add_middleware(RvhTraceMiddleware, opt_in=["http.server.active_requests", "http.response.body.size",
                                               "http.server.response.body.size"])

@app.get("/items/{sku}")
async def item(sku: str) -> dict[str, str]:
    return {"sku": sku}
"""


def test_span_metric_and_exemplar_of_one_real_request_agree_through_the_collector(receiver: Receiver) -> None:
    with TemporaryDirectory(prefix="rvh-trace-") as name:
        directory = Path(name)
        (directory / "service.py").write_text(SERVICE)
        (port,) = free_ports(1)
        with Collector(receiver.http_endpoint, "http", directory=directory) as collector:
            env = child_env(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint("http"), OTEL_METRIC_EXPORT_INTERVAL="200")
            env |= {"OTEL_BSP_SCHEDULE_DELAY": "200", "PYTHONPATH": python_path_with_tests()}
            command: list[str | Path] = [
                sys.executable,
                "-m",
                "uvicorn",
                "service:app",
                "--app-dir",
                directory,
                "--host",
                LOOPBACK,
            ]
            command += ["--port", str(port), "--no-access-log"]
            with Process("service", command, ports=[port], directory=directory, env=env):
                with httpx.Client(trust_env=False) as client:
                    answer = client.get(f"http://{LOOPBACK}:{port}/items/tea")
                assert answer.json() == {"sku": "tea"}
                receiver.wait_for(lambda requests: len(spans(requests)) == 1, ARRIVAL_TIMEOUT_S)
            # Stopped: what it measured has been flushed.
            receiver.wait_for_metrics(
                lambda metrics: (
                    {DURATION, SIZE_OUT} <= {metric.name for metric in metrics}
                    and any(_active(metric) == 0 for metric in metrics)
                ),
                ARRIVAL_TIMEOUT_S,
            )
    (server,) = receiver.spans
    assert (server.name, server.kind) == ("GET /items/{sku}", "server")
    duration_s = (server.span.end_time_unix_nano - server.span.start_time_unix_nano) / 1e9
    durations = [metric.histogram.data_points for metric in receiver.metrics if metric.name == DURATION]
    for (point,) in durations:
        assert (point.count, point.sum) == (1, duration_s)
        assert labels(point) == {
            name: server.attributes[name]
            for name in ("http.request.method", "http.response.status_code", "http.route", "network.protocol.version",
                         "url.scheme")
        }  # fmt: skip
    exemplars = [exemplar for (point,) in durations for exemplar in point.exemplars]
    assert {(one.trace_id.hex(), one.span_id.hex()) for one in exemplars} == {(server.trace_id, server.span_id)}
    assert {one.as_double for one in exemplars} == {duration_s}
    sizes = {metric.histogram.data_points[0].sum for metric in receiver.metrics if metric.name == SIZE_OUT}
    assert sizes == {len(answer.content)}
    assert server.attributes["http.response.body.size"] == len(answer.content)


def _active(metric: Metric) -> int | None:
    """The value of the counter, if the metric is it."""
    return metric.sum.data_points[0].as_int if metric.name == ACTIVE else None
