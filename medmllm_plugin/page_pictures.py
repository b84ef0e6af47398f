"""The pictures of a page: inlined unaltered, with boxes and side letters over them, in HTML.

A page's policy bars scripts and inline style, so switches are plain inputs that `page.css` looks at, and the
few computed style rules are collected in `Album.rules`.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.findings import Box, Finding
from medmllm_plugin.outputs import printable
from medmllm_plugin.pictures import png_bytes, thumbnail
from medmllm_plugin.report import Sentence
from medmllm_plugin.resampled import Bounds
from medmllm_plugin.slice import Slice
from medmllm_plugin.sliceset import SliceSet

CHANNELS = ("red", "green", "blue")

_THUMBNAIL_PIXELS = 2_500_000
"""About how many pixels all thumbnails together may have, so a page of many pictures stays small."""


def text(value: object) -> str:
    """Any text as harmless HTML text or attribute value.

    >>> text("<b>5 & 6</b>")
    '&lt;b&gt;5 &amp; 6&lt;/b&gt;'
    """
    return html.escape(printable(str(value), keep="\n"), quote=True)


def side_words(one: Slice) -> str:
    """The sides of a picture in words, for captions and for those who can't see it."""
    letters = one.edges
    return f"left edge {letters['left']}, right edge {letters['right']}" if letters else "sides not known"


