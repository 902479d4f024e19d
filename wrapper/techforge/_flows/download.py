"""Fetching an object: resume what broke off, sign again what expired, and place only what is whole."""

import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from attrs import define

from techforge import _checks
from techforge._config import Settings
from techforge._flow import Close, Flow, Opened, Sleep, block, invoke, read
from techforge._flows.request import LEAST, is_passing, was_attempted
from techforge._flows.storage import open_signed, sign, unreadable
from techforge._flows.wait import check_job, total_size
from techforge._partfile import PartFile
from techforge.errors import APIError, NotFoundError, status_error
from techforge.models import Job, SignedUrl, Video

DEFAULT_TIMEOUT = 3600.0
OnProgress = Callable[[int, int | None], Awaitable[None] | None]

_EXPIRED = frozenset({401, 403, 410})
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
    """Fetch an object into a file; `Storage.download` says what the arguments mean."""
    _checks.storage_path("path", path)
    deadline = settings.now() + _checks.seconds("timeout", timeout)
    part = PartFile(path, to, overwrite)
    return _download(part, _Fetch(part, settings, on_progress, deadline))


def download_video(
    of: Job | Video,
    to: str | os.PathLike[str],
    settings: Settings,
    *,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    timeout: float = DEFAULT_TIMEOUT,
) -> Flow[Path]:
    """Fetch the video of a job; a job's video that is not in storage may still come."""
    path = of.path if isinstance(of, Video) else check_job(of).output_path
    fetching = download(path, to, settings, overwrite=overwrite, on_progress=on_progress, timeout=timeout)
    return fetching if isinstance(of, Video) else _of_job(fetching, of)


def _of_job(fetching: Flow[Path], job: Job) -> Flow[Path]:
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
    """One download, and where it stands."""

    part: PartFile
    settings: Settings
    on_progress: OnProgress | None
    deadline: float
    signed: SignedUrl | None = None
    signed_again: bool = False
    failures: int = 0
    failure: APIError | None = None
    """The last failure since bytes arrived; it is reported if the time runs out."""
    furthest: int = 0

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
        """Fetch what is missing; False means that it is to be tried again."""
        part = self.part
        resume = part.size > 0 and part.etag is not None
        headers = {"range": f"bytes={part.size}-", "if-range": part.etag or ""} if resume else {}
        self._timeout()
        answer = yield from open_signed(signed, headers, self.settings, self.deadline)
        status = answer.status_code
        if status in _EXPIRED and not self.signed_again:
            # Expired, most likely. A fresh URL that is refused too is refused for another reason.
            self.signed, self.signed_again = None, True
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
                retry_after=answer.retry_after,
            )
        if not (yield from self._begin(answer)):
            return False
        yield from self._receive()
        if part.total is not None and part.size != part.total:
            raise unreadable(f"{part.size} of {part.total} bytes arrived", part.path)
        return True

    def _begin(self, answer: Opened) -> Flow[bool]:
        """Get ready for the bytes to come; False means that they do not fit to what is there."""
        part = self.part
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise unreadable("storage sent it compressed, which was not asked for", part.path)
        etag = answer.headers.get("etag")
        # RFC 9110, section 13.1.5: a weak ETag does not say that the bytes are the same.
        strong = etag if etag and etag.isascii() and not etag.startswith("W/") else None
        if answer.status_code == 200:
            total = total_size(answer)
            if total is None and "chunked" not in answer.headers.get("transfer-encoding", ""):
                raise part.failed(
                    "storage does not say where it ends, so nobody could tell whether it is whole"
                )
            yield from block(part.restart, strong, total)
            return True
        match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        total = total_size(answer)
        if match is None or int(match[1]) != part.size or strong != part.etag or total != part.total:
            yield from block(part.restart, None, None)
            return False
        return True

    def _receive(self) -> Flow[None]:
        part = self.part
        while chunk := (yield from read(self._timeout())):
            yield from block(part.write, chunk)
            if part.size > self.furthest:
                # Only what is new forgives a failure: a server may send the same beginning for ever.
                self.furthest, self.failures, self.signed_again = part.size, 0, False
                self.failure = None
            if self.on_progress is not None:
                timeout = self._timeout()
                try:
                    yield from invoke(self.on_progress, part.size, part.total, timeout=timeout)
                except TimeoutError:
                    self._timeout()  # at the deadline, it says what has arrived
                    raise

    def _pause(self, failure: APIError | None) -> Flow[None]:
        self.failures += 1
        retry = self.settings.retry
        if failure is None:
            delay: float | None = 0.0
            if self.failures > retry.max_retries + 1:
                delay = None
        elif not is_passing(failure):
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
        if delay is None or self.settings.now() + delay + LEAST > self.deadline:
            problem = failure or "storage keeps answering with something else"
            raise self.part.failed(
                f"gave up after {self.failures} failures in a row: {problem}", failure
            ) from failure
        yield Sleep(delay)

    def _timeout(self) -> float:
        remaining = self.deadline - self.settings.now()
        if remaining <= 0:
            last = f" (last failure: {self.failure})" if self.failure else ""
            raise self.part.failed(
                f"the deadline passed{last}; try again to go on from there", self.failure
            ) from self.failure
        return min(self.settings.timeout, remaining)
