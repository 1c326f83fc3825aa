"""`examples/django` under uvicorn, to a real OTLP receiver: its spans, decoded with the official definitions."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from process import LOOPBACK, Process, child_env, free_ports
from receiver import ReceivedSpan, Receiver, attributes

EXAMPLE = Path(__file__).parents[2] / "examples" / "django"

ARTICLE = ["GET /articles/<slug:slug>/", "compose page", "count_comments", "find_related"]
ARCHIVE = ["GET /archive/<year>/", "read archive"]
EXPORT = ["GET /export/", *["export article"] * 3]
DRAFT, NOTHING = ["GET /drafts/<slug:slug>/"], ["GET"]


@dataclass(frozen=True)
class Run:
    """What came of one run of the site."""

    received: list[ReceivedSpan]
    statuses: list[int]
    exported: str

    def one(self, name: str) -> ReceivedSpan:
        (found,) = (span for span in self.received if span.name == name)
        return found

    def children(self, parent: ReceivedSpan) -> list[str]:
        return sorted(span.name for span in self.received if span.parent_id == parent.span_id)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    (port,) = free_ports(1)
    options = ["--app-dir", EXAMPLE, "--host", LOOPBACK, "--port", str(port), "--lifespan", "on", "--no-access-log"]
    with Receiver() as receiver:
        # Nothing is sent before the flush at the end: that one must bring everything.
        env = child_env(
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.http_endpoint,
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_BSP_SCHEDULE_DELAY="600000",
            RVH_TRACE_STRICT="1",
        )
        command = [sys.executable, "-m", "uvicorn", "asgi:application", *options]
        with (
            Process("newsroom", command, ports=[port], directory=tmp_path_factory.mktemp("django"), env=env) as site,
            httpx.Client(base_url=f"http://{LOOPBACK}:{port}", trust_env=False) as client,
        ):
            paths = ["/articles/tea/", "/archive/2020/", "/export/", "/drafts/kettles/", "/nothing"]
            answers = [client.get(path) for path in paths]
        log = site.log.read_text()
        assert "Traceback" not in log, log
        assert "rvh_trace:" not in log, log
        yield Run(receiver.spans, [answer.status_code for answer in answers], answers[2].text)


def test_the_site_answers(run: Run) -> None:
    assert run.statuses == [200, 200, 200, 500, 404]
    assert run.exported == "2019,On tea\n2020,Mugs compared\n2020,A short history of teapots\n"


def test_every_span_arrived_once_and_no_other(run: Run) -> None:
    expected = [*ARTICLE, *ARCHIVE, *EXPORT, *DRAFT, *NOTHING]
    assert sorted(span.name for span in run.received) == sorted(expected)
    assert len({span.trace_id for span in run.received}) == len(run.statuses)
    assert {span.service for span in run.received} == {"newsroom"}


def test_each_request_is_one_server_span_with_its_route(run: Run) -> None:
    servers = [span for span in run.received if span.kind == "server"]
    assert {(span.name, span.parent_id) for span in servers} == {
        (name, "") for name in (ARTICLE[0], ARCHIVE[0], EXPORT[0], DRAFT[0], NOTHING[0])
    }
    for span in servers:
        assert span.attributes.get("http.route") == (span.name.partition(" ")[2] or None)


def test_views_tasks_threads_and_streams_are_inside(run: Run) -> None:
    assert run.children(run.one(ARTICLE[0])) == ["compose page"]
    assert run.children(run.one("compose page")) == ["count_comments", "find_related"]
    assert run.children(run.one(ARCHIVE[0])) == ["read archive"]
    export = run.one(EXPORT[0])
    assert run.children(export) == ["export article"] * 3
    last = max(span.span.end_time_unix_nano for span in run.received if span.name == "export article")
    assert last < export.span.end_time_unix_nano


def test_the_failed_request_has_its_exception(run: Run) -> None:
    draft = run.one(DRAFT[0])
    assert draft.span.status == Status(code=Status.STATUS_CODE_ERROR)
    assert (draft.attributes["http.response.status_code"], draft.attributes["error.type"]) == (500, "500")
    (event,) = draft.span.events
    sent = attributes(event.attributes)
    assert (event.name, sent["exception.type"]) == ("exception", "views.EmbargoedError")
    assert sent["exception.message"] == "kettles is not out yet"


def test_what_matches_nothing_is_no_error(run: Run) -> None:
    nothing = run.one("GET")
    assert (nothing.attributes["http.response.status_code"], nothing.span.status) == (404, Status())
