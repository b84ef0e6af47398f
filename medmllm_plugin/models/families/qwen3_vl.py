"""Qwen3-VL: patches of 16 px, boxes in thousandths of the picture."""

from __future__ import annotations

from typing import Any, ClassVar

from medmllm_plugin.models.families.family import thousandths
from medmllm_plugin.models.families.qwen2_5_vl import Qwen25VL
from medmllm_plugin.transforms.patches import QWEN3_VL


class Qwen3VL(Qwen25VL):
    """Models of the types `qwen3_vl` and `qwen3_vl_moe`."""

    name = "Qwen3-VL, as MedMO-8B"
    model_types: ClassVar[tuple[str, ...]] = ("qwen3_vl", "qwen3_vl_moe")
    box_limit = 1000
    box_words = "bbox_2d is [x1, y1, x2, y2] in thousandths of that picture's width and height"
    plan: ClassVar[dict[str, Any]] = {"multiple": 32}
    takes: ClassVar[tuple[str, ...]] = ()
    form = QWEN3_VL

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
