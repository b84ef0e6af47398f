"""Pictures straight to the input of the Qwen2-VL family, bit for bit what its own processor makes.

The processor cuts a picture into square patches, in groups of `merge` x `merge` that become one token,
repeats each `temporal` times as if the picture stood still, and lays a patch out as (channel, time, row,
column).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.resize import resize_stack
from medmllm_plugin.transforms.threads import in_parts

MAX_ASPECT = 200
"""The family refuses pictures whose longer side is more than this many times the shorter."""

BICUBIC = 3
"""`PILImageResampling.BICUBIC`, the resampling that `resize` reproduces."""

_WORTH_A_THREAD = 4 << 20
"""Bytes of patches below which a thread costs more than it saves."""

Pixels = NDArray[Any]
"""uint8 or float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchFormat:
    """The settings of an image processor of the family; those of Qwen2-VL and Qwen2.5-VL if left out."""

    patch: int = 14
    """Side of a patch, px."""
    merge: int = 2
    """Patches along each side of a token."""
    temporal: int = 2
    """How often a patch is repeated."""
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    resizes: bool = True
    """False: pictures must come with sides that are multiples of `factor`."""
    rescale_factor: float = 1 / 255
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Red, green, blue, on the scale 0 to 1."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    def __post_init__(self) -> None:
        for name, most in (("patch", 32), ("merge", 64), ("temporal", 4)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be 1 to {most}, got {getattr(self, name)}")

    @classmethod
    def of(cls, processor: Any) -> PatchFormat | None:
        """The format of a transformers image processor; None if it is set to do what is not done here."""
        same = processor.do_rescale and processor.do_normalize and processor.resample == BICUBIC
        if not same or not (np.shape(processor.image_mean) == np.shape(processor.image_std) == (3,)):
            return None
        return cls(
            patch=processor.patch_size,
            merge=processor.merge_size,
            temporal=processor.temporal_patch_size,
            min_pixels=processor.size["shortest_edge"],
            max_pixels=processor.size["longest_edge"],
            resizes=processor.do_resize,
            rescale_factor=processor.rescale_factor,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
        )

    @property
    def factor(self) -> int:
        """Side of a token, px; the sides of a picture become multiples of it."""
        return self.patch * self.merge

    @property
    def width(self) -> int:
        """Numbers in one patch."""
        return 3 * self.temporal * self.patch * self.patch

    def shape(self, rows: int, columns: int) -> tuple[int, int]:
        """(rows, columns) that the processor gives a picture; a plan that chooses this size loses nothing.

        The whole picture is stretched onto them, so a point of the resized picture in corner coordinates
        (0 is the outer edge of the first pixel) is one of the picture after multiplying its column by
        columns / resized columns and its row by rows / resized rows.

        Raises:
            ValueError: If a side is below 1, the aspect ratio is above 200, or this format doesn't resize and
                the sides are no multiples of `factor`.

        >>> PatchFormat().shape(512, 500), PatchFormat(max_pixels=28 * 28 * 16).shape(512, 512)
        ((504, 504), (112, 112))
        """
        if min(rows, columns) < 1:
            raise ValueError(f"sides are at least 1 px, got {rows} x {columns}")
        factor = self.factor
        if not self.resizes:
            if rows % factor or columns % factor:
                raise ValueError(f"sides must be multiples of {factor} px, got {rows} x {columns}")
            return rows, columns
        if max(rows, columns) / min(rows, columns) > MAX_ASPECT:
            raise ValueError(f"the aspect ratio must be {MAX_ASPECT} at most, got {rows} x {columns} px")
        high, wide = round(rows / factor) * factor, round(columns / factor) * factor
        if high * wide > self.max_pixels:
            shrink = math.sqrt((rows * columns) / self.max_pixels)
            high, wide = (
                max(factor, math.floor(side / shrink / factor) * factor) for side in (rows, columns)
            )
        elif high * wide < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (rows * columns))
            high, wide = (math.ceil(side * grow / factor) * factor for side in (rows, columns))
        return high, wide

    def tokens(self, rows: int, columns: int) -> int:
        """Tokens of a picture.

        >>> PatchFormat().tokens(448, 448)
        256
        """
        high, wide = self.shape(rows, columns)
        return high * wide // self.factor**2

    def scale(self) -> NDArray[np.float32]:
        """Shape (2, 3): mean, then standard deviation of the channels on the scale 0 to 255.

        In float32 from the first, as the processor computes them.
        """
        return np.array((self.mean, self.std), np.float32) * np.float32(1.0 / self.rescale_factor)


QWEN2_VL = PatchFormat()
"""Qwen2-VL and Qwen2.5-VL as transformers sets them; a model's own folder may widen the pixel limits."""

