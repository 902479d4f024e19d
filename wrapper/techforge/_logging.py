"""One log line per attempt, under the standard logger `techforge`."""

import logging

logger = logging.getLogger("techforge")
logger.addHandler(logging.NullHandler())


def log_attempt(
    method: str, target: str, result: object, *, attempt: int, seconds: float, request_id: str | None
) -> None:
    """Log an attempt; `target` is without its query, `result` a status or what went wrong."""
    logger.debug(
        "%s %s -> %s (attempt %d, %.3f s, request id %s)",
        method,
        target,
        result,
        attempt,
        seconds,
        request_id or "-",
    )
