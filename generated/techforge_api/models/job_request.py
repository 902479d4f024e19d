from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast
from uuid import UUID

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.model_version import ModelVersion
from ..types import UNSET, Unset

T = TypeVar("T", bound="JobRequest")


@_attrs_define
class JobRequest:
    """What to render, and how."""

    image_url: str
    """ Publicly reachable URL of the source image. """
    audio_url: str
    """ Publicly reachable URL of the narration audio. """
    job_type: str
    """ Kind of job, e.g. `ai_talking_video`. """
    project_id: UUID
    """ Project that the job belongs to. """
    is_clone_required: bool | Unset = UNSET
    """ Run a clone pass before rendering. """
    language: str | Unset = UNSET
    """ Language code for lip sync. """
    version: ModelVersion | Unset = UNSET
    """ Model version. """
    output_size: int | Unset = UNSET
    """ Edge of the output, in pixels. """
    crop: bool | Unset = UNSET
    """ Crop the image before rendering. """
    dynamic_scale: float | Unset = UNSET
    """ Scale factor while rendering. """
    iteration_count: int | Unset = UNSET
    """ Refinement passes. """
    expand_ratio: float | Unset = UNSET
    """ How far the canvas is expanded. """
    values: list[str] | Unset = UNSET
    """ Further tuning parameters. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        image_url = self.image_url

        audio_url = self.audio_url

        job_type = self.job_type

        project_id = str(self.project_id)

        is_clone_required = self.is_clone_required

        language = self.language

        version: int | Unset = UNSET
        if not isinstance(self.version, Unset):
            version = self.version.value

        output_size = self.output_size

        crop = self.crop

        dynamic_scale = self.dynamic_scale

        iteration_count = self.iteration_count

        expand_ratio = self.expand_ratio

        values: list[str] | Unset = UNSET
        if not isinstance(self.values, Unset):
            values = self.values

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "image_url": image_url,
                "audio_url": audio_url,
                "job_type": job_type,
                "project_id": project_id,
            }
        )
        if is_clone_required is not UNSET:
            field_dict["is_clone_required"] = is_clone_required
        if language is not UNSET:
            field_dict["language"] = language
        if version is not UNSET:
            field_dict["version"] = version
        if output_size is not UNSET:
            field_dict["output_size"] = output_size
        if crop is not UNSET:
            field_dict["crop"] = crop
        if dynamic_scale is not UNSET:
            field_dict["dynamic_scale"] = dynamic_scale
        if iteration_count is not UNSET:
            field_dict["iteration_count"] = iteration_count
        if expand_ratio is not UNSET:
            field_dict["expand_ratio"] = expand_ratio
        if values is not UNSET:
            field_dict["values"] = values

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)
        image_url = d.pop("image_url")

        audio_url = d.pop("audio_url")

        job_type = d.pop("job_type")

        project_id = UUID(d.pop("project_id"))

        is_clone_required = d.pop("is_clone_required", UNSET)

        language = d.pop("language", UNSET)

        _version = d.pop("version", UNSET)
        version: ModelVersion | Unset
        if isinstance(_version, Unset):
            version = UNSET
        else:
            version = ModelVersion(_version)

        output_size = d.pop("output_size", UNSET)

        crop = d.pop("crop", UNSET)

        dynamic_scale = d.pop("dynamic_scale", UNSET)

        iteration_count = d.pop("iteration_count", UNSET)

        expand_ratio = d.pop("expand_ratio", UNSET)

        values = cast(list[str], d.pop("values", UNSET))

        job_request = cls(
            image_url=image_url,
            audio_url=audio_url,
            job_type=job_type,
            project_id=project_id,
            is_clone_required=is_clone_required,
            language=language,
            version=version,
            output_size=output_size,
            crop=crop,
            dynamic_scale=dynamic_scale,
            iteration_count=iteration_count,
            expand_ratio=expand_ratio,
            values=values,
        )

        job_request.additional_properties = d
        return job_request

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
