# pyright: basic, reportMissingImports=false
"""pytracingx with the middleware of `benches.python`."""

from importlib.metadata import version

import pytracingx as ptx

from ..python.peers.pytracingx_by_hand import Middleware
from .contender import Contender


def open_contender(endpoint: str) -> Contender:
    """It does not count what it exports."""
    sink = ptx.TraceSink(endpoint=endpoint, protocol="http/protobuf")
    ptx.init(ptx.Config(service_name="bench", console_output=False, sinks=[sink]))
    return Contender(
        f"pytracingx {version('pytracingx')}", lambda app: app.add_middleware(Middleware), ptx.force_flush, None
    )
