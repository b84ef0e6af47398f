"""How the values of one volume become grey levels: the windows that a plan names, with what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.source import DicomImage, Tile
from medmllm_plugin.transforms.attributes import items, text
from medmllm_plugin.transforms.body import body_rule
from medmllm_plugin.transforms.planes import Planes
from medmllm_plugin.transforms.render import Window
from medmllm_plugin.transforms.voi import Grey, Voi, vois_of
from medmllm_plugin.transforms.window import OTHERS, PRESETS, Ramp, of_body_part, preset
from medmllm_plugin.volume import Volume

PERCENTILES = (0.5, 99.5)

HIGHEST_SUV = 10
"""Shown black: most of what is normal and most of what is not lies below."""

_LEAST = 0.01
"""Where less of the values is body than this, all values are taken."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Look:
    """One way in which slices are shown."""

    windows: tuple[tuple[Window, ...], ...]
    """For each slice, or once for all: one window for a grey picture, three for red, green and blue."""
    words: str
    """The recipe, with its numbers: `Slice.window`."""

    def of(self, n: int) -> tuple[Window, ...]:
        """The windows of slice n of those shown."""
        return self.windows[n if len(self.windows) > 1 else 0]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Samples:
    """Values of a volume to take percentiles of."""

    values: Sequence[NDArray[np.float32]]
    """Coarse slices, each (rows, columns)."""
    words: str
    """What they are, such as `the slices shown`."""


def window_names(setting: str | None, volume: Volume) -> tuple[tuple[str, ...], str]:
    """The windows of a plan for this volume, one for each picture of a slice; and why, where it was a guess.

    Args:
        setting: As `SlicePlan.window`.
        volume: Only its modality, unit and places are looked at, and for `auto` a header.
    """
    if setting not in (None, "auto"):
        return tuple(str(setting).split("+")), ""
    if volume.study.modality == "CT" and volume.unit == "HU":
        part = text(volume.headers[0], "BodyPartExamined") if volume.headers else ""
        hinted = of_body_part(part) if setting == "auto" else None
        if hinted is None:
            return ("ct",), ""
        said = "".join(filter(str.isalnum, part)).upper()
        return (hinted,), f"chosen by Body Part Examined (0018,0015), which says {said}"
    if volume.unit.startswith("SUV"):
        return ("suv",), ""
    return ("header" if volume.planes[0].to_patient is None else "body",), ""


def of_values(name: str) -> bool:
    """Whether a window depends on the values of the slices shown, rather than on its name or a header."""
    return name.partition(":")[0] not in {*PRESETS, "header", "suv"}


def check_names(setting: str) -> None:
    """Refuse a window setting that names what isn't there.

    Raises:
        SettingsError: If a name is unknown, or more is wrong with it.
    """
    for name in setting.split("+"):
        head, colon, number = name.partition(":")
        if head not in OTHERS:
            preset(head)
        if colon and not (head == "header" and number.isdigit() and 1 <= int(number) <= 99):
            raise SettingsError(f"the window {name!r} is not one; only header takes a number, as in header:2")
        if head == "auto" and setting != "auto":
            raise SettingsError(f"the window {setting!r}: auto can't be joined with others; name them all")


