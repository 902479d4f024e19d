"""The Python SDK of the TechForge Innovate talking-video API.

>>> from techforge import TechForge
>>> with TechForge("techforge-mock-key", base_url=mock_url) as client:
...     video = client.jobs.create_and_wait(
...         image_url="https://cdn.example.com/image.png",
...         audio_url="https://cdn.example.com/audio.mp3",
...     )
...     print(client.jobs.download(video, folder).suffix)
.mp4
"""

import sys

from techforge._async.client import AsyncTechForge
from techforge._config import ClientOptions
from techforge._sync.client import TechForge
from techforge._version import __version__
from techforge.errors import (
    APIConnectionError,
    APIError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    DownloadError,
    FailoverError,
    InternalServerError,
    InvalidArgumentError,
    JobError,
    JobFailedError,
    JobOutcomeUnknownError,
    JobsNotRecordedError,
    JobTimeoutError,
    LedgerError,
    LedgerUnavailableError,
    NoLedgerError,
    NotFoundError,
    Outcome,
    PermissionDeniedError,
    RateLimitError,
    TargetExistsError,
    TechForgeError,
    UnprocessableEntityError,
)
from techforge.models import Job, SignedUrl, Video
from techforge.params import JobParams
from techforge.policy.polling import PollSchedule
from techforge.tracking import AsyncTracker, JobState, JobUpdate, Tracker

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIResponseError",
    "APIStatusError",
    "APITimeoutError",
    "AsyncTechForge",
    "AsyncTracker",
    "AuthenticationError",
    "BadRequestError",
    "ClientOptions",
    "ConfigurationError",
    "ConflictError",
    "DownloadError",
    "FailoverError",
    "InternalServerError",
    "InvalidArgumentError",
    "Job",
    "JobError",
    "JobFailedError",
    "JobOutcomeUnknownError",
    "JobParams",
    "JobState",
    "JobTimeoutError",
    "JobUpdate",
    "JobsNotRecordedError",
    "LedgerError",
    "LedgerUnavailableError",
    "NoLedgerError",
    "NotFoundError",
    "Outcome",
    "PermissionDeniedError",
    "PollSchedule",
    "RateLimitError",
    "SignedUrl",
    "TargetExistsError",
    "TechForge",
    "TechForgeError",
    "Tracker",
    "UnprocessableEntityError",
    "Video",
    "__version__",
]

if "IPython" in sys.modules:
    from techforge import notebook as notebook  # so that IPython shows jobs and videos as HTML