QWEN3_VL = PatchFormat(
    patch=16, min_pixels=65536, max_pixels=16777216, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
"""Qwen3-VL."""


def patches(
    pictures: SliceSet | Sequence[NDArray[np.uint8]],
    *,
    form: PatchFormat = QWEN2_VL,
    kind: Literal["uint8", "float32"] = "float32",
    out: Pixels | None = None,
) -> tuple[Pixels, NDArray[np.int64]]:
    """`pixel_values` and `image_grid_thw` of pictures.

    Equal to the last bit to what `Qwen2VLImageProcessor` of transformers (torchvision backend) makes of them.
    Pictures of a size that it would resize are resized, by the same rule and arithmetic.

    Args:
        pictures: Each uint8, shape (rows, columns), or (rows, columns, 3); a grey one that has three channels
            by a stride of 0 is cut once and copied.
        form: The processor's settings.
        kind: `float32`: normalised, as transformers wants. `uint8`: the levels as they are (do_rescale and
            do_normalize False), as vLLM wants, which normalises on the device.
        out: Where to put the patches: contiguous, of that kind, shape (patches or more, `form.width`). Memory
            that is used again saves the time to clear new memory.

    Returns:
        The patches of all pictures, shape (patches, `form.width`), the beginning of `out` if that is given;
        and for each picture (1, patches down, patches across), shape (pictures, 3).

    Raises:
        ValueError: If a picture is no such array or of an impossible shape, or `out` doesn't fit.

    >>> values, grid = patches([np.zeros((56, 84), np.uint8)], kind="uint8")
    >>> values.shape, grid.tolist()
    ((24, 1176), [[1, 4, 6]])
    """
    given = [one.pixels for one in pictures.slices] if isinstance(pictures, SliceSet) else list(pictures)
    planes = [_plane(one) for one in given]
    known = {size: form.shape(*size) for size in {one.shape[:2] for one in planes}}
    shapes = [known[one.shape[:2]] for one in planes]
    grid = np.array(
        [(1, rows // form.patch, columns // form.patch) for rows, columns in shapes], np.int64
    ).reshape(-1, 3)
    ends = grid.prod(axis=1).cumsum()
    total = int(ends[-1]) if len(ends) else 0
    if out is None:
        out = np.empty((total, form.width), kind)
    elif (
        out.dtype != kind
        or out.ndim != 2
        or out.shape[1] != form.width
        or len(out) < total
        or not (out.flags.c_contiguous and out.flags.writeable)
    ):
        raise ValueError(
            f"out must be contiguous {kind} ({total} or more, {form.width}), got {out.dtype} {out.shape}"
        )
    scale = form.scale() if kind == "float32" else None
    ready = _resized(planes, shapes)
    starts = [0, *ends.tolist()]

    def part(start: int, stop: int) -> None:
        for n in range(start, stop):
            _cut(ready[n], form, scale, out[starts[n] : starts[n + 1]])

    in_parts(part, len(ready), least=max(1, len(ready) * _WORTH_A_THREAD // max(1, out[:total].nbytes)))
    return out[:total], grid


def _plane(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture without channels if they are one and the same memory."""
    channels = picture.shape[2:]
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in ((), (3,)):
        raise ValueError(
            f"a picture is uint8 (rows, columns) or (rows, columns, 3), got {picture.dtype} {picture.shape}"
        )
    return picture[:, :, 0] if channels and picture.strides[2] == 0 else picture


def _resized(planes: list[NDArray[np.uint8]], shapes: list[tuple[int, int]]) -> list[NDArray[np.uint8]]:
    """The pictures in these shapes; those that are alike are resized together."""
    done = list(planes)
    alike: dict[Any, list[int]] = {}
    for n, (plane, shape) in enumerate(zip(planes, shapes, strict=True)):
        if plane.shape[:2] != shape:
            alike.setdefault((plane.shape, shape), []).append(n)
    for (_, shape), numbers in alike.items():
        stack = resize_stack(np.stack([planes[n] for n in numbers]), shape)
        for n, resized in zip(numbers, stack, strict=True):
            done[n] = resized
    return done


def _cut(plane: NDArray[np.uint8], form: PatchFormat, scale: NDArray[np.float32] | None, out: Pixels) -> None:
    """The patches of one picture, in the processor's order, into their rows of the result."""
    patch, merge, temporal = form.patch, form.merge, form.temporal
    rows, columns = plane.shape[:2]
    fast = compiled.pictures
    if fast is not None:
        sizes = rows, columns, 3 if plane.ndim == 3 else 1, patch, merge, temporal
        constants = b"" if scale is None else scale
        fast.cut(fast.KERNELS - 1, *sizes, np.ascontiguousarray(plane), constants, out)
        return
    cells = out.view(_whole(out.itemsize * patch * patch)).reshape(-1, 3, temporal)
    channels = [plane] if plane.ndim == 2 else [plane[:, :, channel] for channel in range(3)]
    tiles: list[Pixels] = [_tiles(channel, patch, merge) for channel in channels]
    if scale is not None:
        tiles = [(tiles[k % len(tiles)].astype(np.float32) - scale[0, k]) / scale[1, k] for k in range(3)]
    each = 3 // len(tiles)  # a single one is that of all channels
    for k, one in enumerate(tiles):
        cells[:, k * each : (k + 1) * each] = one.view(cells.dtype)[:, :, None]


def _tiles(plane: NDArray[np.uint8], patch: int, merge: int) -> NDArray[np.uint8]:
    """The patches of one channel in the processor's order, shape (patches, patch²)."""
    lines = np.ascontiguousarray(plane).view(_whole(patch))
    high, wide = len(plane) // (patch * merge), lines.shape[1] // merge
    turned = lines.reshape(high, merge, patch, wide, merge).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(turned).view(np.uint8).reshape(-1, patch * patch)


def _whole(size: int) -> np.dtype[np.void]:
    """Bytes that numpy copies as one, which is several times faster than one by one."""
    return np.dtype((np.void, size))