def look(name: str, volume: Volume, shown: Planes, samples: Callable[[], Samples]) -> Look:
    """One window of a plan for the slices that are shown.

    Args:
        name: A single name, not `auto`.
        volume: The volume.
        shown: The slices, read.
        samples: Gives values to take percentiles of.

    Raises:
        SettingsError: If a CT preset is asked for values that are not Hounsfield units, or for a window of
            the header that isn't there.
    """
    head, _, number = name.partition(":")
    if head in PRESETS:
        if volume.unit != "HU":
            raise SettingsError(
                f"the window {head!r} needs Hounsfield units, but these {volume.study.modality} values "
                f"have {'unit ' + volume.unit if volume.unit else 'none'}; use --window percentile"
            )
        return Look(windows=(PRESETS[head].ramps,), words=PRESETS[head].words)
    if head == "header":
        shows = header_vois(volume, shown.ks, int(number or 1))
        if shows is not None:
            alike = len({voi.words for voi in shows}) == 1
            words = shows[0].words if alike else "window of each image's own header"
            return Look(windows=tuple((voi.grey,) for voi in shows), words=words)
        if number:
            raise SettingsError(
                f"window number {number} of the header was asked for, but not every image has as many; "
                "use --window header or percentile"
            )
    if head == "suv":
        if not volume.unit.startswith("SUV"):
            raise SettingsError(
                f"the window 'suv' needs PET in SUV, but these {volume.study.modality} values "
                f"have {'unit ' + volume.unit if volume.unit else 'none'}; use --window percentile"
            )
        ramp = Ramp.of_range(0, HIGHEST_SUV, inverted=not volume.inverted)
        return Look(windows=((ramp,),), words=f"SUV 0 (white) to {HIGHEST_SUV} (black)")
    if head == "slice-range":
        ranges = [Ramp.of_range(*ends, inverted=volume.inverted) for ends in shown.extremes()]
        words = "grey levels of each slice from its own lowest to its own highest value"
        return Look(windows=tuple((ramp,) for ramp in ranges), words=words)
    return _of_percentiles(samples(), unit=volume.unit, inverted=volume.inverted, body=head == "body")


def _of_percentiles(samples: Samples, *, unit: str, inverted: bool, body: bool) -> Look:
    values = np.concatenate([one.ravel() for one in samples.values])
    values, words = values[np.isfinite(values)], samples.words
    if body:
        inside = values[body_rule(samples.values, unit=unit)(values)]
        if len(inside) >= _LEAST * len(values) and len(inside) and inside.max() > inside.min():
            values, words = inside, f"the body in {words}"
    low, high = (float(v) for v in np.percentile(values, PERCENTILES)) if len(values) else (0.0, 0.0)
    ends = f"from percentile {PERCENTILES[0]} ({low:g}) to {PERCENTILES[1]} ({high:g})"
    return Look(
        windows=((Ramp.of_range(low, high, inverted=inverted),),), words=f"grey levels {ends} of {words}"
    )


def header_vois(volume: Volume, ks: Sequence[int], number: int) -> list[Voi] | None:
    """How the headers of planes `ks` show their values, a table or a window; None if not all do.

    Args:
        volume: The volume.
        ks: Which planes.
        number: Which way of showing, from 1, where a header offers several.
    """
    found: dict[Grey, Grey] = {}
    vois = []
    for sources, window in _sources(volume, ks):
        offered = vois_of(sources, inverted=volume.inverted)
        if not sources and window is not None:
            center, width = window
            ramp = Ramp.of_window(center, max(width, 1), inverted=volume.inverted)
            offered = (Voi(grey=ramp, words="window of the header"),)
        if len(offered) < number:
            return None
        one = offered[number - 1]
        # one function for all slices with the same window: its table is made once
        vois.append(replace(one, grey=found.setdefault(one.grey, one.grey)))
    return vois


def _sources(volume: Volume, ks: Sequence[int]) -> Iterator[tuple[list[Dataset], tuple[float, float] | None]]:
    """For each plane where its header may say how it is shown, the nearest first; and its first window."""
    alone = len(volume.headers) == len(volume)
    by_uid = {} if alone else {text(header, "SOPInstanceUID"): header for header in volume.headers}
    for k in ks:
        plane = volume.planes[k]
        yield [volume.headers[k]] if alone else _groups(by_uid, plane.source), plane.window


def _groups(by_uid: dict[str, Dataset], source: object) -> list[Dataset]:
    image = source.sheet if isinstance(source, Tile) else source
    if not isinstance(image, DicomImage) or image.sop_instance_uid not in by_uid:
        return []
    header = by_uid[image.sop_instance_uid]
    frame = (image.frame or 1) - 1
    groups = items(header, "PerFrameFunctionalGroupsSequence")[frame : frame + 1]
    groups += items(header, "SharedFunctionalGroupsSequence")
    return [*(item for group in groups for item in items(group, "FrameVOILUTSequence")), header]
