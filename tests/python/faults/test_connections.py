"""Connections that cannot be made or do not last: refused, resolved to nothing, swallowed, closed while idle."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from .application import Outcome, application, run_application
from .certificates import Certificates
from .exchange import Exchange, Fault
from .grpc2 import GrpcExchange
from .scenario import PROTOCOLS, SPANS
from .server import FaultServer

BRIEF = {"timeout_ms": 200, "export_timeout_ms": 700}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


def assert_all_failed(outcome: Outcome, says: str = "") -> None:
    stats = outcome.stats
    assert (stats["exported"], stats["dropped"]["failed"], stats["pending"]) == (0, SPANS, 0), stats
    assert outcome.flushed == [False]
    assert says in stats["last_error"]


def assert_all_taken(outcome: Outcome, server: FaultServer, spans: int = SPANS) -> None:
    stats = outcome.stats
    assert (stats["exported"], stats["ended"]) == (spans, spans), stats
    assert Counter(server.ledger.taken) == Counter(range(spans))
    assert all(outcome.flushed)


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose backlog is full: the system answers no connection attempt any more."""
    with ExitStack() as held:
        listening = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            sock = held.enter_context(socket.socket())
            sock.settimeout(0.2)
            try:
                sock.connect(listening.getsockname())
            except TimeoutError:
                break
        yield listening.getsockname()[1]


def test_refused(protocol: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        outcome = run_application(f"http://127.0.0.1:{bound.getsockname()[1]}", protocol, rounds=[SPANS], **BRIEF)
    assert_all_failed(outcome, "connection refused")


def test_refused_and_then_back(protocol: str) -> None:
    with (
        FaultServer(protocol, listens=False) as server,
        application(server.endpoint, protocol, schedule_delay_ms=1) as running,
    ):
        running.make(SPANS)
        running.wait_until(lambda stats: stats["retries"] >= 2)
        server.listen()
        assert running.flush().result is True
        assert_all_taken(running.end(), server)


def test_swallowed(full_port: int, protocol: str) -> None:
    outcome = run_application(f"http://127.0.0.1:{full_port}", protocol, rounds=[SPANS], **BRIEF)
    assert_all_failed(outcome, "200 ms")


def test_a_name_that_does_not_resolve(protocol: str) -> None:
    # A label of more than 63 characters is refused without a question to any server (RFC 1035, section 2.3.4).
    outcome = run_application(f"http://{'x' * 64}.test:4318", protocol, rounds=[SPANS], **BRIEF)
    assert_all_failed(outcome, "cannot be resolved")


def test_closed_while_it_was_idle(protocol: str) -> None:
    with FaultServer(protocol) as server, application(server.endpoint, protocol) as running:
        for number in range(1, 4):
            running.make(SPANS)
            assert running.flush().result is True
            assert server.ledger.connections == number
            server.close_connections()
        assert_all_taken(running.end(), server, 3 * SPANS)


def test_one_connection_is_used_again(protocol: str) -> None:
    with FaultServer(protocol) as server:
        outcome = run_application(server.endpoint, protocol, rounds=[SPANS] * 5)
        assert_all_taken(outcome, server, 5 * SPANS)
        assert (server.ledger.connections, server.ledger.requests) == (1, 5)


class TestTls:
    @pytest.mark.parametrize(
        ("kind", "says"),
        [
            ("expired", "expired"),
            ("wrong host", "another host"),
            ("unknown authority", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
            ("client required", "no"),
        ],
    )
    def test_a_certificate_that_is_wrong(self, certificates: Certificates, protocol: str, kind: str, says: str) -> None:
        with FaultServer(protocol, tls=certificates.context(kind)) as server:
            outcome = run_application(
                server.endpoint, protocol, rounds=[SPANS], certificate=str(certificates.trusted), **BRIEF
            )
            assert_all_failed(outcome, says)
            assert server.ledger.requests == 0

    @pytest.mark.parametrize("kind", ["good", "client required"])
    def test_a_certificate_that_is_right(self, certificates: Certificates, protocol: str, kind: str) -> None:
        identity = {"client_certificate": str(certificates.client), "client_key": str(certificates.client_key)}
        with FaultServer(protocol, tls=certificates.context(kind)) as server:
            outcome = run_application(
                server.endpoint,
                protocol,
                rounds=[SPANS],
                certificate=str(certificates.trusted),
                **(identity if kind == "client required" else {}),
            )
            assert_all_taken(outcome, server)

    def test_a_handshake_that_hangs_once(self, certificates: Certificates, protocol: str) -> None:
        faults = [Fault("accept", Exchange.hang)]
        with FaultServer(protocol, faults, tls=certificates.context("good")) as server:
            outcome = run_application(
                server.endpoint, protocol, rounds=[SPANS], certificate=str(certificates.trusted), timeout_ms=300
            )
            assert_all_taken(outcome, server)

    def test_a_server_that_speaks_no_tls(self, certificates: Certificates, protocol: str) -> None:
        with FaultServer(protocol) as server:
            endpoint = server.endpoint.replace("http:", "https:")
            outcome = run_application(
                endpoint, protocol, rounds=[SPANS], certificate=str(certificates.trusted), **BRIEF
            )
            assert_all_failed(outcome)


class TestHttp2:
    """What only gRPC's transport can do."""

    @pytest.mark.parametrize("error_code", [0x7, 0xB, 0x2, 0x8], ids=["refused", "calm", "internal", "cancel"])
    def test_a_stream_that_is_reset_once(self, error_code: int) -> None:
        def reset(exchange: Exchange) -> None:
            assert isinstance(exchange, GrpcExchange)
            exchange.connection.reset_stream(exchange.stream, error_code)
            exchange.flush()

        with FaultServer("grpc", [Fault("request", reset)]) as server:
            assert_all_taken(run_application(server.endpoint, "grpc", rounds=[SPANS]), server)

    def test_go_away_once(self) -> None:
        def go_away(exchange: Exchange) -> None:
            assert isinstance(exchange, GrpcExchange)
            exchange.connection.close_connection(last_stream_id=0)
            exchange.flush()
            exchange.close()

        with FaultServer("grpc", [Fault("request", go_away)]) as server:
            assert_all_taken(run_application(server.endpoint, "grpc", rounds=[SPANS]), server)

    @pytest.mark.parametrize(
        ("status", "is_retried"), [(503, True), (429, True), (502, True), (504, True), (401, False)]
    )
    def test_a_proxy_that_answers_in_http(self, status: int, is_retried: bool) -> None:
        def answer(exchange: Exchange) -> None:
            assert isinstance(exchange, GrpcExchange)
            exchange.send_headers([(":status", str(status)), ("content-type", "text/html")], end_stream=True)

        with FaultServer("grpc", [Fault("request", answer)]) as server:
            outcome = run_application(server.endpoint, "grpc", rounds=[SPANS])
            if is_retried:
                assert_all_taken(outcome, server)
            else:
                assert outcome.stats["dropped"]["rejected"] == SPANS

    def test_an_answer_without_a_status_is_sent_again(self) -> None:
        def answer(exchange: Exchange) -> None:
            assert isinstance(exchange, GrpcExchange)
            exchange.send_headers([(":status", "200"), ("content-type", "application/grpc")], end_stream=True)

        with FaultServer("grpc", [Fault("request", answer)]) as server:
            outcome = run_application(server.endpoint, "grpc", rounds=[SPANS])
            assert_all_taken(outcome, server)
