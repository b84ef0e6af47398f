"""Gemma 3, and so MedGemma: pictures become squares of 896 px and 256 tokens, boxes are y first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from medmllm_plugin.models.families.family import DEFAULTS, Family, label_of, thousandths
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.prompts import Part, TextPart


class Gemma3(Family):
    """Models of the type `gemma3`.

    The tokens of a picture see each other both ways, which transformers does by `token_type_ids`.
    """

    name = "Gemma 3, as MedGemma"
    model_types = ("gemma3",)
    pictures = 85
    box_limit = 1000
    box_words = "bbox_2d is [y1, x1, y2, x2] in thousandths of that picture's height and width"
    plan: ClassVar[dict[str, Any]] = {"size": 896, "square": True}
    controls = (
        *("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        *("<bos>", "<eos>", "<pad>"),
    )
    type_ids = "token_type_ids"

    def arranged(self, parts: Sequence[Part]) -> list[Part]:
        """Each picture's label after it, as MedGemma was shown the slices of a volume.

        >>> import numpy as np
        >>> from medmllm_plugin.prompts import PicturePart
        >>> picture = PicturePart(number=1, pixels=np.zeros((8, 8, 3), np.uint8))
        >>> parts = Gemma3().arranged([TextPart(text="<image_1>: "), picture, TextPart(text="Report.")])
        >>> parts[0] is picture, parts[1].text
        (True, '<image_1>')
        """
        found = list(parts)
        for n in range(len(found) - 1):
            label = label_of(found[n], found[n + 1])
            if label is not None:
                found[n : n + 2] = [found[n + 1], TextPart(text=label)]
        return found

    def cutting(self, options: TransformersOptions = DEFAULTS) -> dict[str, Any]:
        """No crops of a picture beside it, whatever the folder says: slices are many already."""
        return {"do_pan_and_scan": False}

    def placeholder(self, processor: Any) -> str:
        """The soft token between the marks of a picture's beginning and end, on lines of their own."""
        soft = processor.tokenizer.image_token
        before, *_, after = processor.full_image_sequence.split(soft)
        return f"{before}{soft}{after}"

    def count(self, processor: Any, rows: int, columns: int, options: TransformersOptions = DEFAULTS) -> int:
        """The same for every picture."""
        return int(processor.full_image_sequence.count(processor.tokenizer.image_token))

    def image_token(self, processor: Any) -> int:
        """The soft token; what the processor names is the mark where a picture begins."""
        return int(processor.tokenizer.image_token_id)

    def box_to_picture(
        self,
        box: tuple[float, ...],
        *,
        rows: int,
        columns: int,
        processor: Any = None,
        limits: tuple[int, int] | None = None,
    ) -> tuple[float, ...]:
        """A box, y first in thousandths of the picture's sides, in its pixels."""
        top, left, bottom, right = box
        return thousandths((left, top, right, bottom), rows=rows, columns=columns)
