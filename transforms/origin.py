"""What an array outside of our hands was read from, as a text that goes along with it and names no patient.

A MONAI array keeps its affine through every transform, but not which DICOM images it came from. An `Origin`
does: with it a picture of the transformed array can cite those images, and it can be told whether the values
still are what was read (only then are they Hounsfield units).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.geometry import Matrix, apply, unit_normal
from medmllm_plugin.resampled import Grid, Resampled, Source, image_of
from medmllm_plugin.source import FileImage, ImageRef, Tile, image_from_json
from medmllm_plugin.volume import Plane, Study

KEY = "medmllm"
"""Where the metadata of an array hold the text of its origin."""

WORDS = "plane moved or resampled by MONAI transforms"
"""What a plane is called that is no original image."""

_SAMPLED = 16
_ENOUGH = 8
_SAME = 1e-3
"""How far the corners of a plane may be from an original image to lie in it, mm."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OriginalImage:
    """One image of the stack that was read, or one tile of a mosaic."""

    source: ImageRef | Tile
    matrix: Matrix
    """Shape (4, 4): (column, row, 0, 1) to LPS mm; where it has no place in the patient, to mm of the stack's
    own frame (see `frame_matrix`)."""
    patient_orientation: tuple[str, str] | None = None
    window: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Origin:
    """The images, in their order, and what is known of them."""

    images: tuple[OriginalImage, ...]
    rows: int
    columns: int
    placed: bool
    """Whether the matrices lead to the patient."""
    affine: Matrix
    """Shape (4, 4): (column, row, slice, 1) of the array as it was read to LPS mm, or mm of that frame."""
    shape: tuple[int, int, int]
    """(columns, rows, slices) of it."""
    study: Study
    paths: tuple[str, ...] = ()
    """What was read, as the user gave it."""
    which: int | str | None = None
    """Which of several volumes, as `read_volume` takes it."""
    unit: str = ""
    inverted: bool = False
    colour: bool = False
    notes: tuple[str, ...] = ()
    samples: tuple[float, ...] | None = None
    """The values at `sampled` voxels; None where they are not known."""

    def to_text(self) -> str:
        """All of it as JSON, numbers to the last bit."""
        data = {name: getattr(self, name) for name in self.__slots__}
        data["study"], data["affine"] = asdict(self.study), self.affine.tolist()
        data["images"] = [
            [one.source.to_json(), one.matrix[:3].ravel().tolist(), one.patient_orientation, one.window]
            for one in self.images
        ]
        return json.dumps(data)

    @classmethod
    def from_text(cls, text: str) -> Origin:
        """What `to_text` wrote."""
        data: dict[str, Any] = json.loads(text)
        data["study"], data["affine"] = Study(**data["study"]), np.array(data["affine"], np.float64)
        data["images"] = tuple(
            OriginalImage(
                source=_part(source),
                matrix=np.array([*matrix, 0, 0, 0, 1], np.float64).reshape(4, 4),
                patient_orientation=_pair(orientation),
                window=_pair(window),
            )
            for source, matrix, orientation, window in data["images"]
        )
        for name in ("paths", "notes", "samples", "shape"):
            data[name] = None if data[name] is None else tuple(data[name])
        return cls(**data)

    def sample_places(self) -> NDArray[np.float64]:
        """Where the sampled voxels lie, shape (n, 3), in mm as the affine has them."""
        index = np.meshgrid(*sampled(*self.shape), indexing="ij")
        return apply(self.affine, np.stack([axis.ravel() for axis in index], axis=-1))


def frame_matrix(plane: Plane, k: int) -> Matrix:
    """The matrix of plane k of a stack; without a place in the patient, mm of the stack's own frame.

    There x counts columns, y rows, and slices lie one millimetre apart; a pixel of unknown size is 1 mm.

    >>> from medmllm_plugin.source import FileImage
    >>> film = Plane(source=FileImage(file="film.png", index=0), rows=4, columns=4, to_patient=None,
    ...              spacing=(0.2, 0.1))
    >>> frame_matrix(film, 3).diagonal().tolist(), frame_matrix(film, 3)[2, 3].item()
    ([0.1, 0.2, 1.0, 1.0], 3.0)
    """
    if plane.to_patient is not None:
        return plane.to_patient
    row_mm, column_mm = plane.spacing or (1.0, 1.0)
    matrix = np.diag([column_mm, row_mm, 1.0, 1.0])
    matrix[2, 3] = k
    return matrix


def sampled(*shape: int) -> list[NDArray[np.intp]]:
    """For each axis up to 16 evenly spaced indices.

    >>> [indices.tolist() for indices in sampled(2, 31)]
    [[0, 1], [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30]]
    """
    return [np.unique(np.linspace(0, n - 1, min(n, _SAMPLED)).round().astype(np.intp)) for n in shape]


