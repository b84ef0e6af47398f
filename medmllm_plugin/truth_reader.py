"""A model that knows one phantom by heart: it shows how much a chain itself loses, whatever a model can do.

It looks at the pictures it is given and nothing else: it finds out which image of the phantom each is, also
where a fault turned or mirrored it, and answers as a reader would who believes what the prompt says of left
and right. So what is wrong in its report was done by the chain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import ModelError
from medmllm_plugin.findings import MAX_CITED, Finding, Side
from medmllm_plugin.geometry import Matrix, apply, orientation_letters
from medmllm_plugin.models import Ask, Cancel, Capabilities, Progress, Reply
from medmllm_plugin.phantoms.study import PhantomStudy, mask_box
from medmllm_plugin.prompts import Prompt
from medmllm_plugin.scoring import Bounds, true_findings
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.transforms.crop import PATCH
from medmllm_plugin.transforms.slices import MAX_COUNT
from medmllm_plugin.transforms.window import Ramp

NAME = "truth"

COARSE = 48
"""Pictures are recognised at so many pixels a side."""

LIKENESS = 0.6
"""Least correlation of a picture with the image that it shows. Of other images it is far below, but for
neighbours, and which of those it is the largest tells."""

BLANK = 2.0
"""A picture whose grey levels deviate less from their mean shows nothing, such as air above the head."""

REACH = 6
"""How far a picture may be shifted, image pixels, before its shift is no longer told."""

_MIRRORED = {Side.LEFT: Side.RIGHT, Side.RIGHT: Side.LEFT}
_OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))
_EDGES = re.compile(r"the right edge of each picture is ([LRAPSI]), its lower edge ([LRAPSI])")

Values = NDArray[np.float64]
Turns = tuple[bool, bool, bool]

_BOTH = (False, True)
_TURNS: tuple[Turns, ...] = tuple((one, two, three) for one in _BOTH for two in _BOTH for three in _BOTH)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seen:
    """Which image of the phantom a picture shows, and how."""

    k: int
    """The image, from 0."""
    turns: Turns
    """Whether columns and rows are exchanged, rows, columns reversed: how `_turned` puts it upright."""
    to_picture: Matrix
    """Shape (3, 3): image (column, row, 1) to picture (column, row, 1), both in corner coordinates."""

    def box(self, bounds: Bounds) -> Bounds:
        """A box of the image in the picture."""
        corners = apply(self.to_picture, [bounds[:2], bounds[2:]])
        (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        return left, top, right, bottom


class TruthReader:
    """Reads the phantom that it was made with, and no other."""

    name = NAME
    version = ""
    weights_sha256 = ""
    dtype = "none"

    def __init__(self, study: PhantomStudy) -> None:
        """Learn a phantom by heart.

        Args:
            study: The phantom, of the same size as it will be read.
        """
        self._study = study
        self.capabilities = Capabilities(
            pictures=MAX_COUNT,
            boxes=True,
            schema_bound=False,
            tasks=("report",),
            # a little larger than the images, so that pictures are resized and boxes hardly rounded
            plan={"count": MAX_COUNT, "size": ceil(1.1 * study.matrix / PATCH) * PATCH, "window": "header"},
            domain="one phantom whose truth it knows; it shows what the chain does to a report",
        )
        grey = Ramp.of_window(*study.scan.window)
        self._images = [grey(study.values(k)).astype(np.float64) for k in range(study.slices)]
        self._coarse = np.stack([_standard(_shrunk(image, (COARSE, COARSE))) for image in self._images])

    def outside_domain(self, slices: SliceSet) -> str | None:
        """Nothing: a picture that it doesn't know it refuses when it is asked."""
        return None

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """The box as it is: it points in pixels of the picture."""
        return box

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        """The truth, as far as the pictures show it and as they show it; see `Model.replies`.

        Raises:
            ModelError: If a picture shows no image of the phantom, or none shows anything.
        """
        return [self._reply(ask.prompt) for ask in asks]

    def _reply(self, prompt: Prompt) -> Reply:
        greys = {part.number: part.pixels.astype(np.float64).mean(axis=2) for part in prompt.pictures}
        seen = {
            number: self._recognised(number, grey) for number, grey in greys.items() if grey.std() > BLANK
        }
        if not seen:
            raise ModelError(
                f"{NAME}: all {len(greys)} pictures are blank; something emptied them on the way"
            )
        mirrored = self._mirrored(prompt.text, next(iter(seen.values())))
        said = []
        for index, true in true_findings(self._study):
            one = self._said(index, true, seen, greys)
            if one is not None:
                one["side"] = _MIRRORED.get(true.side, true.side) if mirrored else true.side
                said.append(one)
        marked = sorted({number for one in said for number in one["pictures"]})
        impression = [one["sentence"] for one in said][:6] or ["No abnormality."]
        reply = {"abnormal_pictures": marked, "findings": said, "impression": impression}
        return Reply(text=json.dumps(reply), seconds=0.0)

    def _said(
        self, index: int, true: Finding, seen: dict[int, Seen], greys: dict[int, Values]
    ) -> dict[str, Any] | None:
        """One finding of the reply, without its side; None if no picture shows it."""
        masks = {number: self._study.masks(one.k).get(index) for number, one in seen.items()}
        areas = {number: int(mask.sum()) for number, mask in masks.items() if mask is not None}
        if not areas:
            return None
        largest = max(areas, key=lambda number: areas[number])
        mask = masks[largest]
        assert mask is not None
        left, top, right, bottom = seen[largest].box(mask_box(mask))
        column, row = self._shift(seen[largest], greys[largest])
        rows, columns = greys[largest].shape
        first, last = _span(left + column, right + column, columns)
        upper, lower = _span(top + row, bottom + row, rows)
        near = sorted(areas, key=lambda number: abs(number - largest))[:MAX_CITED]
        return {
            "finding": true.finding,
            "site": true.site,
            "status": "present",
            "severity": true.severity,
            "pictures": sorted(near),
            "box": {"picture": largest, "bbox_2d": [first, upper, last, lower]},
            "sentence": true.sentence,
        }

    def _recognised(self, number: int, grey: Values) -> Seen:
        """Which image of the phantom a picture shows, turned or mirrored if need be."""
        small = _shrunk(grey, (COARSE, COARSE))
        best, likeness, turns = 0, -1.0, _TURNS[0]
        for one in _TURNS:
            alike = np.tensordot(self._coarse, _standard(_turned(small, one)), axes=2)
            if alike.max() > likeness:
                best, likeness, turns = int(alike.argmax()), float(alike.max()), one
        if likeness < LIKENESS:
            raise ModelError(
                f"{NAME}: picture {number} is like no image of the phantom (correlation {likeness:.2f}, "
                f"expected {LIKENESS} or more); something changed its pixels between the files and the model"
            )
        return Seen(k=best, turns=turns, to_picture=_to_picture(self._images[best].shape, grey.shape, turns))

    def _shift(self, one: Seen, grey: Values) -> tuple[float, float]:
        """How far a picture lies from where its image should be in it, (columns, rows), picture pixels."""
        image = self._images[one.k]
        upright = _shrunk(_turned(grey, one.turns), (image.shape[0], image.shape[1]))
        spectrum = np.fft.rfft2(_standard(upright)) * np.conj(np.fft.rfft2(_standard(image)))
        near = np.fft.fftshift(np.fft.irfft2(spectrum, image.shape))
        rows, columns = image.shape
        middle = near[
            rows // 2 - REACH : rows // 2 + REACH + 1, columns // 2 - REACH : columns // 2 + REACH + 1
        ]
        down, right = np.unravel_index(int(middle.argmax()), middle.shape)
        moved = [_peak(middle[:, right], int(down)) - REACH, _peak(middle[down], int(right)) - REACH]
        column, row = one.to_picture[:2, :2] @ moved[::-1]
        return float(column), float(row)

    def _mirrored(self, text: str, first: Seen) -> bool:
        """Whether the prompt says left of what is right, as the pictures are turned."""
        told = _EDGES.search(text)
        if told is None:
            return False
        to_image = np.linalg.inv(first.to_picture)[:2, :2]
        for letter, way in zip(told.groups(), to_image.T, strict=True):
            if letter == _OPPOSITE[self._letter(first.k, way)] and letter in "LR":
                return True
        return False

    def _letter(self, k: int, way: Values) -> str:
        """Where a way (columns, rows) on image k leads in the patient."""
        plane = self._study.plane(k)
        if plane.to_patient is not None:
            return orientation_letters(plane.to_patient[:3, :2] @ way)[0]
        assert plane.patient_orientation is not None
        axis = int(abs(way[1]) > abs(way[0]))
        letter = plane.patient_orientation[axis][0]
        return letter if way[axis] > 0 else _OPPOSITE[letter]


