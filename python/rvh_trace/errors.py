"""The errors that rvh_trace raises, all of them at set-up or when asked to report.

After set-up nothing in the library raises into user code: what goes wrong is counted in `rvh_trace.stats()`.
"""


class RvhTraceError(Exception):
    """Base of every error that rvh_trace raises."""


class ConfigurationError(RvhTraceError, ValueError):
    """A wrong argument at set-up. The message names it and says what would be right."""


class ExportError(RvhTraceError):
    """Spans were lost while `force_flush(check=True)` or `shutdown(check=True)` ran. The message says why."""


class ExportTimeout(RvhTraceError, TimeoutError):  # noqa: N818 - a settled name
    """A flush or shutdown with `check=True` did not finish in its deadline."""


for _error in (RvhTraceError, ConfigurationError, ExportError, ExportTimeout):
    _error.__module__ = "rvh_trace"
