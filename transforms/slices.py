"""From a volume to the pictures that a model is shown, and the way back kept exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.geometry import Matrix
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.transforms.window import PRESETS, Preset, apply_range, apply_window, preset
from medmllm_plugin.volume import Plane, Volume

PATCH = 28
"""Picture sides are multiples of this, so that a Qwen-VL processor resizes nothing again."""

PERCENTILES = (0.5, 99.5)

MAX_SIZE = 4096
MAX_COUNT = 512


def evenly(total: int, count: int) -> list[int]:
    """Indices of `count` slices of `total`, evenly spaced, both ends included; all if there are fewer.

    >>> evenly(9, 3), evenly(2, 5), evenly(9, 1)
    ([0, 4, 8], [0, 1], [4])
    """
    if total < 1 or count < 1:
        raise ValueError(f"slices are counted from 1, got {count} of {total}")
    if count == 1:
        return [(total - 1) // 2]
    return [int(k) for k in np.unique(np.round(np.linspace(0, total - 1, min(count, total))).astype(int))]


def scale_matrix(*, source: tuple[int, int], picture: tuple[int, int]) -> Matrix:
    """Picture (column, row, 1) to source (column, row, 1), pixel indices, when a whole image is resized.

    Both images cover the same rectangle; a resampler puts centre i at (i + 0.5) · scale - 0.5.

    Args:
        source: (rows, columns) of the image.
        picture: (rows, columns) of the picture.

    >>> scale_matrix(source=(4, 8), picture=(2, 2)).tolist()
    [[4.0, 0.0, 1.5], [0.0, 2.0, 0.5], [0.0, 0.0, 1.0]]
    """
    across, down = source[1] / picture[1], source[0] / picture[0]
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])


def picture_to_patient(plane: Matrix, to_source: Matrix) -> Matrix:
    """Picture (column, row, 0, 1) to LPS mm, by the image's own matrix and the picture's way to the image."""
    lifted = np.eye(4)
    lifted[:2, :2] = to_source[:2, :2]
    lifted[:2, 3] = to_source[:2, 2]
    return plane @ lifted


@dataclass(frozen=True, kw_only=True, slots=True)
class SlicePlan:
    """How pictures are chosen and made: evenly spaced slices, one window recipe, one size.

    Raises:
        SettingsError: If a setting is out of its range.
    """

    count: int = 24
    """Most pictures; fewer if the volume has fewer slices."""
    size: int = 448
    """Longer side of a picture, px; sides are rounded to multiples of 28. The true aspect (mm) is kept."""
    window: str | None = None
    """A preset of `window.PRESETS` for CT, `percentile`, or `header`; None picks by modality."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise SettingsError(f"the number of slices is {self.count}, expected 1 to {MAX_COUNT}")
        if not PATCH <= self.size <= MAX_SIZE:
            raise SettingsError(f"the picture size is {self.size} px, expected {PATCH} to {MAX_SIZE}")
        if self.window not in (None, "percentile", "header"):
            preset(str(self.window))

    def apply(self, volume: Volume, *, progress: Callable[[int, int], None] | None = None) -> SliceSet:
        """The pictures of a volume; only the chosen slices are decoded.

        Args:
            volume: Any volume.
            progress: Called with (pictures done, pictures in all).

        Raises:
            StudyError: If a chosen slice can't be decoded.
            SettingsError: If a CT preset is asked for values that are not Hounsfield units.
        """
        chosen = evenly(len(volume), self.count)
        values = []
        for done, k in enumerate(chosen):
            if progress is not None:
                progress(done, len(chosen))
            values.append(volume.read_plane(k))
        render, words = self._window(volume, [volume.planes[k] for k in chosen], values)
        slices = []
        for n, k in enumerate(chosen):
            plane = volume.planes[k]
            shape = picture_shape(plane, size=self.size)
            to_source = scale_matrix(source=(plane.rows, plane.columns), picture=shape)
            slices.append(
                Slice(
                    pixels=_resize(render(n), shape),
                    source=plane.source,
                    source_shape=(plane.rows, plane.columns),
                    to_source=to_source,
                    to_patient=None
                    if plane.to_patient is None
                    else picture_to_patient(plane.to_patient, to_source),
                    window=words,
                    patient_orientation=plane.patient_orientation,
                )
            )
        return SliceSet(
            slices=tuple(slices),
            study=volume.study,
            plan=f"{len(chosen)} of {len(volume)} slices, evenly spaced, longer side {self.size} px; {words}",
            notes=volume.notes,
        )

    def _window(
        self, volume: Volume, planes: list[Plane], values: list[NDArray[np.float32] | NDArray[np.uint8]]
    ) -> tuple[Callable[[int], NDArray[np.uint8]], str]:
        """A function that renders chosen slice n, and the recipe in words."""
        if values[0].ndim == 3:
            return lambda n: np.asarray(values[n], np.uint8), "colours as stored"
        grey = [np.asarray(v, np.float32) for v in values]
        name = self.window or _default_window(volume, planes)
        if name in PRESETS:
            if volume.unit != "HU":
                raise SettingsError(
                    f"the window {name!r} needs Hounsfield units, but these {volume.study.modality} values "
                    f"have {'unit ' + volume.unit if volume.unit else 'none'}; use --window percentile"
                )
            chosen = preset(name)
            return lambda n: _channels(grey[n], chosen), chosen.words
        if name == "header" and all(plane.window for plane in planes):
            return lambda n: _with_header_window(
                grey[n], planes[n], inverted=volume.inverted
            ), "window of the header"
        sample = np.concatenate([v[::4, ::4].ravel() for v in grey])
        sample = sample[np.isfinite(sample)]
        low, high = np.percentile(sample, PERCENTILES) if len(sample) else (0.0, 0.0)
        words = (
            f"grey levels from percentile {PERCENTILES[0]} ({low:g}) to {PERCENTILES[1]} ({high:g}) "
            "of the slices shown"
        )
        return lambda n: apply_range(
            grey[n], low=float(low), high=float(high), inverted=volume.inverted
        ), words


def picture_shape(plane: Plane, *, size: int) -> tuple[int, int]:
    """(rows, columns) of a picture: the plane's true aspect in mm, longer side `size`, multiples of 28."""
    row_mm, column_mm = plane.spacing or (1.0, 1.0)
    height, width = plane.rows * row_mm, plane.columns * column_mm
    scale = size / max(height, width)
    return _multiple(height * scale), _multiple(width * scale)


def _multiple(side: float) -> int:
    return max(PATCH, round(side / PATCH) * PATCH)


def _default_window(volume: Volume, planes: list[Plane]) -> str:
    if volume.study.modality == "CT" and volume.unit == "HU":
        return "ct"
    radiograph = planes[0].to_patient is None
    return "header" if radiograph and all(plane.window for plane in planes) else "percentile"


def _channels(values: NDArray[np.float32], chosen: Preset) -> NDArray[np.uint8]:
    channels = [apply_window(values, center=center, width=width) for center, width in chosen.windows]
    return np.stack(channels * (3 // len(channels)), axis=-1)


def _with_header_window(values: NDArray[np.float32], plane: Plane, *, inverted: bool) -> NDArray[np.uint8]:
    assert plane.window is not None
    center, width = plane.window
    return apply_window(values, center=center, width=max(width, 1), inverted=inverted)


def _resize(pixels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels of shape (rows, columns[, 3]) resized with antialiasing to RGB of `shape`."""
    from PIL import Image

    rows, columns = shape
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.size != (columns, rows):
        image = image.resize((columns, rows), Image.Resampling.BICUBIC)
    return np.asarray(image.convert("RGB"))
