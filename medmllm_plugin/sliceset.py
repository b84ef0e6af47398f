"""Pictures for a model, and for each the exact way back to its image and to the patient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medmllm_plugin.errors import GeometryError
from medmllm_plugin.geometry import Matrix, apply
from medmllm_plugin.resampled import Bounds, Outline
from medmllm_plugin.slice import Montage
from medmllm_plugin.slice import Slice as Slice
from medmllm_plugin.source import ImageRef
from medmllm_plugin.volume import Study


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The pictures of one series among those of several that are shown together."""

    pictures: int
    """How many; they follow those of the parts before."""
    study: Study
    """The series that they are of."""
    plan: str
    """As `SliceSet.plan`."""
    words: str = ""
    """What sets the series apart, by coded facts only, such as `FLAIR` or `arterial phase`; may be empty."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SliceSet:
    """What a model is shown of one study: pictures numbered from 1 in the order of `slices`."""

    slices: tuple[Slice, ...]
    study: Study
    """Where there are several series, that of the first."""
    plan: str
    """How the pictures were chosen and made, in words that go into the report's provenance."""
    notes: tuple[str, ...] = ()
    """What the reader of the report should know of the input."""
    parts: tuple[Part, ...] = ()
    """The series that the pictures are of, in their order, if there are several; else empty."""
    days_before: int | None = None
    """Of a prior study how many days it was made before the one it is compared with; None if not known."""

    def __len__(self) -> int:
        return len(self.slices)

    def picture(self, number: int) -> Slice:
        """The picture of that number, from 1.

        Raises:
            ValueError: If no such picture was shown.
        """
        if not 1 <= number <= len(self.slices):
            raise ValueError(f"picture {number} was not shown; there are pictures 1 to {len(self.slices)}")
        return self.slices[number - 1]

    @property
    def shown(self) -> tuple[Slice, ...]:
        """All slices in the order they are shown, those of montages one by one."""
        return tuple(inset.shown for one in self.slices for inset in one.insets)

    def to_patient(self, number: int, points: ArrayLike) -> NDArray[np.float64]:
        """LPS mm of points (column, row) of a picture; shape (..., 2) gives (..., 3).

        Raises:
            GeometryError: If the picture's image has no place in the patient, or a point lies in no slice of
                a montage.
        """
        one = self.picture(number)
        xy = np.asarray(points, np.float64)
        if not isinstance(one.source, Montage):
            flat = np.concatenate([xy, np.zeros((*xy.shape[:-1], 1))], axis=-1)
            return apply(self._placed(number, one), flat)
        found = []
        for column, row in xy.reshape(-1, 2).tolist():
            inset = one.inset_of((column + 0.5, row + 0.5, column + 0.5, row + 0.5))
            if inset is None:
                raise GeometryError(
                    f"found column {column:g}, row {row:g} of picture {number}, which lies in none of the "
                    "slices of that montage; expected a place in one of them"
                )
            matrix = self._placed(number, inset.shown)
            found.append(apply(matrix, (column - inset.column, row - inset.row, 0.0)))
        return np.reshape(found, (*xy.shape[:-1], 3))

    def from_patient(self, number: int, points: ArrayLike) -> NDArray[np.float64]:
        """(column, row, mm off the plane) in a picture of points in LPS mm; shape (..., 3) gives (..., 3).

        Of a montage in the slice whose plane is nearest; column and row are NaN where it doesn't show that.

        Raises:
            GeometryError: If the picture's image has no place in the patient.
        """
        one = self.picture(number)
        if not isinstance(one.source, Montage):
            return apply(np.linalg.inv(self._placed(number, one)), points)
        seen = []
        for inset in one.insets:
            on = apply(np.linalg.inv(self._placed(number, inset.shown)), points)
            inside = inset.shown.contains(on[..., :2])[..., None]
            on[..., :2] = np.where(inside, on[..., :2] + (inset.column, inset.row), np.nan)
            seen.append(on)
        every = np.stack(seen)
        nearest = np.abs(every[..., 2]).argmin(axis=0)[None, ..., None]
        found: NDArray[np.float64] = np.take_along_axis(every, nearest, axis=0)[0]
        return found

    def box_in_source(
        self, number: int, *, column_min: float, row_min: float, column_max: float, row_max: float
    ) -> Bounds:
        """A box of a picture as a box of its source image, both in corner coordinates, cut to the image.

        Returns:
            (column_min, row_min, column_max, row_max) in source-image pixels; (0, 0) is the outer corner of
            the first pixel.
        """
        return self.picture(number).box_in_source((column_min, row_min, column_max, row_max))

    def outlines(
        self, number: int, *, column_min: float, row_min: float, column_max: float, row_max: float
    ) -> tuple[Outline, ...]:
        """The images that a box of a picture passes through, with what it covers of each.

        Of a picture that shows one image, that image and `box_in_source`. Of a reformat or slab the images
        that it was computed from, nearest to the centre of the box first, see `Resampled.outlines`. Of a
        montage those of the slice in which the centre of the box lies, of the part that lies in that slice.
        All in corner coordinates.

        Returns:
            Empty if the box lies outside of every image.
        """
        return self.picture(number).outlines((column_min, row_min, column_max, row_max))

    def cited(self, images: Iterable[ImageRef], pictures: Iterable[int] = ()) -> list[int]:
        """Rising numbers of the pictures that a finding or sentence cites.

        Args:
            images: Its images.
            pictures: Its pictures by number, where it says them: an image can be part of many reformats.
        """
        said = {number for number in pictures if 1 <= number <= len(self)}
        if said:
            return sorted(said)
        wanted = set(images)
        return [
            number
            for number, one in enumerate(self.slices, 1)
            if any(inset.shown.image in wanted for inset in one.insets)
        ]

    def to_json(self, *, folder: str = "", first: int = 1) -> dict[str, Any]:
        """The content of `slices.json`.

        Args:
            folder: Where the pictures lie seen from that file, with a slash at its end; they are named
                001.png and so on.
            first: The number of the first picture: those of a prior study follow those of the study.
        """
        return {
            "schema": "medmllm-slices/1",
            "series": {
                "modality": self.study.modality,
                "study_instance_uid": self.study.study_instance_uid,
                "series_instance_uid": self.study.series_instance_uid,
                "frame_of_reference_uid": self.study.frame_of_reference_uid,
                "plan": self.plan,
                "notes": list(self.notes),
                **self._series_shown(),
            },
            "slices": [
                {
                    "picture": folder + picture_name(number),
                    "source": one.source.to_json(),
                    "rows": one.pixels.shape[0],
                    "columns": one.pixels.shape[1],
                    "to_patient": None if one.to_patient is None else one.to_patient.tolist(),
                    "to_source": one.to_source.tolist(),
                    "window": one.window,
                    **_tiles(one),
                }
                for number, one in enumerate(self.slices, first)
            ],
        }

    def _series_shown(self) -> dict[str, Any]:
        """What `slices.json` says more of several series shown together, and of a prior study."""
        shown = [
            {
                "pictures": part.pictures,
                "modality": part.study.modality,
                "series_instance_uid": part.study.series_instance_uid,
                "frame_of_reference_uid": part.study.frame_of_reference_uid,
                "words": part.words,
                "plan": part.plan,
            }
            for part in self.parts
        ]
        days = {} if self.days_before is None else {"days_before": self.days_before}
        return {"parts": shown, **days} if shown else days

    def _placed(self, number: int, shown: Slice) -> Matrix:
        if shown.to_patient is None:
            raise GeometryError(
                f"picture {number} ({self.study.modality}) has no place in the patient: its image has no "
                "Image Position (Patient); give its place in image pixels only"
            )
        return shown.to_patient


