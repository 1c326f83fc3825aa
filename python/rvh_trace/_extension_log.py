"""Log records of other extension modules, on their way to `logging`. Called by the native module, with the GIL."""

from __future__ import annotations

import logging

_LEVELS = (5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
"""Of every four severity numbers (OpenTelemetry logs data model), from TRACE on, which is below DEBUG."""


def log(target: str, severity: int, message: str, trace_id: str, span_id: str) -> None:
    """Logs a record with the logger that is called like its target, with `::` as `.`.

    Args:
        target: The module path of Rust's that it comes from.
        severity: A `SeverityNumber`, from 1 to 24.
        message: As it is: nothing in it is replaced.
        trace_id: Of the span that it was written in, as an attribute of the record; empty for none, then there is no
            attribute.
        span_id: Likewise.
    """
    logger = logging.getLogger(target.replace("::", "."))
    level = _LEVELS[min(max(severity - 1, 0) // 4, 5)]
    if logger.isEnabledFor(level):
        logger.log(level, message, extra={"trace_id": trace_id, "span_id": span_id} if trace_id else None)
