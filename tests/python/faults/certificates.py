"""Certificates for loopback, made anew for every run: good ones and each kind of bad one."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """An authority that clients are told to trust, another that they are not, and a client's own identity."""

    directory: Path
    authority: trustme.CA
    stranger: trustme.CA

    @classmethod
    def make(cls, directory: Path) -> "Certificates":
        made = cls(directory, trustme.CA(), trustme.CA())
        made.authority.cert_pem.write_to_path(made.trusted)
        client = made.authority.issue_cert("client.test")
        client.cert_chain_pems[0].write_to_path(made.client)
        client.private_key_pem.write_to_path(made.client_key)
        return made

    @property
    def trusted(self) -> Path:
        return self.directory / "authority.pem"

    @property
    def client(self) -> Path:
        return self.directory / "client.pem"

    @property
    def client_key(self) -> Path:
        return self.directory / "client-key.pem"

    def context(self, kind: str) -> ssl.SSLContext:
        """A server's side: `good`, `expired`, `wrong host`, `unknown authority` or `client required`."""
        now = datetime.now(UTC)
        match kind:
            case "expired":
                issued = self.authority.issue_cert(
                    "127.0.0.1", not_before=now - timedelta(9), not_after=now - timedelta(1)
                )
            case "wrong host":
                issued = self.authority.issue_cert("elsewhere.test")
            case "unknown authority":
                issued = self.stranger.issue_cert("127.0.0.1")
            case _:
                issued = self.authority.issue_cert("127.0.0.1")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2", "http/1.1"])
        issued.configure_cert(context)
        if kind == "client required":
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
