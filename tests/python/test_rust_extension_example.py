"""`examples/rust_extension`, built by maturin, under uvicorn, through a collector: one trace through both languages."""

import faulthandler
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from collector import Collector
from process import LOOPBACK, Process, child_env, free_ports
from receiver import ReceivedSpan, Receiver, spans

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "rust_extension"
BUILD_TIMEOUT_S = 1200
ARRIVAL_TIMEOUT_S = 20.0

TREE = {
    "GET /quotes/{sku}": None,
    "price item": "GET /quotes/{sku}",
    "pricing.quote": "price item",
    "work_out": "pricing.quote",
    "fetch_rate": "work_out",
    "GET": "fetch_rate",
    "GET /rates/{currency}": "GET",
    "simulate_demand": "work_out",
    "ask_for_discount": "work_out",
    "look up discount": "ask_for_discount",
}
SERVICES = {"GET /rates/{currency}": "rates"}
KINDS = {"GET /quotes/{sku}": "server", "GET": "client", "GET /rates/{currency}": "server"}


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the module `pricing` is: the wheel that maturin makes of it, unpacked."""
    # A first build takes longer than a test may, and has a limit of its own.
    faulthandler.cancel_dump_traceback_later()
    directory = tmp_path_factory.mktemp("pricing")
    shutil.copyfile(ROOT / "Cargo.lock", EXAMPLE / "Cargo.lock")
    options = ["--profile", "dev", "--interpreter", sys.executable, "--target-dir", ROOT / "target" / "extensions"]
    built = subprocess.run(
        [Path(sys.executable).with_name("maturin"), "build", *options, "--out", directory],
        cwd=EXAMPLE,
        capture_output=True,
        check=False,
        text=True,
        timeout=BUILD_TIMEOUT_S,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


@dataclass(frozen=True)
class Run:
    """What came of one run of the services."""

    received: list[ReceivedSpan]
    answers: list[httpx.Response]
    logs: str

    def trace(self, path: str) -> list[ReceivedSpan]:
        """The spans of the request for this path."""
        (root,) = (span for span in self.received if span.attributes.get("url.path") == path)
        return [span for span in self.received if span.trace_id == root.trace_id]


@pytest.fixture(scope="module")
def run(extension: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    directory = tmp_path_factory.mktemp("services")
    shop_port, rates_port = free_ports(2)
    options = ["--app-dir", EXAMPLE, "--host", LOOPBACK, "--lifespan", "on", "--no-access-log"]

    def service(name: str, port: int, env: dict[str, str]) -> Process:
        command = [sys.executable, "-m", "uvicorn", f"{name}:app", *options, "--port", str(port)]
        return Process(name, command, ports=[port], directory=directory, env=env)

    with Receiver() as receiver, Collector(receiver.http_endpoint, "http", directory=directory) as collector:
        env = child_env(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint("http"),
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_BSP_SCHEDULE_DELAY="200",
            RVH_TRACE_STRICT="1",
            RATES_URL=f"http://{LOOPBACK}:{rates_port}",
            PYTHONPATH=os.pathsep.join(filter(None, [str(extension), os.environ.get("PYTHONPATH")])),
        )
        with (
            service("rates", rates_port, env) as rates,
            service("app", shop_port, env) as shop,
            httpx.Client(base_url=f"http://{LOOPBACK}:{shop_port}", trust_env=False, timeout=20.0) as client,
        ):
            answers = [client.get("/quotes/tea?currency=USD"), client.get("/quotes/mug?currency=XXX")]
            receiver.wait_for(lambda requests: len(spans(requests)) >= 2 * len(TREE), ARRIVAL_TIMEOUT_S)
        yield Run(receiver.spans, answers, shop.log.read_text() + rates.log.read_text())


def test_one_request_is_one_trace_through_both_languages(run: Run) -> None:
    answer = run.answers[0]
    assert answer.status_code == 200
    assert answer.json()["currency"] == "USD"
    assert answer.json()["cents"] > 0
    trace = run.trace("/quotes/tea")
    by_id = {span.span_id: span for span in trace}
    parents = {span.name: by_id[span.parent_id].name if span.parent_id else None for span in trace}
    assert parents == TREE
    assert len(trace) == len(TREE)
    for span in trace:
        assert span.service == SERVICES.get(span.name, "shop")
        assert span.kind == KINDS.get(span.name, "internal")


def test_a_span_lies_within_its_parent(run: Run) -> None:
    trace = run.trace("/quotes/tea")
    by_id = {span.span_id: span for span in trace}
    for span in trace:
        if span.parent_id and (parent := by_id[span.parent_id]).service == span.service:
            assert parent.span.start_time_unix_nano <= span.span.start_time_unix_nano, span.name
            assert span.span.end_time_unix_nano <= parent.span.end_time_unix_nano, span.name


def test_spans_of_rust_have_their_fields(run: Run) -> None:
    named = {span.name: span for span in run.trace("/quotes/tea")}
    call = named["GET"].attributes
    assert call["http.request.method"] == "GET"
    assert call["http.response.status_code"] == 200
    assert str(call["url.full"]).endswith("/rates/USD")
    assert named["pricing.quote"].attributes["shop.sku"] == "tea"
    assert named["work_out"].attributes["shop.currency"] == "USD"
    (event,) = named["work_out"].span.events
    assert event.name == "discount granted"
    assert named["look up discount"].attributes["shop.discount.percent"] in {5, 10}


def test_a_failure_in_rust_is_on_every_span_that_it_left(run: Run) -> None:
    assert run.answers[1].status_code == 500
    named = {span.name: span for span in run.trace("/quotes/mug")}
    for name in ("pricing.quote", "price item", "GET /quotes/{sku}"):
        assert named[name].attributes["error.type"] == "RuntimeError", name
        assert "404" in named[name].span.status.message
    assert named["GET"].attributes["http.response.status_code"] == 404


def test_rust_says_nothing_on_standard_error(run: Run) -> None:
    assert "panicked" not in run.logs
    assert "rvh_trace:" not in run.logs
