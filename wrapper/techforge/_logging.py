"""One log line per attempt, on the logger `techforge`.

The logger has no handler, so programs that do not configure logging still show its warnings on stderr.
"""

import logging
import re

from techforge._masking import mask

logger = logging.getLogger("techforge")
retry_logger = logger.getChild("retry")
"""Warns when a job is submitted again although a failed attempt may have created one."""

# The API's request id is in our own line, masked.
_ECHO = re.compile(r"""(\(b'(?:location|x-request-id)', b)('(?:[^'\\]|\\.)*'|"[^"]*")""", re.IGNORECASE)


class _MaskHeaders(logging.Filter):
    """httpcore logs response headers at DEBUG. They may hold a signature: in a redirect, or in an echo."""

    def filter(self, record: logging.LogRecord) -> bool:
        if "receive_response_headers" in record.msg:
            record.msg, record.args = mask(_ECHO.sub(r"\1'***'", record.getMessage())), ()
        return True


logging.getLogger("httpcore.http11").addFilter(_MaskHeaders())


def log_attempt(
    method: str, target: str, result: object, *, attempt: int, seconds: float, request_id: str | None
) -> None:
    """Log an attempt. `target` has no query; `result` is a status or an error."""
    logger.debug(
        "%s %s -> %s (attempt %d, %.3f s, request id %s)",
        method,
        target,
        result,
        attempt,
        seconds,
        request_id or "-",
    )
