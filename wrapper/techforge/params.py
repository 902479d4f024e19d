"""The arguments of `jobs.create`: the fields of the API's contract, with their types."""

from collections.abc import Mapping, Sequence
from typing import Required, TypedDict
from uuid import UUID


class JobParams(TypedDict, total=False):
    """The arguments of `jobs.create`. Omitted optional fields are not sent: the API's default applies.

    >>> params: JobParams = {"image_url": "https://cdn.example.com/image.png",
    ...                      "audio_url": "https://cdn.example.com/audio.mp3", "output_size": 400}
    >>> client.jobs.create(**params).status
    'queued'
    """

    image_url: Required[str]
    """URL of the source image. The API must be able to fetch it: paths and private hosts are refused."""
    audio_url: Required[str]
    """URL of the narration audio. The API must be able to fetch it: paths and private hosts are refused."""
    project_id: str | UUID | None
    """Project that the job belongs to; a new UUID by default."""
    job_type: str
    """Kind of job; `ai_talking_video` by default."""
    is_clone_required: bool | None
    """Run a clone pass before rendering."""
    language: str | None
    """Language code for lip sync, e.g. `en`."""
    version: int | None
    """Model version: 4, 5 or 6."""
    output_size: int | None
    """Edge length of the output, in pixels."""
    crop: bool | None
    """Crop the image before rendering."""
    dynamic_scale: float | None
    """Scale factor during rendering."""
    iteration_count: int | None
    """Number of refinement passes."""
    expand_ratio: float | None
    """Ratio by which the canvas is expanded."""
    values: Sequence[str] | None
    """Additional tuning parameters."""
    extra: Mapping[str, object] | None
    """Fields that this version of the SDK does not know. They are sent unchanged."""
