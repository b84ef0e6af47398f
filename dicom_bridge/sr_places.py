"""Where an SR's regions lie in the patient: points on an image to LPS millimetres, by that image's plane."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from medmllm_plugin.dicom_bridge.sr_tree import SrItem, SrRegion
from medmllm_plugin.errors import GeometryError, InputError
from medmllm_plugin.geometry import Matrix, apply, plane_matrix
from medmllm_plugin.transforms.attributes import integer, items, numbers, text
from medmllm_plugin.transforms.dicom_headers import read_header
from medmllm_plugin.transforms.entries import list_entries
from medmllm_plugin.transforms.mosaic import is_mosaic


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ImagePlane:
    """One image or frame in the patient."""

    matrix: Matrix
    """Shape (4, 4): pixel index (column, row, 0, 1) to LPS mm, (0, 0) being the centre of the first pixel."""
    frame_of_reference_uid: str
    """Frame of Reference UID (0020,0052); empty if the image has none."""


class ImagePlanes:
    """The planes of a study's images, by SOP Instance UID and frame; no pixels are read.

    Args:
        headers: Of the images that an SR cites; others do no harm.
    """

    def __init__(self, headers: Iterable[Dataset]) -> None:
        self._headers = {text(header, "SOPInstanceUID"): header for header in headers}

    @classmethod
    def of_folder(cls, folder: Path) -> ImagePlanes:
        """The planes of the DICOM files in a folder, file, DICOMDIR or zip; damaged files are passed over.

        Raises:
            InputError: If the path is not there.
        """
        headers = []
        for entry in list_entries([folder]).entries:
            try:
                headers.append(read_header(entry).dataset)
            except InputError:
                continue
        return cls(headers)

    def __len__(self) -> int:
        return len(self._headers)

    def plane(self, sop_instance_uid: str, frame: int = 1) -> ImagePlane:
        """The plane of an image or of one of its frames (PS3.3 C.7.6.2, C.7.6.16.2.3, C.7.6.16.2.4).

        Args:
            sop_instance_uid: The image.
            frame: From 1, as Referenced Frame Number (0008,1160) counts.

        Raises:
            GeometryError: If the image is not there, has no such frame, has no place in the patient, or is a
                mosaic.
        """
        header = self._headers.get(sop_instance_uid)
        if header is None:
            raise GeometryError(f"image {sop_instance_uid} is not among the {len(self)} images given")
        if is_mosaic(header):
            raise GeometryError(
                f"image {sop_instance_uid} is a mosaic, whose position is that of none of its slices"
            )
        frames = max(1, integer(header, "NumberOfFrames", 1))
        if not 1 <= frame <= frames:
            raise GeometryError(f"image {sop_instance_uid} has {frames} frames, not a frame {frame}")
        groups = items(header, "PerFrameFunctionalGroupsSequence")[frame - 1 : frame]
        groups += items(header, "SharedFunctionalGroupsSequence")[:1]
        macros = [
            macro
            for group in groups
            for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
            for macro in items(group, keyword)[:1]
        ]
        sources = [*macros, *([header] if groups or frames == 1 else [])]
        position = _first(sources, "ImagePositionPatient", 3)
        orientation = _first(sources, "ImageOrientationPatient", 6)
        spacing = _first(sources, "PixelSpacing", 2)
        if position is None or orientation is None or spacing is None:
            raise GeometryError(f"image {sop_instance_uid} has no place in the patient")
        matrix = plane_matrix(
            position=position, orientation=orientation, spacing=spacing, where=f"image {sop_instance_uid}"
        )
        return ImagePlane(matrix=matrix, frame_of_reference_uid=text(header, "FrameOfReferenceUID"))

    def placed(self, region: SrRegion) -> SrRegion:
        """The region with its points in millimetres; one that has them already, as it is.

        Points of a SCOORD count from the outer corner of the first pixel (PS3.3 C.18.6.1), so half a pixel
        is taken off before the plane is asked.

        Raises:
            GeometryError: If the region names no one image or frame, or that has no place in the patient.
        """
        if region.points_mm is not None:
            return region
        if region.image is None:
            raise GeometryError("a region names no image")
        frames = region.image.frames or (1,)
        if len(frames) > 1:
            raise GeometryError(f"a region lies on {len(frames)} frames of {region.image.sop_instance_uid}")
        plane = self.plane(region.image.sop_instance_uid, frames[0])
        indices = [(column - 0.5, row - 0.5, 0.0) for column, row in region.points]
        return replace(
            region,
            points_mm=tuple((float(x), float(y), float(z)) for x, y, z in apply(plane.matrix, indices)),
            frame_of_reference_uid=plane.frame_of_reference_uid or None,
        )


def place_tree(tree: SrItem, planes: ImagePlanes) -> tuple[SrItem, tuple[str, ...]]:
    """The content tree with its regions in millimetres, and a line on each that could not be placed."""
    problems: dict[str, str] = {}
    placed = _placed(tree, planes, problems)
    return placed, tuple(f"place of item {place}: {why}" for why, place in problems.items())


def _placed(item: SrItem, planes: ImagePlanes, problems: dict[str, str]) -> SrItem:
    if isinstance(item.value, SrRegion):
        try:
            item = replace(item, value=planes.placed(item.value))
        except GeometryError as error:
            problems.setdefault(str(error), item.place)
    return replace(item, children=tuple(_placed(child, planes, problems) for child in item.children))


def _first(sources: list[Dataset], keyword: str, count: int) -> tuple[float, ...] | None:
    return next((value for one in sources if (value := numbers(one, keyword, count)) is not None), None)
