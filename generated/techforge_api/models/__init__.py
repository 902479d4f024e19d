"""Contains all the data models used in inputs/outputs"""

from .error import Error
from .job_accepted import JobAccepted
from .job_request import JobRequest
from .job_status import JobStatus
from .model_version import ModelVersion
from .signed_url import SignedUrl

__all__ = (
    "Error",
    "JobAccepted",
    "JobRequest",
    "JobStatus",
    "ModelVersion",
    "SignedUrl",
)
