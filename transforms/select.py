"""Which slices of a volume are shown: by number, evenly, by millimetres, around a place, where the body is.

A selector is a function of a volume and of how many slices there may be. It gives slices in rising order,
none twice. All but `body` look at places only and decode nothing. In a plan a selector is named `NAME` or
`NAME:ARGUMENT`; a name from outside is an entry point in the group `medmllm.selectors`: a function that
takes the argument (or the empty string) and returns a selector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import GeometryError, MedMLLMError, SettingsError
from medmllm_plugin.geometry import apply, unit_normal
from medmllm_plugin.transforms.body import body_rule
from medmllm_plugin.transforms.planes import Planes
from medmllm_plugin.volume import Volume

GROUP = "medmllm.selectors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Slices of a volume."""

    chosen: tuple[int, ...]
    """Indices from 0, rising, none twice, at least one."""
    words: str
    """How they were chosen, as it goes into the plan after `5 of 60 slices, `."""


class Selector(Protocol):
    """Chooses slices."""

    def __call__(self, volume: Volume, count: int) -> Choice:
        """At most `count` slices of the volume, from 1.

        Raises:
            GeometryError: If it needs places that the volume doesn't have.
        """


def evenly(total: int, count: int) -> list[int]:
    """Indices of `count` slices of `total`, evenly spaced, both ends included; all if there are fewer.

    >>> evenly(9, 3), evenly(2, 5), evenly(9, 1)
    ([0, 4, 8], [0, 1], [4])
    """
    if total < 1 or count < 1:
        raise ValueError(f"slices are counted from 1, got {count} of {total}")
    if count == 1:
        return [(total - 1) // 2]
    return sorted({round(k) for k in np.linspace(0, total - 1, min(count, total)).tolist()})


def every(positions: NDArray[np.float64], step: float) -> list[int]:
    """Indices of the slices nearest to first, first + step, first + 2 · step and so on, in mm.

    Where a gap is wider than the step, the slices beside it are taken once each.

    Args:
        positions: Shape (n,), rising, mm along the normal.
        step: Above 0.

    >>> every(np.array([0.0, 1, 2, 3, 10, 11]), 2)
    [0, 2, 3, 4]
    """
    steps = int((positions[-1] - positions[0] + _TOLERANCE) / step)
    targets = positions[0] + step * np.arange(steps + 1)
    halfway = (positions[1:] + positions[:-1]) / 2
    return [int(k) for k in np.unique(np.searchsorted(halfway, targets))]


_TOLERANCE = 1e-6
"""Rounding that may not lose the last slice, mm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evenly:
    """Evenly by number, both ends included."""

    def __call__(self, volume: Volume, count: int) -> Choice:
        """As `Selector` has it."""
        return Choice(chosen=tuple(evenly(len(volume), count)), words="evenly spaced")


@dataclass(frozen=True, kw_only=True, slots=True)
class Every:
    """Every so many millimetres along the normal, from the first slice on; right where gaps are uneven."""

    mm: float

    def __call__(self, volume: Volume, count: int) -> Choice:
        """As `Selector` has it; the step is widened where there would be more slices than `count`."""
        positions, _ = rising_positions(volume)
        chosen = every(positions, self.mm)
        if len(chosen) <= count:
            return Choice(chosen=tuple(chosen), words=f"every {self.mm:g} mm")
        if count == 1:
            middle = (positions[0] + positions[-1]) / 2
            nearest = int(np.argmin(np.abs(positions - middle)))
            return Choice(chosen=(nearest,), words="the middle one, as only one is shown")
        step = float(positions[-1] - positions[0]) / (count - 1)
        words = f"every {self.mm:g} mm would be {len(chosen)} slices and at most {count} are shown"
        return Choice(chosen=tuple(every(positions, step)), words=f"every {step:.1f} mm, as {words}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """Slices around a point or through a box in the patient."""

    low: tuple[float, float, float]
    """Lowest corner of the box, LPS mm."""
    high: tuple[float, float, float]
    """Highest corner, LPS mm; the same as `low` for a point."""

    def __call__(self, volume: Volume, count: int) -> Choice:
        """As `Selector` has it: the slices nearest to a point; those through a box, evenly if too many."""
        positions, normal = rising_positions(volume)
        corners = np.array(np.meshgrid(*zip(self.low, self.high, strict=True))).reshape(3, -1).T
        along = corners @ normal
        middle = float(along.min() + along.max()) / 2
        nearest = int(np.argmin(np.abs(positions - middle)))
        self._inside(volume, positions, nearest)
        if self.low == self.high:
            order = np.argsort(np.abs(positions - middle), kind="stable")[:count]
            words = f"nearest to the point {_mm(self.low)}"
            return Choice(chosen=tuple(sorted(int(k) for k in order)), words=words)
        through = np.flatnonzero((positions >= along.min()) & (positions <= along.max()))
        inside = [int(k) for k in through] or [nearest]
        return Choice(
            chosen=tuple(inside[n] for n in evenly(len(inside), count)),
            words=f"through the box {_mm(self.low)} to {_mm(self.high)}",
        )

    def _inside(self, volume: Volume, positions: NDArray[np.float64], nearest: int) -> None:
        """Refuse a place that the volume doesn't show: perhaps it was given in another frame."""
        plane = volume.planes[nearest]
        assert plane.to_patient is not None
        center = (np.asarray(self.low) + np.asarray(self.high)) / 2
        column, row, off = apply(np.linalg.inv(plane.to_patient), center)
        gap = float(np.diff(positions).max(initial=0)) or 10.0
        if -0.5 <= column <= plane.columns - 0.5 and -0.5 <= row <= plane.rows - 0.5 and abs(off) <= gap:
            return
        corners = np.concatenate([_corners(volume, k) for k in (0, len(volume) - 1)])
        raise GeometryError(
            f"the place {_mm(tuple(center))} lies outside of the images, which reach from "
            f"{_mm(tuple(corners.min(axis=0)))} to {_mm(tuple(corners.max(axis=0)))}; give LPS millimetres "
            "(x to the patient's left, y to the back, z to the head)"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """The slices that a person names."""

    numbers: tuple[int, ...]
    """From 1, in the order of the volume, rising, none twice."""

    def __call__(self, volume: Volume, count: int) -> Choice:
        """As `Selector` has it.

        Raises:
            SettingsError: If the volume has no such slice, or more are named than may be shown.
        """
        if self.numbers[-1] > len(volume):
            raise SettingsError(
                f"slice {self.numbers[-1]} was asked for, expected 1 to {len(volume)}; "
                "give numbers that are there"
            )
        if len(self.numbers) > count:
            raise SettingsError(
                f"{len(self.numbers)} slices were named, but at most {count} are shown; "
                "name fewer or raise the count"
            )
        return Choice(chosen=tuple(n - 1 for n in self.numbers), words="by number")


_PROBES = 16
"""How many slices are looked at first to find where the body begins and ends."""
_SHARE = 0.05
"""A slice shows the body if its part of body pixels is at least this much of that in the fullest slice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """Evenly over the slices that show the body: empty ones at both ends and between are left out.

    Sixteen slices are looked at and then about four at each end: that many more are decoded.
    """

    def __call__(self, volume: Volume, count: int) -> Choice:
        """As `Selector` has it; all slices count if none shows a body."""
        total = len(volume)
        probes = evenly(total, _PROBES)
        samples = Planes.read(volume, probes).coarse()
        rule = body_rule(samples, unit=volume.unit)
        shares = {k: float(rule(one).mean()) for k, one in zip(probes, samples, strict=True)}
        least = max(_SHARE * max(shares.values()), 1e-9)

        def shows(k: int) -> bool:
            if k not in shares:
                shares[k] = float(rule(Planes.read(volume, [k]).coarse()[0]).mean())
            return shares[k] >= least

        full = [k for k in probes if shows(k)]
        if not full:
            return Choice(chosen=tuple(evenly(total, count)), words="evenly spaced, as no slice shows a body")
        first = _edge(shows, [k for k in probes if k < full[0]][-1:], full[0])
        last = _edge(shows, [k for k in probes if k > full[-1]][:1], full[-1])
        inside = [k for k in range(first, last + 1) if shares.get(k, least) >= least]
        words = f"evenly over slices {first + 1} to {last + 1}, which show the body ({len(shares)} looked at)"
        return Choice(chosen=tuple(inside[n] for n in evenly(len(inside), count)), words=words)


def _edge(shows: Callable[[int], bool], empty: Sequence[int], full: int) -> int:
    """The outermost slice that shows the body between an empty one, if there is one, and a full one."""
    if not empty:
        return full
    out = empty[0]
    while abs(full - out) > 1:
        middle = (full + out) // 2
        if shows(middle):
            full = middle
        else:
            out = middle
    return full


def rising_positions(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each slice lies along the normal, mm, rising, shape (slices,); and that unit normal, shape (3,).

    Raises:
        GeometryError: If the slices have no place, or don't follow each other along their normal.
    """
    matrices = [plane.to_patient for plane in volume.planes]
    placed = [matrix for matrix in matrices if matrix is not None]
    if len(placed) < len(matrices):
        raise GeometryError(
            f"these {volume.study.modality} images have no place in the patient, so slices can't be chosen "
            "by millimetres; choose them evenly or by number"
        )
    normal = unit_normal(placed[0])
    positions = np.array([matrix[:3, 3] for matrix in placed]) @ normal
    if positions[0] > positions[-1]:
        positions, normal = -positions, -normal
    if np.any(np.diff(positions) <= 0):
        raise GeometryError(
            "several slices lie at one place (a time series), so slices can't be chosen by millimetres; "
            "choose them evenly or by number"
        )
    return positions, normal


def _corners(volume: Volume, k: int) -> NDArray[np.float64]:
    plane = volume.planes[k]
    assert plane.to_patient is not None
    right, bottom = plane.columns - 0.5, plane.rows - 0.5
    edges = [(-0.5, -0.5, 0), (right, -0.5, 0), (-0.5, bottom, 0), (right, bottom, 0)]
    return apply(plane.to_patient, edges)


def _mm(point: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.1f}" for value in point) + ")"


def selector(spec: str) -> Selector:
    """The selector that a plan names.

    Args:
        spec: `evenly`; `every:5` (mm); `around:12/-30/55` (LPS mm) or `around:0/-50/40/30/-10/60` (lowest and
            highest corner of a box); `numbers:1/5/9-12`; `body`; or one from outside.

    Raises:
        SettingsError: If there is no such selector, or it can't take this argument.

    >>> selector("numbers:3/1-2")
    Numbers(numbers=(1, 2, 3))
    """
    name, colon, argument = spec.partition(":")
    maker = SELECTORS.get(name)
    if maker is None:
        return _from_outside(name, argument)
    if bool(colon) != (name in _TAKES):
        raise SettingsError(f"selection {spec!r}: expected {_TAKES.get(name, name)!r}")
    try:
        return maker(argument)
    except ValueError as error:
        raise SettingsError(f"selection {spec!r}: {error}; expected {_TAKES[name]!r}") from None


def _every(argument: str) -> Selector:
    mm = float(argument)
    if not 0.01 <= mm <= 1000:
        raise ValueError("the step is not from 0.01 to 1000 mm")
    return Every(mm=mm)


def _around(argument: str) -> Selector:
    low, high = corners_of(argument)
    return Around(low=low, high=high)


def corners_of(argument: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The lowest and the highest corner of `X/Y/Z` or `X/Y/Z/X/Y/Z`, LPS mm.

    Raises:
        ValueError: If it is none of these.
    """
    values = [float(one) for one in argument.split("/")]
    if len(values) not in (3, 6):
        raise ValueError(f"{len(values)} numbers")
    if not np.isfinite(values).all():
        raise ValueError("a number is not finite")
    return sorted_corners(values[:3], values[-3:])


def sorted_corners(
    one: Sequence[float], other: Sequence[float]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """The lowest and the highest corner of a box that two of its corners span."""
    (x, u), (y, v), (z, w) = (sorted(pair) for pair in zip(one, other, strict=True))
    return (x, y, z), (u, v, w)


def _numbers(argument: str) -> Selector:
    found: set[int] = set()
    for part in argument.split("/"):
        first, _, last = part.partition("-")
        run = range(int(first), int(last or first) + 1)
        if not run or run[0] < 1 or run[-1] > 100_000:
            raise ValueError(f"{part!r} is no slice or run of slices, counted from 1")
        found.update(run)
    return Numbers(numbers=tuple(sorted(found)))


SELECTORS: dict[str, Callable[[str], Selector]] = {
    "evenly": lambda argument: Evenly(),
    "every": _every,
    "around": _around,
    "numbers": _numbers,
    "body": lambda argument: Body(),
}
"""What makes a selector of its argument, by name."""

_TAKES = {
    "every": "every:MM",
    "around": "around:X/Y/Z or around:X/Y/Z/X/Y/Z",
    "numbers": "numbers:1/5/9-12",
}


def _from_outside(name: str, argument: str) -> Selector:
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=GROUP, name=name), key=lambda entry: entry.value)
    if not found:
        raise SettingsError(f"no selection is named {name!r}; there are: {', '.join(SELECTORS)}")
    try:
        made: Selector = found[0].load()(argument)
    except MedMLLMError:
        raise
    except Exception as error:
        raise SettingsError(
            f"selection {name!r}: its package can't make it ({type(error).__name__}: {error}); "
            "correct the argument or install that package again"
        ) from error
    return made


def checked(choice: Choice, volume: Volume, count: int) -> Choice:
    """A choice that keeps the contract.

    Raises:
        SettingsError: If it doesn't: a selector from outside is at fault.
    """
    chosen = choice.chosen
    rises = all(a < b for a, b in pairwise(chosen))
    if not chosen or not rises or chosen[0] < 0 or chosen[-1] >= len(volume) or len(chosen) > count:
        raise SettingsError(
            f"the selection gave slices {list(chosen)[:8]}, expected 1 to {count} rising indices below "
            f"{len(volume)}; correct the selector"
        )
    return choice