def picture_links(numbers: Sequence[int]) -> str:
    """Rising picture numbers as links into the strip, a run by its ends.

    >>> re.sub("<.*?>", "", picture_links([2, 4, 5, 6, 9]))
    '2, 4–6, 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    ends = [("–" if len(run) > 2 else ", ", sorted({run[0], run[-1]})) for run in runs]
    return ", ".join(mark.join(f'<a href="#picture-{n}">{n}</a>' for n in pair) for mark, pair in ends)


@dataclass(kw_only=True)
class Album:
    """The pictures of one page."""

    slices: SliceSet
    rules: list[str] = field(default_factory=list, init=False)
    """Style rules that the views made so far need."""

    @property
    def channels(self) -> tuple[str, ...]:
        """What each colour channel shows, where three windows were put into one picture; else empty."""
        match = re.search(r"red (.+?), green (.+?), blue (.+)", self.slices.slices[0].window)
        return match.groups() if match else ()

    def cited(self, one: Finding | Sentence) -> list[int]:
        """Rising numbers of the pictures that a finding or sentence cites."""
        return self.slices.cited(one.images, one.pictures)

    def view(self, number: int, *, boxes: Sequence[Box], alt: str, small: bool = False) -> str:
        """A picture with boxes and side letters over it.

        Args:
            number: Its number, from 1.
            boxes: Boxes of the report that lie in it.
            alt: What it shows, in words.
            small: Whether a thumbnail will do.
        """
        one = self.slices.picture(number)
        longest = min(256, max(64, math.isqrt(_THUMBNAIL_PIXELS // len(self.slices)))) if small else None
        return self._view(one, [one.box_in_picture(box) for box in boxes], alt=alt, longest=longest)

    def key_view(self, box: Box, *, alt: str) -> str:
        """The slice that a box was drawn in, with the box and side letters over it.

        It is the picture itself, or its part of a montage.
        """
        one, bounds = self.slices.picture(box.picture).showing(box)
        return self._view(one, [bounds], alt=alt)

    def _view(self, one: Slice, boxes: Sequence[Bounds], *, alt: str, longest: int | None = None) -> str:
        rows, columns = one.pixels.shape[:2]
        picture = _image(thumbnail(one.pixels, longest=longest or rows + columns), alt=alt)
        letters = "".join(
            f'<span class="letter {edge}" aria-hidden="true">{letter}</span>'
            for edge, letter in one.edges.items()
        )
        shape = self._shape(one, rows=rows, columns=columns)
        return f'<div class="view shown{shape}">{picture}{self._frames(one, boxes)}{letters}</div>'

    def closeups(self, box: Box) -> str:
        """The surroundings of a box without it, in each window by itself where three made the colours."""
        one, (left, top, right, bottom) = self.slices.picture(box.picture).showing(box)
        rows, columns = one.pixels.shape[:2]
        side = math.ceil(max(40, 2.5 * (right - left), 2.5 * (bottom - top)))
        height, width = min(side, rows), min(side, columns)
        row = min(max(0, round((top + bottom - height) / 2)), rows - height)
        column = min(max(0, round((left + right - width) / 2)), columns - width)
        crop = one.pixels[row : row + height, column : column + width]
        views = [(crop[..., [k] * 3], words) for k, words in enumerate(self.channels)] or [(crop, "Close-up")]
        shape = self._shape(one, rows=height, columns=width)
        figures = (
            f'<figure><div class="view{shape}">{_image(pixels, alt=f"{words} without the box")}</div>'
            f"<figcaption>{text(words)}</figcaption></figure>"
            for pixels, words in views
        )
        return f'<div class="closeups">{"".join(figures)}</div>'

    def switches(self, *, boxes: bool) -> str:
        """Inputs that hide the boxes, and that show one window of coloured pictures as grey; or nothing."""
        inputs = [_switch("checkbox", "boxes", "boxes", "Boxes", checked=True)] if boxes else []
        if self.channels:
            best = self._least_cut()
            inputs += [
                _switch("radio", "window", color, f"Grey: {words}", checked=color == best)
                for color, words in zip(CHANNELS, self.channels, strict=True)
            ]
            inputs.append(_switch("radio", "window", "all", "Colours, as the model saw them", checked=False))
        if not inputs:
            return ""
        filters = (
            f'<filter id="only-{color}" color-interpolation-filters="sRGB">'
            f'<feColorMatrix type="matrix" values="{" ".join([row] * 3)} 0 0 0 1 0"/></filter>'
            for color, row in zip(CHANNELS, ("1 0 0 0 0", "0 1 0 0 0", "0 0 1 0 0"), strict=True)
        )
        return (
            f'<svg class="defs" aria-hidden="true">{"".join(filters)}</svg>'
            f'<fieldset class="switches"><legend>Pictures</legend>{"".join(inputs)}</fieldset>'
        )

    def _least_cut(self) -> str:
        """The channel whose window cuts off the fewest pixels to black or white."""
        middle = self.slices.slices[len(self.slices) // 2].pixels
        return CHANNELS[int(np.argmin(((middle == 0) | (middle == 255)).sum(axis=(0, 1))))]

    def _frames(self, one: Slice, boxes: Sequence[Bounds]) -> str:
        if not boxes:
            return ""
        rows, columns = one.pixels.shape[:2]
        frames = ""
        for left, top, right, bottom in boxes:
            place = f'x="{left:.2f}" y="{top:.2f}" width="{right - left:.2f}" height="{bottom - top:.2f}"'
            frames += f'<rect class="halo" {place}/><rect class="frame" {place}/>'
        return (
            f'<svg class="box" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" aria-hidden="true">'
            f"{frames}</svg>"
        )

    def _shape(self, one: Slice, *, rows: int, columns: int) -> str:
        """A class that gives these pixels their true proportions, where pixels aren't square."""
        if one.to_patient is None:
            return ""
        across, down = np.linalg.norm(one.to_patient[:3, :2], axis=0)
        if abs(across / down - 1) < 0.005:
            return ""
        width = f"{columns * across / down:.2f}"
        name = f"shape-{width.replace('.', '-')}-{rows}"
        rule = f".{name} img{{aspect-ratio:{width}/{rows}}}"
        if rule not in self.rules:
            self.rules.append(rule)
        return f" {name}"


def _image(pixels: NDArray[np.uint8], *, alt: str) -> str:
    data = base64.b64encode(png_bytes(pixels)).decode()
    rows, columns = pixels.shape[:2]
    return (
        f'<img src="data:image/png;base64,{data}" width="{columns}" height="{rows}" alt="{text(alt)}" '
        'loading="lazy" decoding="async">'
    )


def _switch(kind: str, name: str, value: str, words: str, *, checked: bool) -> str:
    state = " checked" if checked else ""
    return (
        f'<label><input type="{kind}" name="{name}" value="{value}"{state}><span>{text(words)}</span></label>'
    )