def _tiles(one: Slice) -> dict[str, Any]:
    """What `slices.json` says of a montage more than of other pictures."""
    return {"tiles": [inset.to_json() for inset in one.insets]} if isinstance(one.source, Montage) else {}


def joined(sets: Sequence[SliceSet], *, words: Sequence[str] = ()) -> SliceSet:
    """Slice sets of one study as one, their pictures numbered on.

    Args:
        sets: At least one. Sets of one series become a set of that series.
        words: For each what sets its series apart, see `Part.words`.

    Raises:
        ValueError: If they are of several studies, or there is none.
    """
    if len({one.study.study_instance_uid for one in sets}) != 1:
        raise ValueError("slice sets of one study can be joined, found several or none")
    if len(sets) == 1:
        return sets[0]
    labels = words or [""] * len(sets)
    parts = tuple(
        part
        for one, label in zip(sets, labels, strict=True)
        for part in one.parts or (Part(pictures=len(one), study=one.study, plan=one.plan, words=label),)
    )
    return replace(
        sets[0],
        slices=tuple(one for each in sets for one in each.slices),
        plan="; then ".join(dict.fromkeys(one.plan for one in sets)),
        notes=tuple(dict.fromkeys(note for one in sets for note in one.notes)),
        parts=parts if len({part.study.series_instance_uid for part in parts}) > 1 else (),
    )


def picture_name(number: int) -> str:
    """The file name of a picture.

    >>> picture_name(7)
    '007.png'
    """
    return f"{number:03d}.png"
