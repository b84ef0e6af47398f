"""Chosen planes of a volume in memory, and pictures of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms.body import STEP
from medmllm_plugin.transforms.crop import Framing
from medmllm_plugin.transforms.render import Window, render
from medmllm_plugin.transforms.resize import resize_stack
from medmllm_plugin.transforms.voi import Padded, counted
from medmllm_plugin.volume import Stored, Volume


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Planes:
    """Planes as they were read: as stored, with tables, where the volume has them so; else as values."""

    ks: tuple[int, ...]
    """Which planes of the volume."""
    padding: tuple[tuple[float, float] | None, ...]
    """`Plane.padding` of each."""
    stored: Stored | None
    values: Sequence[NDArray[np.float32] | NDArray[np.uint8]] = ()
    """Where not stored: for each plane (rows, columns), or (rows, columns, 3) for colours."""

    @classmethod
    def read(
        cls, volume: Volume, ks: Sequence[int], *, progress: Callable[[int, int], None] | None = None
    ) -> Planes:
        """Read planes; `progress` is called with (planes read, planes in all).

        Raises:
            StudyError: If one can't be decoded.
        """
        tell = progress or (lambda done, total: None)
        tell(0, len(ks))
        padding = tuple(volume.planes[k].padding for k in ks)
        stored = volume.read_stored(ks)
        if stored is not None:
            return cls(ks=tuple(ks), padding=padding, stored=stored)
        values = []
        for done, k in enumerate(ks):
            if done:
                tell(done, len(ks))
            values.append(volume.read_plane(k))
        return cls(ks=tuple(ks), padding=padding, stored=None, values=values)

    @property
    def coloured(self) -> bool:
        """Whether they are colours, which have no window."""
        return bool(self.values) and self.values[0].ndim == 3

    def coarse(self) -> list[NDArray[np.float32]]:
        """Every 4th pixel of every 4th row, for `body.body_rule`.

        Padding is no number, colours are their mean. Costs the decoding of whole planes: no codec in
        use gives a coarse picture that is exact.
        """
        return [self._counted(n, slice(None, None, STEP)) for n in range(len(self.ks))]

    def extremes(self) -> list[tuple[float, float]]:
        """The lowest and the highest value of each plane, without padding; 0 and 0 where there is none."""
        found = []
        for n in range(len(self.ks)):
            one = self._counted(n, slice(None))
            one = one[np.isfinite(one)]
            found.append((float(one.min()), float(one.max())) if one.size else (0.0, 0.0))
        return found

    def _counted(self, n: int, part: slice) -> NDArray[np.float32]:
        """Values of some rows and the same columns of a plane."""
        if self.stored is not None:
            values = self.stored.tables[n][self.stored.raw[n, part, part]]
        else:
            values = np.asarray(self.values[n][part, part], np.float32)
        if values.ndim == 3:
            values = values.mean(axis=-1)
        padding = self.padding[n]
        return values if padding is None else np.where(counted(values, padding), values, np.float32(np.nan))

    def pictures(
        self, ns: Sequence[int], windows: Sequence[Sequence[Window]], framing: Framing
    ) -> NDArray[np.uint8]:
        """Pictures of some of these planes, all of one shape.

        Args:
            ns: Which of these planes, counted from 0.
            windows: For each of them, or once for all: one window, or three for red, green and blue; padding
                is black whatever they say. Not looked at for colours.
            framing: How they are cropped, resized and padded.

        Returns:
            Shape (pictures, *framing.canvas), or (pictures, *framing.canvas, 3) for three windows or colours.
        """
        if self.coloured:
            kept = [np.asarray(self.values[n][framing.crop.part], np.uint8) for n in ns]
            return framing.lay(resize_stack(np.stack(kept), framing.shape))
        shown = self._padded(ns, windows)
        if self.stored is not None:
            every = list(ns) == list(range(len(self.ks)))
            raw = self.stored.raw if every else self.stored.raw[list(ns)]
            tables = tuple(self.stored.tables[n] for n in ns)
            part = replace(self.stored, raw=raw[:, *framing.crop.part], tables=tables)
            return framing.lay(render(part, shown, framing.shape))
        levels = []
        for n, channels in zip(ns, shown, strict=True):
            values = np.asarray(self.values[n][framing.crop.part], np.float32)
            grey = [window(values) for window in channels]
            levels.append(grey[0] if len(grey) == 1 else np.stack(grey, axis=-1))
        return framing.lay(resize_stack(np.stack(levels), framing.shape))

    def _padded(self, ns: Sequence[int], windows: Sequence[Sequence[Window]]) -> list[Sequence[Window]]:
        """The windows of each plane, with padding black; the same objects for planes that share them."""
        per_plane = windows if len(windows) == len(ns) else [windows[0]] * len(ns)
        made: dict[tuple[Window, tuple[float, float]], Window] = {}
        shown: list[Sequence[Window]] = []
        for n, channels in zip(ns, per_plane, strict=True):
            padding = self.padding[n]
            if padding is None:
                shown.append(channels)
            else:
                shown.append(
                    [made.setdefault((one, padding), Padded(grey=one, padding=padding)) for one in channels]
                )
        return shown
