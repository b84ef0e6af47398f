"""InternVL3 in the layout of transformers, and so Lingshu-I-8B: tiles of 448 px and 256 tokens each."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from medmllm_plugin.models.families.family import DEFAULTS, Family, thousandths
from medmllm_plugin.models.options import TransformersOptions

TILE = 448
"""Side of a tile in the folders of such models, px."""


class InternVL(Family):
    """Models of the type `internvl`.

    A picture is one tile, as the family was shown the frames of videos; with `tiles=12` one large picture,
    such as a radiograph, is cut into as many as fit its shape, with a small one of the whole.
    """

    name = "InternVL3, as Lingshu-I-8B"
    model_types = ("internvl",)
    pictures = 64
    box_limit = 1000
    box_words = "bbox_2d is [x1, y1, x2, y2] in thousandths of that picture's width and height"
    languages = ("en", "zh")
    plan: ClassVar[dict[str, Any]] = {"size": TILE, "square": True}
    controls = ("<|", "<IMG_CONTEXT>", "<img>", "</img>", "<video>")
    takes = ("tiles",)

    def cutting(self, options: TransformersOptions = DEFAULTS) -> dict[str, Any]:
        """One tile for a picture, or as many as fit its shape up to `options.tiles`."""
        return {"crop_to_patches": options.tiles > 1, "min_patches": 1, "max_patches": options.tiles}

    def plan_for(self, options: TransformersOptions = DEFAULTS) -> dict[str, Any]:
        """Pictures large enough to fill their tiles."""
        return {**self.plan, "size": TILE * math.isqrt(options.tiles)}

    def placeholder(self, processor: Any) -> str:
        """Its token between the marks of a picture's beginning and end."""
        return f"{processor.start_image_token}{processor.image_token}{processor.end_image_token}"

    def count(self, processor: Any, rows: int, columns: int, options: TransformersOptions = DEFAULTS) -> int:
        """As many for each tile."""
        tiles = processor.image_processor.get_number_of_image_patches(rows, columns, self.cutting(options))
        return int(processor.image_seq_length) * int(tiles)

    def box_to_picture(
        self,
        box: tuple[float, ...],
        *,
        rows: int,
        columns: int,
        processor: Any = None,
        limits: tuple[int, int] | None = None,
    ) -> tuple[float, ...]:
        """A box, x first in thousandths of the picture's sides, in its pixels."""
        return thousandths(box, rows=rows, columns=columns)
