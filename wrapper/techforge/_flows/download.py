"""Download an object: resume after a failure, renew expired URLs, and create only complete files."""

import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from attrs import define

from techforge import _checks
from techforge._config import Settings
from techforge._flow import Close, Flow, Opened, Sleep, block, invoke, read
from techforge._flows.request import MIN_ATTEMPT_SECONDS, is_temporary, was_attempted
from techforge._flows.storage import open_signed, sign, unreadable_response
from techforge._flows.wait import check_job, total_size
from techforge._partfile import PartFile
from techforge.errors import APIError, NotFoundError, status_error
from techforge.models import Job, SignedUrl, Video

DEFAULT_TIMEOUT = 3600.0
OnProgress = Callable[[int, int | None], Awaitable[None] | None]

_MAYBE_EXPIRED = frozenset({401, 403, 410})
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def download(
    path: str,
    to: str | os.PathLike[str],
    settings: Settings,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Flow[Path]:
    """Download an object into a file. `Storage.download` documents the arguments."""
    _checks.storage_path("path", path)
    deadline = settings.now() + _checks.seconds("timeout", timeout)
    part = PartFile(path, to, overwrite)
    return _download(part, _Fetch(part, settings, on_progress, deadline))


def download_video(
    job: Job | Video,
    to: str | os.PathLike[str],
    settings: Settings,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Flow[Path]:
    """Download the video of a job. A `NotFoundError` gets the job, since its video may appear later."""
    path = job.path if isinstance(job, Video) else check_job(job).output_path
    fetching = download(path, to, settings, overwrite=overwrite, on_progress=on_progress, timeout=timeout)
    return fetching if isinstance(job, Video) else _with_job(fetching, job)


def _with_job(fetching: Flow[Path], job: Job) -> Flow[Path]:
    try:
        return (yield from fetching)
    except NotFoundError as error:
        error.job = job
        raise


def _download(part: PartFile, fetch: "_Fetch") -> Flow[Path]:
    try:
        yield from block(part.open)
        yield from fetch.run()
        return (yield from block(part.finish))
    finally:
        part.close()


@define
class _Fetch:
    """The state of one download."""

    part: PartFile
    settings: Settings
    on_progress: OnProgress | None
    deadline: float
    signed: SignedUrl | None = None
    was_renewed: bool = False
    failures: int = 0
    failure: APIError | None = None
    """The last failure since new bytes arrived. It is reported at the deadline."""
    max_size: int = 0

    def run(self) -> Flow[None]:
        while True:
            try:
                if self.signed is None:
                    self.signed = yield from sign(self.part.path, self.settings, self.deadline)
                if (yield from self._attempt(self.signed)):
                    return
                failure: APIError | None = None
            except APIError as error:
                failure = error if was_attempted(error) else self.failure or error
            yield Close()
            self.failure = failure or self.failure
            yield from self._pause(failure)

    def _attempt(self, signed: SignedUrl) -> Flow[bool]:
        """Download the missing bytes. Return False if another attempt is needed."""
        part = self.part
        resume = part.size > 0 and part.etag is not None
        headers = {"range": f"bytes={part.size}-", "if-range": part.etag or ""} if resume else {}
        self._timeout()
        response = yield from open_signed(signed, headers, self.settings, self.deadline)
        status = response.status_code
        if status in _MAYBE_EXPIRED and not self.was_renewed:
            # The URL has probably expired. If storage refuses a new URL too, there is another reason.
            self.signed, self.was_renewed = None, True
            return False
        if status == 416 and resume:
            yield from block(part.restart, None, None)
            return False
        if status not in {200, 206}:
            raise status_error(
                status,
                "storage refused the signed URL",
                method="GET",
                path=part.path,
                retry_after=response.retry_after,
            )
        if not (yield from self._prepare(response)):
            return False
        yield from self._receive()
        if part.total is not None and part.size != part.total:
            raise unreadable_response(
                f"the response ended after {part.size} of {part.total} bytes", part.path
            )
        return True

    def _prepare(self, response: Opened) -> Flow[bool]:
        """Prepare the part file for this response. Return False if the two do not fit together."""
        part = self.part
        if response.headers.get("content-encoding", "identity") != "identity":
            raise unreadable_response(
                "storage sent a compressed response, which was not requested", part.path
            )
        etag = response.headers.get("etag")
        # A weak ETag does not guarantee identical bytes (RFC 9110, section 13.1.5).
        strong = etag if etag and etag.isascii() and not etag.startswith("W/") else None
        if response.status_code == 200:
            total = total_size(response)
            if total is None and "chunked" not in response.headers.get("transfer-encoding", ""):
                raise part.error(
                    "storage sent no length, so a complete download cannot be told from a broken one"
                )
            yield from block(part.restart, strong, total)
            return True
        match = _RANGE.fullmatch(response.headers.get("content-range", ""))
        total = total_size(response)
        if match is None or int(match[1]) != part.size or strong != part.etag or total != part.total:
            yield from block(part.restart, None, None)
            return False
        return True

    def _receive(self) -> Flow[None]:
        part = self.part
        while chunk := (yield from read(self._timeout())):
            yield from block(part.write, chunk)
            if part.size > self.max_size:
                # Only new bytes reset the failures: a server may send the same beginning forever.
                self.max_size, self.failures, self.was_renewed = part.size, 0, False
                self.failure = None
            if self.on_progress is not None:
                timeout = self._timeout()
                try:
                    yield from invoke(self.on_progress, part.size, part.total, timeout=timeout)
                except TimeoutError:
                    self._timeout()  # at the deadline, this error says how much was received
                    raise

    def _pause(self, failure: APIError | None) -> Flow[None]:
        self.failures += 1
        retry = self.settings.retry
        if failure is None:
            delay: float | None = 0.0
            if self.failures > retry.max_retries + 1:
                delay = None
        elif not is_temporary(failure):
            raise failure
        else:
            delay = retry.delay(
                failure.outcome,
                repeatable=True,
                retries=self.failures - 1,
                elapsed=0.0,
                retry_after=failure.retry_after,
                jitter=self.settings.random(),
            )
        if delay is None or self.settings.now() + delay + MIN_ATTEMPT_SECONDS > self.deadline:
            problem = failure or "storage keeps sending responses that do not fit"
            raise self.part.error(
                f"gave up after {self.failures} failures in a row: {problem}", failure
            ) from failure
        yield Sleep(delay)

    def _timeout(self) -> float:
        remaining = self.deadline - self.settings.now()
        if remaining <= 0:
            last = f" (last failure: {self.failure})" if self.failure else ""
            raise self.part.error(
                f"the deadline passed{last}; download again to resume", self.failure
            ) from self.failure
        return min(self.settings.timeout, remaining)
