"""One log line per attempt, under the standard logger `techforge`.

The logger has no handler of its own, so a program that does not configure logging still sees warnings on
stderr.
"""

import logging
import re

logger = logging.getLogger("techforge")
retry_logger = logger.getChild("retry")
"""A submission that is sent again although its failed attempt may have created a job."""

_LOCATION = re.compile(r"(\(b'location', b')[^']*'", re.IGNORECASE)


class _MaskRedirects(logging.Filter):
    """httpcore prints the headers of an answer at DEBUG; a redirect of storage has a signature there."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "receive_response_headers" in record.msg:
            record.msg, record.args = _LOCATION.sub(r"\1***'", record.getMessage()), ()
        return True


logging.getLogger("httpcore.http11").addFilter(_MaskRedirects())


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
