"""Chosen planes of a volume in memory, and pictures of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.transforms.body import STEP
from medmllm_plugin.transforms.crop import Framing
from medmllm_plugin.transforms.render import Levels, Window, render, render_lying
from medmllm_plugin.transforms.resize import resize_stack
from medmllm_plugin.transforms.threads import in_parts
from medmllm_plugin.transforms.voi import Padded, counted
from medmllm_plugin.volume import InFiles, Stored, Volume

_AT_A_TIME = 4
"""Planes that are read and drawn together: as many as lie in the cache of a processor."""


def _drawn(
    values: Sequence[NDArray[np.float32] | NDArray[np.uint8]],
    shown: Sequence[Sequence[Window]],
    framing: Framing,
) -> NDArray[np.uint8]:
    """Pictures of modality values."""
    levels = []
    for one, channels in zip(values, shown, strict=True):
        kept = np.asarray(one[framing.crop.part], np.float32)
        grey = [window(kept) for window in channels]
        levels.append(grey[0] if len(grey) == 1 else np.stack(grey, axis=-1))
    return resize_stack(np.stack(levels), framing.shape)


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
    unread: Volume | None = None
    """Where neither: the volume, whose planes are stored and are read when they are drawn."""

    @classmethod
    def read(
        cls,
        volume: Volume,
        ks: Sequence[int],
        *,
        keep: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Planes:
        """Read planes.

        Args:
            volume: Any volume.
            ks: Which of its planes.
            keep: False for planes that are drawn once and looked at in no other way: they may be read when
                they are drawn, a few at a time, which takes less memory and time.
            progress: Called with (planes read, planes in all).

        Raises:
            StudyError: If one can't be decoded.
        """
        tell = progress or (lambda done, total: None)
        tell(0, len(ks))
        padding = tuple(volume.planes[k].padding for k in ks)
        apart = not keep and not volume.compressed and len(ks) > _AT_A_TIME
        if apart and (isinstance(volume.read_stored, InFiles) or volume.read_stored(ks[:1]) is not None):
            return cls(ks=tuple(ks), padding=padding, stored=None, unread=volume)
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
        if self.unread is not None:
            values = np.asarray(self.unread.read_plane(self.ks[n])[part, part], np.float32)
        elif self.stored is not None:
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
        if self.unread is not None:
            return framing.lay(self._read_and_drawn(self.unread, ns, shown, framing))
        if self.stored is not None:
            every = list(ns) == list(range(len(self.ks)))
            raw = self.stored.raw if every else self.stored.raw[list(ns)]
            tables = tuple(self.stored.tables[n] for n in ns)
            part = replace(self.stored, raw=raw[:, *framing.crop.part], tables=tables)
            return framing.lay(render(part, shown, framing.shape))
        return framing.lay(_drawn([self.values[n] for n in ns], shown, framing))

    def _read_and_drawn(
        self, volume: Volume, ns: Sequence[int], shown: Sequence[Sequence[Window]], framing: Framing
    ) -> NDArray[np.uint8]:
        """Pictures of planes that are read a few at a time, side by side, while they lie in the cache."""
        channels = (3,) if len(shown[0]) == 3 else ()
        out = np.empty((len(ns), *framing.shape, *channels), np.uint8)
        known: Levels = {}
        read = volume.read_stored

        def drawn_as_they_lie(start: int, stop: int) -> int:
            if not isinstance(read, InFiles):
                return start
            lying = read.lying([self.ks[n] for n in ns[start:stop]])
            if (framing.crop.rows, framing.crop.columns) != (lying.rows, lying.columns):
                return start
            return start + render_lying(lying, shown[start:stop], known=known, out=out[start:stop])

        def part(start: int, stop: int) -> None:
            for first in range(drawn_as_they_lie(start, stop), stop, _AT_A_TIME):
                these = slice(first, min(stop, first + _AT_A_TIME))
                ks = [self.ks[n] for n in ns[these]]
                stored = volume.read_stored(ks)
                if stored is None:
                    out[these] = _drawn([volume.read_plane(k) for k in ks], shown[these], framing)
                    continue
                cut = replace(stored, raw=stored.raw[:, *framing.crop.part])
                render(cut, shown[these], framing.shape, known=known, out=out[these])

        in_parts(part, len(ns), least=_AT_A_TIME)
        return out

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
