"""RadFM: whole volumes and 2-D images among words, 32 tokens each; it answers in prose and can't point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.capabilities import PlanFor
from medmllm_plugin.models.families.family import DEFAULTS, Family, harmless, special_tokens
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.models.radfm.cubes import cubes, spread
from medmllm_plugin.models.radfm.sizes import DEPTHS, IMAGES, SIDE, SINGLE_SIDE, TYPE
from medmllm_plugin.prompts import Prompt, TextPart

PLAN: dict[str, Any] = {"count": DEPTHS[-1], "size": SIDE, "square": True, "multiple": 32}
"""Squares, so that lengths keep their proportions."""


class RadFM(Family):
    """Models of the type `radfm`, see `models.radfm`.

    A picture by itself is a 2-D image. The context is short, so a prompt is the images and a question, as in
    training; there are no turns and no system text of its own, so these are lines like others.
    """

    name = "RadFM"
    model_types = (TYPE,)
    pictures = IMAGES * DEPTHS[-1]
    volumes = IMAGES
    boxes = False
    box_limit = 1000  # never asked for
    box_words = ""
    free_text = True
    plan: ClassVar[dict[str, Any]] = PLAN
    plans = (
        PlanFor(
            names=("CT", "MR", "PT", "NM"), plan=PLAN | {"size": SINGLE_SIDE, "window": "ct-soft-tissue"}
        ),
    )
    controls = ("<image", "</image", "<s>", "</s>", "<unk>")

    def words(
        self, processor: Any, prompt: Prompt, options: TransformersOptions = DEFAULTS
    ) -> dict[str, Any]:
        """As in `Family.words`: the tokens of each stretch of words by itself, images between them.

        The language half has no tokens for images; they stand in numbers beyond its vocabulary, the marks
        first, as the model's own embedding counts them.
        """
        import torch

        tokenizer = processor.tokenizer
        ids: list[int] = [processor.begin]
        for part in self._pieces(prompt, special=special_tokens(tokenizer)):
            if part is None:
                ids += [processor.opening, *[processor.image_token_id] * processor.latents, processor.closing]
            else:
                ids += tokenizer(part, add_special_tokens=False)["input_ids"]
        found = torch.tensor([ids])
        return {"input_ids": found, "attention_mask": torch.ones_like(found)}

    def _pieces(self, prompt: Prompt, *, special: Sequence[str]) -> Iterator[str | None]:
        """The words in stretches as long as can be, and None for each image."""
        controls, lines = {*self.controls, *special}, list[str]()
        if prompt.system:
            lines.append(prompt.system)
        for part in prompt.parts:
            if isinstance(part, TextPart):
                lines.append(part.text)
                continue
            if lines:
                yield harmless("\n".join(lines), controls)
            lines = []
            yield None
        lines += [turn.text for turn in prompt.turns]
        if lines:
            yield harmless("\n".join(lines), controls)

    def shown(self, prompt: Prompt) -> list[NDArray[np.uint8]]:
        """Each image at the size that all have together, shape (depth, side, side, 3)."""
        return [one.levels for one in cubes(prompt.images)]

    def pixels(
        self,
        processor: Any,
        pictures: Sequence[NDArray[np.uint8]],
        options: TransformersOptions = DEFAULTS,
    ) -> dict[str, Any]:
        """`pixel_values`, shape (images, 3, rows, columns, depth); what is the same in all slices is 2-D."""
        import torch

        values = [spread(one, volume=bool((one[1:] != one[:1]).any())) for one in pictures]
        return {"pixel_values": torch.stack([torch.from_numpy(one).permute(3, 1, 2, 0) for one in values])}

    def count(self, processor: Any, rows: int, columns: int, options: TransformersOptions = DEFAULTS) -> int:
        """The same for every image."""
        return int(processor.latents)

    def tokens(
        self, processor: Any, *, rows: int, columns: int, options: TransformersOptions = DEFAULTS
    ) -> int:
        """With the marks around an image."""
        return int(processor.latents) + 2

    def load_processor(self, folder: Any) -> Any:
        """The tokenizer of the folder, and the numbers of the tokens around images."""
        from medmllm_plugin.models.radfm.loading import load_processor

        return load_processor(folder)

    def source(self, folder: Any) -> dict[str, Any]:
        """Where transformers takes the model from; the published checkpoint as well as a converted folder."""
        from medmllm_plugin.models.radfm.loading import source

        return source(folder)

    def box_to_picture(
        self,
        box: tuple[float, ...],
        *,
        rows: int,
        columns: int,
        processor: Any = None,
        limits: tuple[int, int] | None = None,
    ) -> tuple[float, ...]:
        """The box as it is: the model is never asked for one."""
        return box
