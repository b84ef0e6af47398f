"""LLaVA in the layout of transformers, and so a converted LLaVA-Med: one square picture, answers in prose."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.models.families.family import DEFAULTS, Family
from medmllm_plugin.models.options import TransformersOptions

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean colour, 0 to 1, of the processor in the family's usual folders."""


class Llava(Family):
    """Models of the type `llava`.

    They were taught to talk about one picture: not to write JSON, nor to point. Decoding could be bound to a
    schema all the same, but then they fill in forms that they don't understand.
    """

    name = "LLaVA, as a converted LLaVA-Med"
    model_types = ("llava",)
    pictures = 1
    boxes = False
    box_limit = 1000
    box_words = ""
    free_text = True
    plan: ClassVar[dict[str, Any]] = {"count": 1, "size": 336, "square": True}
    controls = (
        *("<image>", "<s>", "</s>", "<pad>", "<unk>"),
        *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "USER:", "ASSISTANT:"),
    )

    def fitted(self, processor: Any, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """In the middle of a square of the mean colour, as it was trained: else its ends would be cut off."""
        rows, columns = picture.shape[:2]
        if rows == columns:
            return picture
        mean = CLIP_MEAN if processor is None else processor.image_processor.image_mean
        side = max(rows, columns)
        square = np.broadcast_to(np.array([int(255 * one) for one in mean], np.uint8), (side, side, 3)).copy()
        top, left = (side - rows) // 2, (side - columns) // 2
        square[top : top + rows, left : left + columns] = picture
        return square

    def count(self, processor: Any, rows: int, columns: int, options: TransformersOptions = DEFAULTS) -> int:
        """A token for each patch, by the processor's settings."""
        if processor.patch_size is None:  # older folders don't say it
            raise ValueError("its processor_config.json has no patch_size")
        crop = processor.image_processor.crop_size
        patches = (crop["height"] // processor.patch_size) * (crop["width"] // processor.patch_size)
        without_class = processor.vision_feature_select_strategy == "default"
        return int(patches + processor.num_additional_image_tokens - without_class)

    def box_to_picture(
        self,
        box: tuple[float, ...],
        *,
        rows: int,
        columns: int,
        processor: Any = None,
        limits: tuple[int, int] | None = None,
    ) -> tuple[float, ...]:
        """Never asked for: the family doesn't point."""
        raise ValueError("this family of models has no boxes")
