"""Pictures of benchmarks, which are photographs of images: no place in a patient, but each names its file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Preview
from medmllm_plugin.evaluation.parquet import Cell
from medmllm_plugin.models import Model
from medmllm_plugin.pictures import thumbnail
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import FileImage
from medmllm_plugin.volume import Study

LONGEST = 1536
"""Pixels of a picture's longer side; what is larger is shown smaller, as a model would do itself."""

PREVIEWS = 4
"""Pictures of an item that a page shows."""

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm")
"""How the names of files end that hold a volume or a DICOM image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A picture that lies inside another file."""

    name: str
    content: bytes | Cell
    """As JPEG, PNG or the like."""

    def read(self) -> bytes:
        """The content, out of its file if it still lies there."""
        return self.content if isinstance(self.content, bytes) else self.content.read()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Pictures that are shown together, in their order."""

    files: tuple[Path | Encoded, ...]
    modality: str = "OT"
    """Modality (0008,0060), where the benchmark says it."""

    def preview(self, details: Mapping[str, Any]) -> tuple[Preview, ...]:
        """The first few pictures; of a volume none, as what is shown of it is the model's choice."""
        pictures = [one for one in self.files if not (isinstance(one, Path) and _is_volume(one))]
        return tuple(
            Preview(pixels=decoded(one), words=f"Picture {number} of {len(self.files)}")
            for number, one in enumerate(pictures[:PREVIEWS], 1)
        )

    def show(self, model: Model) -> tuple[SliceSet, tuple[SliceSet, ...]]:
        """The pictures as they are; of a volume what suits the model.

        Raises:
            SettingsError: If a file is missing or no picture.
            StudyError: If a volume can't be read.
        """
        if len(self.files) == 1 and isinstance(self.files[0], Path) and _is_volume(self.files[0]):
            return _volume(self.files[0], self.modality, model), ()
        slices = tuple(_slice(one) for one in self.files)
        plan = "one picture as published" if len(slices) == 1 else f"{len(slices)} pictures as published"
        return SliceSet(slices=slices, study=Study(modality=self.modality), plan=plan), ()


def decoded(file: Path | Encoded) -> NDArray[np.uint8]:
    """A picture, uint8, shape (rows, columns, 3), at most `LONGEST` a side.

    Raises:
        SettingsError: If the file is missing or no picture.
    """
    from PIL import Image

    name = file.name
    try:
        source = file if isinstance(file, Path) else io.BytesIO(file.read())
        with Image.open(source) as image:
            if image.mode in ("I", "I;16", "F"):
                pixels = _stretched(np.asarray(image, np.float64))
            else:
                pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        missing = isinstance(error, FileNotFoundError)
        found = "no such file" if missing else f"no picture that can be read ({type(error).__name__})"
        raise SettingsError(
            f"{file if isinstance(file, Path) else name}: found {found}, expected a picture of the "
            "benchmark; put its pictures where medmllm eval list says"
        ) from error
    return thumbnail(np.ascontiguousarray(pixels), longest=LONGEST)


def _stretched(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """A picture of more than 8 bits from its least to its largest value."""
    low, high = float(values.min()), float(values.max())
    grey = np.rint((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _slice(file: Path | Encoded) -> Slice:
    pixels = decoded(file)
    return Slice(
        pixels=pixels,
        source=FileImage(file=file.name, index=0),
        source_shape=(pixels.shape[0], pixels.shape[1]),
        to_source=np.eye(3),
        to_patient=None,
        window="as published",
    )


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(VOLUMES) or path.is_dir()


def _volume(path: Path, modality: str, model: Model) -> SliceSet:
    from medmllm_plugin.opening import open_study

    said = None if modality == "OT" else modality
    return open_study(path, model=model, modality=said).views.slices


def beside(folder: Path, name: str, inside: Sequence[str]) -> Path:
    """Where a picture lies: in the first of some folders that has it, else where it should be.

    Raises:
        SettingsError: If its name leads out of the folder.
    """
    clean = name.replace("\\", "/").lstrip("/")
    if ".." in clean.split("/"):
        raise SettingsError(f"{folder}: found the picture name {name[:80]!r}, expected one inside the folder")
    places = [folder / one / clean if one else folder / clean for one in inside]
    return next((place for place in places if place.exists()), places[0])
