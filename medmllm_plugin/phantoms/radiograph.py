"""A frontal chest radiograph: the chest of `chest`, standing, projected with its attenuation.

Lungs, heart, diaphragm, vessels and findings are the very solids of the CT phantom. What a CT phantom draws
plane by plane, the cage of ribs, spine, shoulders and airways, is drawn here as it is seen in projection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medmllm_plugin.phantoms.anatomy import Drawn
from medmllm_plugin.phantoms.chest import ChestCT, Lesion
from medmllm_plugin.phantoms.rays import Rays, Span, length, length_outside, shared
from medmllm_plugin.phantoms.sections import Section, Values, Vector, Window
from medmllm_plugin.phantoms.shapes import Ellipsoid, Mask

WATER = 0.0190
"""Attenuation of soft tissue for the beam, 1/mm."""

LUNG, BONE = 0.18 * WATER, 1.5 * WATER
"""Attenuation of lung; and of compact bone beyond soft tissue."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChestRadiograph:
    """One patient that doesn't exist, in front of a detector."""

    chest: ChestCT
    view: str
    """View Position (0018,5101): PA or AP."""
    distance: float
    """Distance Source to Detector (0018,1110), mm."""
    breasts: float
    """Thickness of the breasts, mm; 0 for none."""

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """What is to be found."""
        return self.chest.lesions

    @property
    def ratio(self) -> float:
        """The cardiothoracic ratio: width of the heart against that of the thorax inside."""
        heart = self.chest.heart
        right, left = self.chest.lung("right"), self.chest.lung("left")
        inner = left.center[0] + left.radii[0] - (right.center[0] - right.radii[0])
        return 2 * heart.radii[0] / inner

    def draw(self, section: Section) -> Drawn:
        """The attenuation of each ray (the logarithm of what is absorbed), and where findings are seen."""
        chest = self.chest
        side = -1.0 if self.view == "PA" else 1.0
        detector = side * (122 * chest.stretch[1] + chest.fat + 25)
        rays = Rays(
            spot=np.array([0.0, detector - side * self.distance, 130.0 * chest.stretch[2]]),
            detector=detector,
            section=section,
        )
        image = self._trunk(rays)
        self._airways(rays, image)
        masks: dict[int, Mask] = {}
        for name in ("right", "left"):
            self._lung(rays, image, name, masks)
        for index, lesion in enumerate(self.lesions):
            if lesion.finding == "cardiomegaly":
                masks[index] = self._silhouette(rays, chest.heart)
        self._bones(rays, image)
        return image, {index: mask for index, mask in masks.items() if mask.any()}

    def _trunk(self, rays: Rays) -> Values:
        """Soft tissue as if there were no lungs, with stomach gas."""
        chest = self.chest
        sx, sy, sz = chest.stretch
        x, z = rays.at(0.0)
        height = z / np.float32(sz)
        wide = np.interp(height, [-60, 120, 215, 262, 290, 312, 335], [150, 158, 172, 205, 175, 84, 60])
        deep = np.interp(height, [-60, 60, 180, 260, 300, 335], [118, 122, 112, 88, 66, 58])
        inside = 1 - (np.abs(x) / np.float32(sx) / (wide + chest.fat)) ** 2
        image = np.asarray(
            2 * WATER * (deep * sy + 0.8 * chest.fat) * np.sqrt(np.clip(inside, 0, None)) ** 0.8, np.float32
        )
        if self.breasts:
            for sign in (-1, 1):
                breast = Ellipsoid((sign * 78 * sx, -118 * sy, 70 * sz), (58 * sx, self.breasts, 52 * sz))
                window = rays.window(breast)
                image[window] += 0.5 * WATER * length(rays.span(breast, window))
        gas = Ellipsoid((50 * sx, -46 * sy, -8 * sz), (27 * sx, 24 * sy, 26 * sz))
        window = rays.window(gas)
        image[window] -= 0.8 * WATER * length(rays.span(gas, window))
        return image

    def _airways(self, rays: Rays, image: Values) -> None:
        sx, sy, sz = self.chest.stretch
        scale = np.array([sx, sy, sz])
        trachea = np.array([(0, 18, 330), (0, 20, 250), (1, 22, 172)]) * scale
        for points, radius in (
            (trachea, (8.5, 8.0)),
            (np.array([(-8, 22, 164), (-22, 24, 148), (-40, 24, 128)]) * scale, (7.0, 5.5)),
            (np.array([(9, 22, 165), (25, 24, 153), (44, 24, 138)]) * scale, (6.5, 5.0)),
        ):
            window, far, long = rays.tube(points, radius)
            image[window] -= 0.9 * WATER * long * np.sqrt(np.clip(1 - far * far, 0, None))

    def _lung(self, rays: Rays, image: Values, side: str, masks: dict[int, Mask]) -> None:
        """One lung: air instead of soft tissue, its vessels, and what is to be found there."""
        chest = self.chest
        lung = chest.lung(side)
        window = rays.window(lung)
        whole = rays.span(lung, window)
        others = [
            rays.span(chest.heart, window),
            rays.span(chest.liver if side == "right" else chest.left_dome, window),
            self._mediastinum(rays, window),
        ]
        air = length_outside(whole, others)
        air = np.maximum(air, 0)
        part = image[window]
        part -= (WATER - LUNG) * air
        open_lung = np.clip(air / np.float32(30), 0, 1)
        here = [(n, one) for n, one in enumerate(self.lesions) if one.side == side]
        hidden = self._pneumothorax(rays, window, part, air, side, masks)
        for index, lesion in here:
            if lesion.finding == "pleural_effusion":
                masks[index] = self._effusion(rays, image, lesion, window, air, hidden)
        self._vessels(rays, image, window, open_lung * (1 - hidden), side)
        for index, lesion in here:
            if lesion.solid is not None:
                masks[index] = self._solid(rays, image, lesion, lung, others, window)

    def _mediastinum(self, rays: Rays, window: Window) -> Span:
        sx, sy, sz = self.chest.stretch
        x, z = rays.at(4.0, window)
        height = z / np.float32(sz)
        wide = np.interp(height, [10, 60, 130, 168, 200, 222, 250, 330], [30, 31, 34, 33, 37, 33, 26, 22])
        deep = np.interp(height, [10, 225, 285], [74, 74, 46])
        bulge = 12 * np.exp(-(((height - 203) / 15) ** 2)) * (x > 0)
        shape = 1 - ((x - 2 * sx) / ((wide + bulge) * np.float32(sx))) ** 2
        half = np.asarray(deep * sy * np.sqrt(np.clip(shape, 0, None)), np.float32)
        return np.float32(4 * sy) - half, np.float32(4 * sy) + half

    def _vessels(self, rays: Rays, image: Values, window: Window, shown: Values, side: str) -> None:
        chest, sign = self.chest, -1 if side == "right" else 1
        layer = np.zeros_like(image)
        for start, end, radius in chest.vessels:
            if sign * (start[0] + end[0]) > 0:
                place, far, long = rays.tube(np.array([start, end]), (radius, 0.5))
                layer[place] += long * np.sqrt(np.clip(1 - far * far, 0, None))
        hilum = np.array([sign * 40 * chest.stretch[0], 8.0, 140 * chest.stretch[2]])
        for spot, radii in (((0, 0, 0), (10, 12, 19)), ((5, 0, -22), (8, 10, 22))):
            body = Ellipsoid(tuple(hilum + np.array(spot) * (sign, 1, 1)), radii)
            place = rays.window(body)
            layer[place] += 0.7 * length(rays.span(body, place))
        image[window] += 0.85 * WATER * np.minimum(layer[window], 20) * shown

    def _solid(
        self, rays: Rays, image: Values, lesion: Lesion, lung: Ellipsoid, others: list[Span], window: Window
    ) -> Mask:
        assert lesion.solid is not None
        body = length_outside(shared(rays.span(lesion.solid, window), rays.span(lung, window)), others)
        mask = np.zeros(image.shape, np.bool_)
        mask[window] = body > 0.1
        loose = lesion.finding == "consolidation"
        part = image[window]
        part += (0.8 if loose else 1.0) * (WATER - LUNG) * body
        if loose:
            (x, y, z), (a, _, c) = lesion.solid.center, lesion.solid.radii
            for u, v in ((-0.5, 0.5), (0.1, 0.8), (0.5, 0.1), (-0.2, -0.6)):
                branch = np.array([(x - 0.2 * u * a, y, z), (x + u * a, y, z + v * c)])
                place, far, long = rays.tube(branch, (2.2, 1.4))
                image[place] -= WATER * long * np.sqrt(np.clip(1 - far * far, 0, None)) * mask[place]
        return mask

    def _effusion(
        self, rays: Rays, image: Values, lesion: Lesion, window: Window, air: Values, hidden: Values
    ) -> Mask:
        """Fluid of an erect patient: a meniscus that rises along the chest wall."""
        chest = self.chest
        sx, _, sz = chest.stretch
        x, z = rays.at(0.0, window)
        level = (18 + 235 * lesion.amount) * sz
        away = np.clip((np.abs(x) / np.float32(sx) - 62) / 62, -1, 1.15)
        edge = np.float32(level) + np.float32((16 + 34 * lesion.amount) * sz) * away * np.abs(away)
        filled = np.clip(0.5 + (edge - z) / np.float32(22), 0, 1)
        image[window] += (WATER - LUNG) * air * filled
        np.maximum(hidden, filled, out=hidden)
        mask = np.zeros(image.shape, np.bool_)
        mask[window] = (filled > 0.5) & (air > 1)
        return mask

    def _pneumothorax(
        self,
        rays: Rays,
        window: Window,
        part: Values,
        air: Values,
        side: str,
        masks: dict[int, Mask],
    ) -> Values:
        """Air around a lung that shrinks towards its root; gives where, and draws the pleural line."""
        chest = self.chest
        rim = np.zeros_like(air)
        for index, lesion in enumerate(self.lesions):
            if (lesion.finding, lesion.side) != ("pneumothorax", side):
                continue
            lung, amount = chest.lung(side), lesion.amount
            root = np.array([lung.center[0] * 0.45, lung.center[1], 88 * chest.stretch[2]])
            scale = 0.95 - 0.85 * amount
            center = root + scale * (np.array(lung.center) - root)
            a, b, c = lung.radii
            small = Ellipsoid(
                (float(center[0]), float(center[1]), float(center[2])), (a * scale, b * scale, c * scale)
            )
            x, z = rays.at(small.center[1], window)
            far = np.sqrt(
                ((x - np.float32(small.center[0])) / np.float32(small.radii[0])) ** 2
                + ((z - np.float32(small.center[2])) / np.float32(small.radii[2])) ** 2
            )
            there = np.clip(air / np.float32(8), 0, 1)
            np.maximum(rim, np.clip(0.5 + (far - 1) * 40, 0, 1) * there, out=rim)
            part -= LUNG * air * rim
            part += 0.5 * amount * LUNG * air * (1 - rim)
            off = (far - 1) * np.float32(min(small.radii[0], small.radii[2]))
            part += np.float32(0.07) * np.exp(-((off / np.float32(0.9)) ** 2)) * there
            mask = np.zeros(rays.section.shape, np.bool_)
            mask[window] = (rim > 0.5) & (air > 4)
            masks[index] = mask
        return rim

    def _silhouette(self, rays: Rays, solid: Ellipsoid) -> Mask:
        mask = np.zeros(rays.section.shape, np.bool_)
        window = rays.window(solid)
        mask[window] = length(rays.span(solid, window)) > 0.1
        return mask

    def _bones(self, rays: Rays, image: Values) -> None:
        scale = np.array(self.chest.stretch)
        self._spine(rays, image)
        for n in range(11):
            top = 292 - 25.5 * n
            for sign in (-1, 1):
                points = self._rib(top, sign)
                window, far, long = rays.tube(points, (5.6, 6.2))
                outer = np.sqrt(np.clip(1 - far * far, 0, None))
                marrow = np.sqrt(np.clip(0.55 - far * far, 0, None))
                image[window] += BONE * long * (0.62 * outer - 0.36 * marrow)
        for sign in (-1, 1):
            for line, radius, weight in (
                ([(14, -70, 262), (48, -72, 268), (95, -40, 276), (150, 5, 286)], (6.5, 5.5), 1.1),
                ([(168, 20, 270), (186, 18, 235), (196, 16, 170)], (20.0, 13.0), 0.3),
                ([(98, 96, 258), (92, 100, 210), (106, 98, 165)], (3.5, 3.0), 0.8),
                ([(98, 96, 262), (140, 70, 282), (168, 30, 284)], (5.0, 6.0), 0.5),
            ):
                points = np.array(line) * scale * (sign, 1, 1)
                window, far, long = rays.tube(points, radius)
                outer = np.sqrt(np.clip(1 - far * far, 0, None))
                marrow = np.sqrt(np.clip(0.6 - far * far, 0, None))
                image[window] += BONE * weight * long * (outer - 0.6 * marrow)

    def _rib(self, top: float, sign: int) -> Vector:
        """The axis of a rib from the spine around the side to where bone ends in front."""
        sx, sy, sz = self.chest.stretch
        turn = np.radians(np.linspace(76, -52 if top > 70 else 5, 16))
        drop = 20 + 14 * np.clip((292 - top) / 150, 0, 1)
        middle = top - drop * (1 - np.sin(turn)) - 6 * np.cos(turn)
        wide = np.interp(middle, [0, 60, 110, 200, 250, 280, 300], [140, 142, 140, 128, 108, 84, 62]) * sx
        deep = np.interp(middle, [0, 110, 250, 300], [101, 101, 84, 66]) * sy
        return np.stack([sign * wide * np.cos(turn), deep * np.sin(turn), middle * sz], axis=1)

    def _spine(self, rays: Rays, image: Values) -> None:
        sx, sy, sz = self.chest.stretch
        x, z = rays.at(82 * sy)
        across = np.abs(x) / np.float32(sx)
        phase = np.mod(z / np.float32(sz), 24)
        body = np.clip((phase - 2.5) * 0.8, 0, 1) * np.clip((21.5 - phase) * 0.8, 0, 1)
        block = np.sqrt(np.clip(1 - (across / 20) ** 4, 0, 1))
        image += np.float32(BONE * 6) * block * (0.35 + 0.65 * body)
        pedicle = np.exp(-(((across - 14) / 3.4) ** 2)) * np.exp(-(((phase - 15) / 4.2) ** 2))
        process = np.exp(-((across / 3.2) ** 4)) * np.exp(-(((phase - 9) / 5.5) ** 2))
        wings = np.exp(-(((phase - 14) / 4.0) ** 2)) * np.clip((34 - across) * 0.3, 0, 1)
        image += np.float32(BONE) * (6 * pedicle + 7 * process + 2.4 * wings)