def _turned(image: Values, turns: Turns) -> Values:
    """An image with columns and rows exchanged, then rows, then columns reversed, as asked for."""
    exchanged, rows, columns = turns
    image = image.T if exchanged else image
    image = image[::-1] if rows else image
    return image[:, ::-1] if columns else image


def _to_picture(image: tuple[int, ...], picture: tuple[int, ...], turns: Turns) -> Matrix:
    """The matrix of `Seen`: the way back of `_turned`, and the scale, for shapes (rows, columns)."""
    exchanged, rows, columns = turns
    height, width = (picture[1], picture[0]) if exchanged else (picture[0], picture[1])
    across, down = width / image[1], height / image[0]
    matrix = np.array(
        [
            [-across if columns else across, 0, width if columns else 0],
            [0, -down if rows else down, height if rows else 0],
            [0, 0, 1.0],
        ]
    )
    return matrix[[1, 0, 2]] if exchanged else matrix


def _shrunk(image: Values, shape: tuple[int, int]) -> Values:
    """An image at another size, each pixel the mean of what it covers."""
    return np.asarray(_overlaps(image.shape[0], shape[0]) @ image @ _overlaps(image.shape[1], shape[1]).T)


def _overlaps(count: int, cells: int) -> Values:
    """How much of each of `cells` equal cells lies in each of `count` pixels, shape (cells, count)."""
    edges = np.linspace(0, count, cells + 1)[:, None]
    at = np.arange(count)[None, :]
    part = np.minimum(edges[1:], at + 1) - np.maximum(edges[:-1], at)
    return np.asarray(np.clip(part, 0, None) * (cells / count))


def _standard(image: Values) -> Values:
    """An image whose mean is 0 and whose sum of squares is 1, so that products are correlations."""
    flat = image - image.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-9))


def _peak(line: Values, at: int) -> float:
    """Where a line has its maximum next to a pixel, to a part of a pixel, by a parabola."""
    if not 0 < at < len(line) - 1:
        return float(at)
    before, here, after = line[at - 1 : at + 2].tolist()
    bend = before - 2 * here + after
    return at + 0.5 * (before - after) / bend if bend < 0 else float(at)


def _span(low: float, high: float, limit: int) -> tuple[int, int]:
    """An interval in whole pixels of the picture, not empty and within it."""
    start = min(max(round(low), 0), limit - 1)
    return start, min(max(round(high), start + 1), limit)
