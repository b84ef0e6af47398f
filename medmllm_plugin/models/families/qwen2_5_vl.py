"""Qwen2.5-VL, and so Lingshu-7B and -32B: pictures of any shape, boxes in pixels of the resized one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.models.families.family import DEFAULTS, Family
from medmllm_plugin.models.families.slices_as_video import video_words
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.prompts import Prompt
from medmllm_plugin.transforms.patches import QWEN2_VL, PatchFormat, patches


class Qwen25VL(Family):
    """Models of the type `qwen2_5_vl`."""

    name = "Qwen2.5-VL, as Lingshu-7B and Lingshu-32B"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)
    pictures = 64
    box_limit = 4096
    box_words = "bbox_2d is [x1, y1, x2, y2] in pixels of that picture"
    languages = ("en", "zh")
    controls = ("<|",)
    type_ids = "mm_token_type_ids"
    takes: ClassVar[tuple[str, ...]] = ("video",)
    form: ClassVar[PatchFormat] = replace(QWEN2_VL, max_pixels=12_845_056)
    """The settings for pictures in the folders of such models."""

    def words(
        self, processor: Any, prompt: Prompt, options: TransformersOptions = DEFAULTS
    ) -> dict[str, Any]:
        """As in `Family.words`; with `options.video` the pixels too."""
        if options.video and prompt.pictures:
            return video_words(self, processor, prompt)
        found = super().words(processor, prompt, options)
        if prompt.pictures:
            import torch

            grids = [self._grid(processor, *part.pixels.shape[:2]) for part in prompt.pictures]
            found["image_grid_thw"] = torch.tensor(grids)
        return found

    def pixels(
        self,
        processor: Any,
        pictures: Sequence[NDArray[np.uint8]],
        options: TransformersOptions = DEFAULTS,
    ) -> dict[str, Any]:
        """`pixel_values` and `image_grid_thw`, bit for bit what the processor makes; see `patches`."""
        form = PatchFormat.of(processor.image_processor)
        if form is None:
            made = processor.image_processor(
                [np.ascontiguousarray(one) for one in pictures],
                input_data_format="channels_last",
                return_tensors="pt",
            )
            return {key: made[key] for key in ("pixel_values", "image_grid_thw")}
        import torch

        values, grid = patches(pictures, form=form)
        return {"pixel_values": torch.from_numpy(values), "image_grid_thw": torch.from_numpy(grid)}

    def by_picture(self, options: TransformersOptions = DEFAULTS) -> bool:
        """False for slices as a video."""
        return not options.video

    def count(self, processor: Any, rows: int, columns: int, options: TransformersOptions = DEFAULTS) -> int:
        """A token for each square of patches."""
        return _sizes(processor).tokens(rows, columns)

    def box_to_picture(
        self,
        box: tuple[float, ...],
        *,
        rows: int,
        columns: int,
        processor: Any = None,
        limits: tuple[int, int] | None = None,
    ) -> tuple[float, ...]:
        """A box, x first in pixels of the resized picture, in pixels of the picture itself."""
        sizes = self.form if processor is None else _sizes(processor)
        if limits is not None:
            sizes = replace(sizes, min_pixels=limits[0], max_pixels=limits[1])
        resized_rows, resized_columns = sizes.shape(rows, columns)
        across, down = columns / resized_columns, rows / resized_rows
        column_min, row_min, column_max, row_max = box
        return column_min * across, row_min * down, column_max * across, row_max * down

    def _grid(self, processor: Any, rows: int, columns: int) -> tuple[int, int, int]:
        sizes = _sizes(processor)
        high, wide = sizes.shape(rows, columns)
        return 1, high // sizes.patch, wide // sizes.patch


def _sizes(processor: Any) -> PatchFormat:
    """The sizes of the processor, whatever it does to grey levels."""
    its = processor.image_processor
    return PatchFormat(
        patch=its.patch_size,
        merge=its.merge_size,
        temporal=its.temporal_patch_size,
        min_pixels=its.size["shortest_edge"],
        max_pixels=its.size["longest_edge"],
        resizes=its.do_resize,
    )
