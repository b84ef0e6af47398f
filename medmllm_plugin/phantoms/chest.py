"""A synthetic chest CT: procedural anatomy with findings whose place is known exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.phantoms.anatomy import Drawn
from medmllm_plugin.phantoms.sections import Section
from medmllm_plugin.phantoms.shapes import Canvas, Ellipsoid, Mask

NAME = "ct-chest"

FINDINGS = ("nodule", "mass", "consolidation", "pleural_effusion", "pneumothorax", "cardiomegaly")
"""Keys of findings this phantom can have."""

SITES = ("lung", "pleura", "heart")
"""Keys of sites they have."""

AIR, LUNG, FAT, FLUID, SOFT, LIVER, BONE, MARROW = -1000.0, -850.0, -95.0, 8.0, 45.0, 58.0, 480.0, 190.0

HEIGHT = 310.0
"""The anatomy spans z = 0 (dome of the liver) to this (apices of the lungs), mm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesion:
    """One finding placed in the anatomy."""

    finding: str
    site: str
    side: str
    severity: str | None
    solid: Ellipsoid | None = None
    """Where it lies, if it is a body of its own."""
    amount: float = 0.0
    """How much of the chest it fills, 0 to 1, if it is fluid or air around the lung; or the heart's scale."""
    glass: float | None = None
    """Attenuation of a nodule of ground glass, HU; None for a solid one."""

    @property
    def sentence(self) -> str:
        """It in words."""
        size = {"mild": "Small", "moderate": "Moderate", "severe": "Large", None: ""}[self.severity]
        degree = {"mild": "Mildly", "moderate": "Moderately", "severe": "Severely", None: ""}[self.severity]
        return {
            "nodule": f"{'Solid' if self.glass is None else 'Ground-glass'} nodule in the {self.side} lung.",
            "mass": f"Mass in the {self.side} lung.",
            "consolidation": f"Consolidation with air bronchograms in the {self.side} lung.",
            "pleural_effusion": f"{size} {self.side} pleural effusion.",
            "pneumothorax": f"{size} {self.side} pneumothorax.",
            "cardiomegaly": f"{degree} enlarged heart.",
        }[self.finding]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ChestCT:
    """One patient that doesn't exist; `plane` draws any axial plane of it."""

    stretch: tuple[float, float, float]
    """Body size against the average, along x, y and z."""
    fat: float
    """Thickness of the fat under the skin, mm."""
    contrast: float
    """Attenuation of blood, HU."""
    lesions: tuple[Lesion, ...]
    vessels: tuple[tuple[NDArray[np.float64], NDArray[np.float64], float], ...] = field(repr=False)
    """(start, end, radius at the start) of the lungs' vessels."""
    couch: float
    """Distance of the couch behind the back, mm."""

    @property
    def heart(self) -> Ellipsoid:
        """The heart; larger with cardiomegaly."""
        grown = next((one.amount for one in self.lesions if one.finding == "cardiomegaly"), 0.95)
        return self._place((20, -26, 84), (58 * grown, 48 * grown, 60 * (0.6 + 0.4 * grown)))

    @property
    def liver(self) -> Ellipsoid:
        """The liver; its dome is the right half of the diaphragm."""
        return self._place((-64, 4, -42), (84, 104, 92))

    @property
    def left_dome(self) -> Ellipsoid:
        """What lies below the left half of the diaphragm."""
        return self._place((66, 6, -52), (80, 100, 88))

    def lung(self, side: str) -> Ellipsoid:
        """The lung of that side before heart and diaphragm are cut out of it."""
        sign = -1 if side == "right" else 1
        return self._place((sign * 71, 2, 130), (60, 90, 172))

    def draw(self, section: Section) -> Drawn:
        """An axial plane without noise; the section must lie along x and y."""
        x, y, z = (float(v) for v in section.origin)
        return self.plane(section.us + np.float32(x), section.vs + np.float32(y), z)

    def plane(
        self, xs: NDArray[np.float32], ys: NDArray[np.float32], z: float
    ) -> tuple[NDArray[np.float32], dict[int, Mask]]:
        """One axial plane without noise.

        Args:
            xs: Pixel centres along a row, shape (columns,), LPS mm.
            ys: Pixel centres along a column, shape (rows,), LPS mm.
            z: Height, mm.

        Returns:
            Hounsfield units, shape (rows, columns), and for each lesion that meets the plane (by its index)
            its mask.
        """
        canvas = Canvas(xs, ys, z, background=AIR)
        self._paint_body(canvas)
        lungs = {side: self._lung_mask(canvas, side) for side in ("right", "left")}
        for mask in lungs.values():
            canvas.values[mask] = LUNG
        self._paint_vessels(canvas, lungs)
        self._paint_below_diaphragm(canvas)
        self._paint_mediastinum(canvas)
        below = canvas.full(canvas.cut(self.liver)) | canvas.full(canvas.cut(self.left_dome))
        for side in lungs:
            lungs[side] &= (canvas.values < -300) & ~below
        masks = {}
        for index, lesion in enumerate(self.lesions):
            mask = self._paint_lesion(canvas, lesion, lungs)
            if mask.any():
                masks[index] = mask
        self._paint_skeleton(canvas)
        return canvas.values, masks

    def _place(self, center: tuple[float, float, float], radii: tuple[float, float, float]) -> Ellipsoid:
        sx, sy, sz = self.stretch
        return Ellipsoid(
            (center[0] * sx, center[1] * sy, center[2] * sz), (radii[0] * sx, radii[1] * sy, radii[2] * sz)
        )

    def _wall(self, z: float) -> tuple[float, float]:
        """Half axes of the rib cage's inner side at a height, mm."""
        up = (z / self.stretch[2] - 110) / 235
        narrow = float(np.sqrt(max(0.05, 1 - up * up)))
        return 137 * self.stretch[0] * narrow, 100 * self.stretch[1] * (0.35 + 0.65 * narrow)

    def _paint_body(self, canvas: Canvas) -> None:
        up = np.clip((canvas.z / self.stretch[2] - 225) / 70, 0, 1)
        across = (158 + 34 * up * up * (3 - 2 * up)) * self.stretch[0]
        down = 122 * self.stretch[1]
        couch = down + self.fat + self.couch
        for thick, value in ((26.0, -820.0), (3.0, -150.0)):
            window = canvas.window((-215, 215), (couch, couch + thick))
            canvas.values[window] = value
        canvas.paint(canvas.disc(0, 0, across + self.fat, down + self.fat), FAT)
        canvas.paint(canvas.disc(0, 0, across, down), SOFT)

    def _lung_mask(self, canvas: Canvas, side: str) -> Mask:
        return canvas.full(canvas.cut(self.lung(side)))

    def _paint_vessels(self, canvas: Canvas, lungs: dict[str, Mask]) -> None:
        before = canvas.values.copy()
        for start, end, radius in self.vessels:
            canvas.paint_tube(start, end, (radius, 0.6), 20.0 + 0.3 * self.contrast)
        outside = ~(lungs["right"] | lungs["left"])
        canvas.values[outside] = before[outside]

    def _paint_below_diaphragm(self, canvas: Canvas) -> None:
        canvas.paint_solid(self.left_dome, FAT)
        canvas.paint_solid(self._place((88, 44, -20), (38, 46, 44)), LIVER - 4)
        canvas.paint_solid(self._place((50, -38, -16), (38, 38, 42)), FLUID + 14)
        gas = canvas.cut(self._place((50, -46, -10), (28, 24, 30)))
        canvas.paint(gas, AIR)
        canvas.paint_solid(self.liver, LIVER + 0.25 * self.contrast)

    def _paint_mediastinum(self, canvas: Canvas) -> None:
        sx, sy, sz = self.stretch
        z = canvas.z / sz
        if z > 20:
            wide = 33 + 8 * np.clip((z - 150) / 80, 0, 1) - 10 * np.clip((z - 240) / 50, 0, 1)
            deep = 74 - 30 * np.clip((z - 225) / 60, 0, 1)
            canvas.paint(canvas.disc(2 * sx, 4 * sy, wide * sx, deep * sy), FAT + 50)
        canvas.paint_solid(self.heart.grown(4), FAT + 20)
        canvas.paint_solid(self.heart, SOFT + 0.5 * (self.contrast - SOFT))
        (x, y, h), (a, b, c) = self.heart.center, self.heart.radii
        canvas.paint_solid(
            Ellipsoid((x + 0.3 * a, y, h - 0.1 * c), (0.42 * a, 0.5 * b, 0.6 * c)), self.contrast
        )
        canvas.paint_solid(
            Ellipsoid((x - 0.45 * a, y, h + 0.1 * c), (0.38 * a, 0.55 * b, 0.6 * c)), self.contrast
        )
        if z < 205:
            canvas.paint(canvas.disc(24 * sx, 52 * sy, 12.5 * sx, 12.5 * sy), self.contrast)
        if 110 < z < 205:
            canvas.paint(canvas.disc(-14 * sx, -26 * sy, 15 * sx, 15 * sy), self.contrast)
            canvas.paint(canvas.disc(-34 * sx, -12 * sy, 9 * sx, 9 * sy), self.contrast)
        if 135 < z < 165:
            canvas.paint(canvas.disc(6 * sx, -8 * sy, 28 * sx, 11 * sy), self.contrast)
        if 195 < z < 222:
            canvas.paint(canvas.disc(6 * sx, 12 * sy, 22 * sx, 44 * sy), self.contrast)
        if z >= 222:
            for vessel in (-22, -4, 16):
                canvas.paint(canvas.disc(vessel * sx, -8 * sy, 6.5 * sx, 6.5 * sy), self.contrast)
        canvas.paint(canvas.disc(4 * sx, 44 * sy, 7 * sx, 6 * sy), SOFT - 8)
        if z > 168:
            canvas.paint(canvas.disc(0, 22 * sy, 9 * sx, 9.5 * sy), AIR)
        elif z > 120:
            spread = 9 + (168 - z) * 0.62
            for sign in (-1, 1):
                canvas.paint(canvas.disc(sign * spread * sx, 24 * sy, 7 * sx, 6.5 * sy), AIR)

    def _paint_skeleton(self, canvas: Canvas) -> None:
        sx, sy, sz = self.stretch
        across, down = self._wall(canvas.z)
        window = canvas.window((-across * 1.12, across * 1.12), (-down * 1.14, down * 1.14))
        xs, ys = canvas.xs[window[1]][None, :], canvas.ys[window[0]][:, None]
        ring = (xs / across) ** 2 + (ys / down) ** 2
        shell = (ring > 1.02) & (ring < 1.21) & ~((np.abs(xs) < 24 * sx) & (ys < 0))
        phase = np.mod(canvas.z / sz - 0.42 * ys, 27) / 27
        part = canvas.values[window]
        part[shell & (phase < 0.40)] = BONE - 120
        part[shell & (phase > 0.08) & (phase < 0.32) & (ring > 1.07) & (ring < 1.16)] = MARROW
        canvas.paint(canvas.disc(0, -down * 1.05, 17 * sx, 7 * sy), MARROW + 60)
        canvas.paint(canvas.disc(0, 82 * sy, 19 * sx, 16 * sy), BONE - 60)
        disc = np.mod(canvas.z / sz, 24) < 5
        canvas.paint(canvas.disc(0, 82 * sy, 16.5 * sx, 13.5 * sy), SOFT + 40 if disc else MARROW)
        canvas.paint(canvas.disc(0, 106 * sy, 15 * sx, 11 * sy), BONE - 100)
        canvas.paint(canvas.disc(0, 105 * sy, 9 * sx, 8 * sy), FLUID + 20)
        canvas.paint(canvas.disc(0, 120 * sy, 3.5 * sx, 12 * sy), BONE - 150)
        if canvas.z / sz > 185:
            for sign in (-1, 1):
                canvas.paint(canvas.disc(sign * 112 * sx, 92 * sy, 34 * sx, 4 * sy), BONE - 150)
        if canvas.z / sz > 268:
            for sign in (-1, 1):
                canvas.paint(canvas.disc(sign * 70 * sx, -62 * sy, 46 * sx, 6 * sy), BONE - 100)

    def _paint_lesion(self, canvas: Canvas, lesion: Lesion, lungs: dict[str, Mask]) -> Mask:
        if lesion.finding == "cardiomegaly":
            return canvas.full(canvas.cut(self.heart))
        lung = lungs[lesion.side]
        if lesion.solid is not None:
            mask = canvas.full(canvas.cut(lesion.solid)) & lung
            solid = {"nodule": 35.0, "mass": 42.0, "consolidation": 15.0}[lesion.finding]
            canvas.values[mask] = solid if lesion.glass is None else lesion.glass
            if lesion.finding == "consolidation":
                self._paint_bronchogram(canvas, lesion.solid, mask)
            return mask
        (_, y, _), (_, b, _) = self.lung(lesion.side).center, self.lung(lesion.side).radii
        ys = canvas.ys[:, None]
        if lesion.finding == "pleural_effusion":
            left = max(0.0, 1 - canvas.z / (self.stretch[2] * (90 + 330 * lesion.amount)))
            depth = 2 * b * lesion.amount * left
            fluid: Mask = lung & (ys > y + b - depth)
            canvas.values[fluid] = FLUID
            return fluid
        depth = 2 * b * lesion.amount * (0.35 + 0.65 * min(1.0, canvas.z / (self.stretch[2] * 200)))
        top = np.where(lung.any(axis=1))[0]
        if not len(top):
            return lung
        level = max(canvas.ys[top[0]], y - b * 0.98) + depth
        air: Mask = lung & (ys < level)
        canvas.values[lung & (ys >= level) & (ys < level + 2.5)] = -250.0
        canvas.values[lung & (ys >= level + 2.5) & (canvas.values < -700)] += 60.0
        canvas.values[air] = AIR + 5
        return air

    def _paint_bronchogram(self, canvas: Canvas, solid: Ellipsoid, mask: Mask) -> None:
        (x, y, _), (a, b, _) = solid.center, solid.radii
        before = canvas.values.copy()
        for u, v in ((-0.4, -0.2), (0.1, 0.35), (0.35, -0.3), (-0.1, -0.5)):
            canvas.paint(canvas.disc(x + u * a, y + v * b, 2.4, 3.2), -700.0)
        canvas.values[~mask] = before[~mask]
