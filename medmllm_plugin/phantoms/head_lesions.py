"""Findings in a head: bleeding in and around the brain, a mass with oedema, a fracture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from medmllm_plugin.phantoms.head_parts import Palette
from medmllm_plugin.phantoms.sections import Section, Solid, Values, Vector, Window, paint
from medmllm_plugin.phantoms.texture import Folds


class Host(Protocol):
    """What a lesion needs to know of the head it is in."""

    @property
    def palette(self) -> Palette:
        """The value of each tissue."""
        ...

    @property
    def folds(self) -> Folds:
        """The pattern of the brain's folds."""
        ...

    @property
    def skull(self) -> float:
        """Thickness of the vault, mm."""
        ...

    @property
    def inner(self) -> float:
        """Depth of the inner table below the skin, mm."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadLesion(ABC):
    """One finding placed in a head."""

    finding: str
    site: str
    side: str
    severity: str | None
    sentence: str

    @abstractmethod
    def paint(
        self, head: Host, section: Section, values: Values, window: Window, deep: Values, brain: Values
    ) -> Values | None:
        """Draw it.

        Args:
            head: The head it is in.
            section: The plane, in the head's own frame.
            values: The image, shape (rows, columns); is changed.
            window: The part that has the head.
            deep: In that part, depth below the inner table, mm.
            brain: How much of each voxel is brain, shape (rows, columns).

        Returns:
            How much of each voxel it covers, shape (rows, columns); None if it doesn't meet the plane.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Focus(HeadLesion):
    """A body in the brain with oedema around it: a haematoma or a mass."""

    solid: Solid
    values: tuple[float, ...]
    """From the rim to the core: the value of each shell."""
    shells: tuple[float, ...]
    """Scale of each shell against the whole, the first 1."""
    halo: float
    """Scale of the oedema against the solid; 1 for none."""
    oedema: float
    """Its value."""
    roughness: float
    """How uneven its surface is; 0.3 is an irregular one."""

    def paint(
        self, head: Host, section: Section, values: Values, window: Window, deep: Values, brain: Values
    ) -> Values | None:
        """Draw it; see `HeadLesion.paint`."""
        reach = self.solid.scaled(max(self.halo, 1.0) * 1.35)
        near, _ = section.cover(reach)
        if not brain[near].size:
            return None
        wobble = np.zeros(section.shape, np.float32)
        wobble[near] = head.folds.at(section, near) * np.float32(self.roughness)
        if self.halo > 1:
            part, cover = section.cover(self.solid.scaled(self.halo), wobble=2.2 * wobble)
            paint(values, (part, 0.85 * cover * brain[part]), self.oedema)
        whole = None
        for scale, value in zip(self.shells, self.values, strict=True):
            part, cover = section.cover(self.solid.scaled(scale), wobble=wobble)
            cover = cover * brain[part]
            paint(values, (part, cover), value)
            if whole is None:
                whole = section.full((part, cover))
        return whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Collection(HeadLesion):
    """Blood between skull and brain: thickest at a point, thinner away from it."""

    center: Vector
    """The point of the inner table at its middle, mm."""
    thickness: float
    """At its middle, mm."""
    reach: float
    """How far it extends from there, mm."""
    lens: bool
    """True for the biconvex shape of an epidural haematoma, False for the crescent of a subdural one."""
    value: float

    def paint(
        self, head: Host, section: Section, values: Values, window: Window, deep: Values, brain: Values
    ) -> Values | None:
        """Draw it; see `HeadLesion.paint`."""
        x, y, z = (section.axis(n, window) for n in range(3))
        away = ((x - np.float32(self.center[0])) ** 2 + (y - np.float32(self.center[1])) ** 2) + (
            z - np.float32(self.center[2])
        ) ** 2
        near = 1 - away * np.float32(1 / self.reach**2)
        if not (near > 0).any():
            return None
        shape = np.clip(near, 0, 1) if self.lens else np.sqrt(np.clip(near, 0, 1))
        side = np.float32(1 if self.center[0] > 0 else -1)
        inner = np.float32(self.thickness) * shape
        width = np.float32(section.spacing[0] + 0.3 * section.thickness)
        cover = np.clip(0.5 + (inner - deep) / width, 0, 1) * np.clip(0.5 + deep / width, 0, 1)
        cover *= (near > 0) & (side * x > 2)
        cover *= section.beyond((0.0, -0.25, -1.0), 31.0, window)
        if not (cover > 0.01).any():
            return None
        squeezed = np.clip((inner + 4 - deep) / 4, 0, 1) * (cover < 0.5) * brain[window] * (inner > 2)
        paint(values, (window, 0.5 * squeezed), head.palette.grey)
        paint(values, (window, cover), self.value)
        return section.full((window, cover))


@dataclass(frozen=True, kw_only=True, eq=False)
class Fracture(HeadLesion):
    """A gap through the vault, with a swollen scalp over it."""

    center: Vector
    """Where it crosses the skull, mm."""
    normal: Vector
    """Unit normal of the plane of the gap."""
    gap: float
    """Width, mm."""
    reach: float
    """Half its length, mm."""
    swelling: float
    """Thickness of the haematoma under the scalp, mm."""

    def paint(
        self, head: Host, section: Section, values: Values, window: Window, deep: Values, brain: Values
    ) -> Values | None:
        """Draw it; what counts as the fracture is the bone within 4 mm of the gap."""
        part = section.around(self.center, (self.reach + 30,) * 3)
        if not values[part].size:
            return None
        inside = _within(part, window)
        depth = deep[inside]
        part = _whole(inside, window)
        x, y, z = (section.axis(n, part) - np.float32(self.center[n]) for n in range(3))
        away = np.sqrt(x * x + y * y + z * z)
        near = np.clip((np.float32(self.reach) - away) + 0.5, 0, 1)
        if not (near > 0.5).any():
            return None
        width = np.float32(section.spacing[0])
        swell = np.clip(1 - (away / np.float32(1.6 * self.reach + 12)) ** 2, 0, 1) * np.float32(self.swelling)
        skin = -np.float32(head.inner)
        bump = np.clip(0.5 + (depth - skin + swell) / width, 0, 1) * np.clip(
            0.5 - (depth - skin) / width, 0, 1
        )
        paint(values, (part, bump * (swell > 0.3)), head.palette.muscle + 12 * (head.palette.air < -500))
        off = np.abs(
            x * np.float32(self.normal[0]) + y * np.float32(self.normal[1]) + z * np.float32(self.normal[2])
        )
        bone = np.clip(0.5 - depth / width, 0, 1) * np.clip(
            0.5 + (depth + np.float32(head.skull)) / width, 0, 1
        )
        split = np.clip(0.5 + (np.float32(self.gap / 2) - off) / width, 0, 1) * bone * near
        paint(values, (part, split), head.palette.muscle)
        return section.full((part, bone * near * np.clip(0.5 + (4 - off) / width, 0, 1)))


def _within(part: Window, window: Window) -> Window:
    """A part of the image, counted from the corner of a window that it is cut to."""
    spans = []
    for one, other in zip(part, window, strict=True):
        low, high = max(one.start, other.start), min(one.stop, other.stop)
        spans.append(slice(low - other.start, max(low, high) - other.start))
    return spans[0], spans[1]


def _whole(inside: Window, window: Window) -> Window:
    """What was counted from the corner of a window, counted from that of the image."""
    rows, columns = (
        slice(one.start + other.start, one.stop + other.start)
        for one, other in zip(inside, window, strict=True)
    )
    return rows, columns
