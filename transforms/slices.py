"""From a volume to the pictures that a model is shown, and the way back kept exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medmllm_plugin.errors import GeometryError, SettingsError
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.transforms.body import body_rule
from medmllm_plugin.transforms.budget import USUAL, Budget
from medmllm_plugin.transforms.crop import PATCH, Crop, Framing, body_crop, box_crop, picture_to_patient
from medmllm_plugin.transforms.labels import BAND, labelled
from medmllm_plugin.transforms.looks import Look, Samples, check_names, look, of_values, window_names
from medmllm_plugin.transforms.montage import Layout
from medmllm_plugin.transforms.planes import Planes
from medmllm_plugin.transforms.render import shown as grey_pictures
from medmllm_plugin.transforms.select import Choice, checked, corners_of, evenly, selector
from medmllm_plugin.volume import Plane, Volume

MAX_SIZE = 4096
MAX_COUNT = 512

PLANES = ("axial", "coronal", "sagittal")
PROJECTIONS = ("max", "mean", "min")

_SAMPLED = 12
"""How many slices the percentiles of a volume are taken of, where those shown are only a part of it."""
_SPANS = 0.8
"""Slices that span this part of a volume stand for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlicePlan:
    """How pictures are chosen and made: which slices, which windows, which part, how large.

    The defaults show 24 slices, evenly spaced, whole, with a longer side of 448 px.

    Raises:
        SettingsError: If a setting is out of its range.
    """

    count: int | None = 24
    """Most pictures; fewer if the volume has fewer slices. None for as many as `tokens` allow."""
    size: int | None = 448
    """Longer side of a picture, px; sides are rounded to multiples of `multiple`. The true aspect (mm) is
    kept. None for as large as `tokens` allow, up to the image's own size. With `montage` that of all slices
    of a picture together."""
    window: str | None = None
    """A preset of `window.PRESETS` for CT, or a name of `window.OTHERS`; several joined by `+` give one
    picture each of every slice. None picks by modality."""
    select: str = "evenly"
    """Which slices: what `select.selector` takes."""
    plane: str | None = None
    """`axial`, `coronal` or `sagittal` resamples the volume in that plane; None shows its own slices."""
    slab_mm: float | None = None
    """Thickness of slabs that neighbouring slices are joined to, mm; None for none."""
    slab: str = "max"
    """How slices become a slab: `max` (MIP), `mean` or `min`."""
    crop: bool = False
    """Whether rows and columns without body are cut off, the same for all slices."""
    part: str | None = None
    """Two corners of a box in the patient, `X/Y/Z/X/Y/Z` in LPS mm: rows and columns without any of it are
    cut off; None for none. Which slices are shown is said by `select`."""
    square: bool = False
    """Whether pictures are padded to squares with black."""
    labels: bool = False
    """Whether each picture gets a black band with side letters and the slice's number; never on the image."""
    multiple: int = PATCH
    """Sides of pictures are multiples of this: 28 for Qwen2.5-VL, 32 for Qwen3-VL and RadFM."""
    tokens: int | None = None
    """Most tokens of all pictures together, each of rows · columns / multiple²; sizes shrink to 252 px, then
    fewer slices are shown. None for no limit."""
    zoom: str | None = None
    """Which slices are shown larger, as `select`; None for none."""
    zoom_count: int = 8
    """How many of the pictures `zoom` makes larger."""
    zoom_size: int = 504
    """Longer side of the larger pictures, px."""
    montage: str | None = None
    """Rows x columns of slices that share a picture, such as `3x3`; `count` and `tokens` then count such
    pictures. None for a picture of each slice."""

    def __post_init__(self) -> None:
        if self.count is not None and not 1 <= self.count <= MAX_COUNT:
            raise SettingsError(f"the number of slices is {self.count}, expected 1 to {MAX_COUNT}")
        if self.size is not None and not PATCH <= self.size <= MAX_SIZE:
            raise SettingsError(f"the picture size is {self.size} px, expected {PATCH} to {MAX_SIZE}")
        if self.tokens is None and self.count is None:
            raise SettingsError("the number of slices is free, but no limit of tokens is given; give either")
        if self.tokens is not None and self.tokens < 1:
            raise SettingsError(f"the plan allows {self.tokens} tokens, expected at least 1")
        if not 1 <= self.multiple <= 64:
            raise SettingsError(f"picture sides are multiples of {self.multiple} px, expected 1 to 64")
        if self.labels and self.size is not None and self.size < 4 * PATCH:
            raise SettingsError(
                f"labels need pictures of {4 * PATCH} px or more, but the size is {self.size}"
            )
        if self.window is not None:
            check_names(self.window)
        if self.plane is not None and self.plane not in PLANES:
            raise SettingsError(f"the plane is {self.plane!r}, expected one of {', '.join(PLANES)}")
        if self.slab not in PROJECTIONS:
            raise SettingsError(
                f"slabs are joined by {self.slab!r}, expected one of {', '.join(PROJECTIONS)}"
            )
        if self.slab_mm is not None and not 0 < self.slab_mm <= 1000:
            raise SettingsError(f"slabs are {self.slab_mm} mm thick, expected above 0 to 1000")
        if self.zoom is not None and not (
            1 <= self.zoom_count < (self.count or MAX_COUNT) and PATCH <= self.zoom_size <= MAX_SIZE
        ):
            raise SettingsError(
                f"{self.zoom_count} pictures of {self.zoom_size} px are zoomed, expected fewer than all "
                f"pictures and {PATCH} to {MAX_SIZE} px"
            )
        if self.part is not None:
            _corners(self.part)
        if self.montage is not None and self.zoom is not None:
            raise SettingsError("slices of a montage are of one size, but some are zoomed; leave out either")
        selector(self.select)
        if self.zoom is not None:
            selector(self.zoom)
        self._layout()

    def apply(self, volume: Volume, *, progress: Callable[[int, int], None] | None = None) -> SliceSet:
        """The pictures of a volume; only the chosen slices are decoded, and what `select=body` looks at.

        Args:
            volume: Any volume.
            progress: Called with (slices read, slices in all).

        Raises:
            StudyError: If a chosen slice can't be decoded.
            GeometryError: If places are asked for that the volume doesn't have or show.
            SettingsError: If a CT preset is asked for values that are not Hounsfield units, or the pictures
                can't fit.
        """
        volume = self.cut(volume)
        names, why = window_names(self.window, volume)
        budget, first = self._budget(), volume.planes[0]
        most = budget.most(first, available=len(volume) * len(names)) // len(names)
        if most < 1:
            raise SettingsError(
                f"{len(names)} windows make as many pictures of each slice, but fewer are allowed; "
                "raise the count or the tokens, or name fewer windows"
            )
        choice, zoomed = self._choose(volume, most)
        keep = self.crop or bool(zoomed) or len(names) > 1 or any(map(of_values, names))
        planes = Planes.read(volume, choice.chosen, keep=keep, progress=progress)
        looks = _looks(names, volume, planes)
        crop = self._crop(volume, planes)
        count = len(choice.chosen) * len(looks)
        if budget.montage is not None:
            budget = replace(budget, montage=budget.montage.holding(count))
        size = budget.fit(first, slices=count, crop=crop)
        frames = _Frames(budget=budget, size=size, crop=crop, zoomed=zoomed)
        slices = _slices(volume, planes, looks, frames)
        if self.labels:
            numbers = [f"{k + 1}/{len(volume)}" for k in choice.chosen for _ in looks]
            slices = [
                replace(one, pixels=labelled(one.pixels, edges=one.edges, number=number))
                for one, number in zip(slices, numbers, strict=True)
            ]
        if budget.montage is not None:
            slices = budget.montage.lay(slices, multiple=self.multiple, square=self.square)
        shown = " and ".join(one.words for one in looks) + (f" ({why})" if why else "")
        return SliceSet(
            slices=tuple(slices),
            study=volume.study,
            plan=f"{len(choice.chosen)} of {len(volume)} slices, {choice.words}, "
            f"{self._framed(frames, first)}; {shown}",
            notes=volume.notes,
        )

    @property
    def usual_count(self) -> int:
        """Most pictures; where the tokens decide, those that fit them at 448 px."""
        if self.count is not None:
            return self.count
        assert self.tokens is not None
        layout = self._layout()
        side = USUAL if layout is None else USUAL * layout.side
        return max(1, min(MAX_COUNT, self.tokens * self.multiple**2 // side**2))

    def _layout(self) -> Layout | None:
        return None if self.montage is None else Layout.of(self.montage)

    def cut(self, volume: Volume) -> Volume:
        """The volume in the plane and the slabs that are asked for: what slices are chosen from."""
        if self.plane is None and self.slab_mm is None:
            return volume
        from medmllm_plugin.transforms.reformat import reformat, slabs

        if self.plane is not None:
            volume = reformat(volume, self.plane)
        return volume if self.slab_mm is None else slabs(volume, self.slab_mm, how=self.slab)

    def _budget(self) -> Budget:
        return Budget(
            count=self.count,
            size=self.size,
            tokens=self.tokens,
            multiple=self.multiple,
            square=self.square,
            band=BAND if self.labels else 0,
            zoom_count=self.zoom_count if self.zoom else 0,
            zoom_size=self.zoom_size if self.zoom else 0,
            montage=self._layout(),
        )

    def _choose(self, volume: Volume, count: int) -> tuple[Choice, frozenset[int]]:
        """The slices shown, and which of them larger."""
        if self.zoom is None or count < 2:
            return checked(selector(self.select)(volume, count), volume, count), frozenset()
        large = min(self.zoom_count, count - 1)
        close = checked(selector(self.zoom)(volume, large), volume, large)
        # a slice that both choose counts once, so there may be room for more than the rest
        for rest in (count, count - large // 2, count - large):
            wide = checked(selector(self.select)(volume, rest), volume, rest)
            chosen = tuple(sorted({*close.chosen, *wide.chosen}))
            if len(chosen) <= count:
                break
        words = f"{wide.words}; {len(close.chosen)} of them larger, {close.words}"
        return Choice(chosen=chosen, words=words), frozenset(close.chosen)

    def _crop(self, volume: Volume, planes: Planes) -> Crop | None:
        """The part that is asked for or that shows the body; None where nothing is cut off."""
        shown = [volume.planes[k] for k in planes.ks]
        if self.part is not None:
            if len({(plane.rows, plane.columns) for plane in shown}) > 1:
                raise GeometryError("a part is asked for of images that differ in size; show all of them")
            return box_crop(shown, *_corners(self.part))
        alike = len({(plane.rows, plane.columns) for plane in shown}) == 1
        if not self.crop or planes.coloured or shown[0].to_patient is None or not alike:
            return None
        samples = planes.coarse()
        crop = body_crop(samples, body_rule(samples, unit=volume.unit), shown[0])
        return None if (crop.rows, crop.columns) == (shown[0].rows, shown[0].columns) else crop

    def _framed(self, frames: _Frames, plane: Plane) -> str:
        """What became of the pictures' size, in words."""
        canvas, layout = frames.of(plane, zoomed=False).canvas, frames.budget.montage
        if layout is None:
            words = [f"longer side {max(canvas)} px"]
        else:
            side = max(layout.canvas(canvas, multiple=self.multiple, square=self.square))
            each = f"{layout.rows} x {layout.columns} in a picture, each {canvas[1]} x {canvas[0]} px"
            words = [f"{each}, longer side {side} px"]
        if frames.zoomed:
            words.append(f"the larger ones {max(frames.of(plane, zoomed=True).canvas)} px")
        if self.tokens is not None:
            words.append(f"to fit {self.tokens} tokens")
        if self.square:
            words.insert(0, "padded to squares")
        if self.crop or self.part:
            kept = frames.crop
            words.insert(0, "nothing cut off" if kept is None else f"cut to {kept.columns} x {kept.rows} px")
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frames:
    """How each slice becomes a picture."""

    budget: Budget
    size: int
    crop: Crop | None
    zoomed: frozenset[int]

    def of(self, plane: Plane, *, zoomed: bool) -> Framing:
        """The framing of a plane."""
        return self.budget.framings(plane, size=self.size, crop=self.crop)[zoomed]

    def groups(self, volume: Volume, ks: Sequence[int]) -> list[tuple[Framing, list[int]]]:
        """Framings, and for each which of the planes `ks`, counted from 0, have it."""
        alike: dict[tuple[int, int, tuple[float, float] | None, bool], list[int]] = {}
        for n, k in enumerate(ks):
            plane = volume.planes[k]
            alike.setdefault((plane.rows, plane.columns, plane.spacing, k in self.zoomed), []).append(n)
        return [(self.of(volume.planes[ks[ns[0]]], zoomed=key[3]), ns) for key, ns in alike.items()]


def _corners(part: str) -> tuple[Sequence[float], Sequence[float]]:
    try:
        return corners_of(part)
    except ValueError as error:
        raise SettingsError(
            f"the part is {part!r} ({error}), expected two corners of a box, X/Y/Z/X/Y/Z in LPS mm"
        ) from None


def _looks(names: Sequence[str], volume: Volume, planes: Planes) -> list[Look]:
    """How the slices are shown, one look for each picture of a slice."""
    if planes.coloured:
        return [Look(windows=((),), words="colours as stored")]
    spans = planes.ks[-1] - planes.ks[0] >= _SPANS * (len(volume) - 1)

    def samples() -> Samples:
        if spans:
            return Samples(values=planes.coarse(), words="the slices shown")
        some = evenly(len(volume), _SAMPLED)
        return Samples(
            values=Planes.read(volume, some).coarse(), words=f"{len(some)} slices of the whole volume"
        )

    return [look(name, volume, planes, samples) for name in names]


def _slices(volume: Volume, planes: Planes, looks: Sequence[Look], frames: _Frames) -> list[Slice]:
    """All pictures, in the order of the slices, and of each slice in the order of the looks.

    Pictures of one framing are drawn together, and share the matrix to their images.
    """
    made: dict[tuple[int, int], Slice] = {}
    for framing, ns in frames.groups(volume, planes.ks):
        to_source = framing.to_source
        shown = [volume.planes[planes.ks[n]] for n in ns]
        placed = [plane.to_patient for plane in shown if plane.to_patient is not None]
        to_patient = picture_to_patient(np.stack(placed), to_source) if len(placed) == len(shown) else None
        for number, one in enumerate(looks):
            drawn = planes.pictures(ns, [one.of(n) for n in ns], framing)
            coloured = drawn if drawn.ndim == 4 else grey_pictures(drawn)
            for i, (n, plane) in enumerate(zip(ns, shown, strict=True)):
                made[n, number] = Slice(
                    pixels=coloured[i],
                    source=plane.source,
                    source_shape=(plane.rows, plane.columns),
                    to_source=to_source,
                    to_patient=None if to_patient is None else to_patient[i],
                    window=one.words,
                    patient_orientation=plane.patient_orientation,
                )
    return [made[key] for key in sorted(made)]