def samples(array: NDArray[Any]) -> tuple[float, ...]:
    """The values of (x, y, z[, 3]) at the sampled voxels, to six digits; of colours the first channel."""
    picked = array[np.ix_(*sampled(*array.shape[:3]))]
    first = picked if picked.ndim == 3 else picked[..., 0]
    return tuple(float(f"{value:.6g}") for value in first.ravel())


def same_values(now: NDArray[np.float64], then: NDArray[np.float64]) -> bool:
    """Whether values at the same places still are those that were read, but for interpolation.

    Rescaled, clipped or normalised values have another spread or another level, smoothed ones less spread.
    With fewer than 8 values nothing can be told, and the answer is no.

    >>> then = np.linspace(-1000, 400, 50)
    >>> same_values(then + 3, then), same_values((then + 1000) / 1400, then), same_values(then[:4], then[:4])
    (True, False, False)
    """
    if len(now) < _ENOUGH:
        return False
    spread, off = float(then.std()), now - then
    shifted = abs(float(np.median(off))) > (0.02 + 2 / np.sqrt(len(now))) * spread + 1
    scattered = float(np.median(np.abs(off))) > 0.6 * spread + 1
    return not shifted and not scattered and bool(0.5 * spread - 1 <= now.std() <= 1.5 * spread + 1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Link:
    """The original image in which a plane lies, where no stack of images does."""

    source: ImageRef | Tile
    shape: tuple[int, int]
    to_source: Matrix
    """Shape (3, 3): (column, row, 1) of the plane to those of the image."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Search:
    """Finds the original image of a plane by its place."""

    origin: Origin
    rows: int
    columns: int
    """Of the planes to find."""
    heights: NDArray[np.float64]
    """Of each original along the normal of the first, mm."""
    grid: Grid | None
    """The originals as a stack; None for a single one, or where they have no place in the patient."""

    @classmethod
    def of(cls, origin: Origin, *, rows: int, columns: int) -> Search:
        """The search among the images of an origin for planes of so many rows and columns."""
        matrices = [one.matrix for one in origin.images]
        stack = origin.placed and len(matrices) > 1
        return cls(
            origin=origin,
            rows=rows,
            columns=columns,
            heights=np.array([m[:3, 3] for m in matrices]) @ unit_normal(matrices[0]),
            grid=Grid.of(matrices, rows=origin.rows, columns=origin.columns) if stack else None,
        )

    def source(
        self, k: int, matrix: Matrix
    ) -> tuple[Source | Link, tuple[str, str] | None, tuple[float, float] | None]:
        """What plane k is, and the Patient Orientation and window of the image in which it lies, if any."""
        origin, images = self.origin, self.origin.images
        last = (self.columns - 1, self.rows - 1)
        corners = np.array([(c, r, 0) for c in (0, last[0]) for r in (0, last[1])], np.float64)
        middle = apply(matrix, [last[0] / 2, last[1] / 2, 0])
        nearest = images[int(np.argmin(np.abs(self.heights - middle @ unit_normal(images[0].matrix))))]
        back = np.linalg.inv(nearest.matrix) @ matrix
        seen = apply(back, corners)
        in_plane = bool(np.abs(seen[:, 2]).max() <= _SAME)
        upright = bool(np.abs([back[0, 1], back[1, 0]]).max() <= 1e-6 * np.abs(back[:2, :2]).max())
        letters = nearest.patient_orientation if in_plane and upright else None
        window = nearest.window if in_plane else None
        pixel = np.linalg.norm(nearest.matrix[:3, :2], axis=0)
        moved = np.abs((seen - corners)[:, :2] * pixel).max()
        if in_plane and (self.rows, self.columns) == (origin.rows, origin.columns) and moved <= _SAME:
            return nearest.source, letters, window
        if self.grid is not None:
            plane = Resampled(
                words=WORDS,
                index=k,
                first=image_of(images[0].source),
                last=image_of(images[-1].source),
                to_patient=matrix,
                rows=self.rows,
                columns=self.columns,
                grid=self.grid,
                sources=tuple(one.source for one in images),
            )
            return plane, letters, window
        if in_plane:
            to_source = back[np.ix_((0, 1, 3), (0, 1, 3))]
            shape = origin.rows, origin.columns
            return Link(source=nearest.source, shape=shape, to_source=to_source), letters, window
        name = PurePath(origin.paths[0]).name if origin.paths else "image"
        return FileImage(file=name, index=k), None, None


def _part(data: dict[str, Any]) -> ImageRef | Tile:
    tile = data.pop("tile", None)
    image = image_from_json(data)
    return image if tile is None else Tile(sheet=image, **tile)


def _pair(values: Any) -> Any:
    return None if values is None else tuple(values)
