"""The application alone: what all others are compared to."""

from importlib.metadata import version

from .contender import Contender

VERSIONS = ", ".join(f"{package} {version(package)}" for package in ("uvicorn", "uvloop", "httptools", "starlette"))


def open_contender(endpoint: str) -> Contender:
    """Adds nothing, exports nothing."""
    return Contender(VERSIONS, lambda app: None, lambda: None, lambda: 0)
