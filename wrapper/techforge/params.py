"""What `jobs.create` takes: the fields of the contract, with their types."""

from collections.abc import Mapping, Sequence
from typing import Required, TypedDict
from uuid import UUID


class JobParams(TypedDict, total=False):
    """What `jobs.create` takes. What is not given is not sent, and the API decides.

    >>> params: JobParams = {"image_url": "https://cdn.example.com/image.png",
    ...                      "audio_url": "https://cdn.example.com/audio.mp3", "output_size": 400}
    >>> client.jobs.create(**params).status
    'queued'
    """

    image_url: Required[str]
    """Publicly reachable http(s) URL of the source image. A path, or a private host, is refused."""
    audio_url: Required[str]
    """Publicly reachable http(s) URL of the narration audio. A path, or a private host, is refused."""
    project_id: str | UUID | None
    """Project that the job belongs to; a fresh UUID by default."""
    job_type: str
    """Kind of job; `ai_talking_video` by default."""
    is_clone_required: bool | None
    """Run a clone pass before rendering."""
    language: str | None
    """Language code for lip sync, e.g. `en`."""
    version: int | None
    """Model version: 4, 5 or 6."""
    output_size: int | None
    """Edge of the output, in pixels."""
    crop: bool | None
    """Crop the image before rendering."""
    dynamic_scale: float | None
    """Scale factor while rendering."""
    iteration_count: int | None
    """Refinement passes."""
    expand_ratio: float | None
    """How far the canvas is expanded."""
    values: Sequence[str] | None
    """Further tuning parameters."""
    extra: Mapping[str, object] | None
    """Fields that this version of the SDK does not know, sent as they are."""
