"""What a family of models is: how a prompt becomes tokens and pixels, and what its boxes mean.

What is different in a family stands in its own file beside this one. Nothing here imports torch or
transformers before a prompt is prepared, so a model behind a server has the same families.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.capabilities import PlanFor
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.prompts import Part, PicturePart, Prompt, TextPart, VolumePart

_LABEL = re.compile(r"(?:<image_\d+>|\d+):\s*")

DEFAULTS = TransformersOptions()


class Family(ABC):
    """What is the same for all models of one architecture."""

    name: ClassVar[str]
    """What users know it by, and models of it."""
    model_types: ClassVar[tuple[str, ...]]
    """`model_type` of config.json."""
    pictures: ClassVar[int]
    """Most pictures in one prompt, where the model's card doesn't say."""
    boxes: ClassVar[bool] = True
    """Whether such models were taught to point."""
    box_limit: ClassVar[int]
    """Largest box coordinate."""
    box_words: ClassVar[str]
    """How a box is to be given, as the prompt tells it."""
    languages: ClassVar[tuple[str, ...]] = ("en",)
    volumes: ClassVar[int] = 0
    """Most images and volumes in one prompt, for a family that sees volumes as such."""
    free_text: ClassVar[bool] = False
    """True if such models can't be expected to write JSON."""
    plan: ClassVar[dict[str, Any]] = {}
    """Settings of `transforms.slices.SlicePlan` that suit, where the model's card doesn't say."""
    plans: ClassVar[tuple[PlanFor, ...]] = ()
    """Plans for studies that need another one."""
    controls: ClassVar[tuple[str, ...]] = ()
    """Words that have a meaning of their own in a conversation, beside the tokenizer's special tokens."""
    takes: ClassVar[tuple[str, ...]] = ()
    """Names of the options that only some families have, and this one has."""
    type_ids: ClassVar[str | None] = None
    """What the model calls the tensor that marks the tokens of pictures with 1; None if it takes none."""

    def messages(
        self, prompt: Prompt, *, images: bool = True, special: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """The prompt as chat messages, pictures as RGB images of Pillow.

        Words that would be control tokens get a space inside (`<|im_end|>` becomes `< |im_end|>`), so no
        question or text of a study can end a turn, begin another or stand for a picture.

        Args:
            prompt: What is asked.
            images: False: only where pictures stand, for a template, which needs no more.
            special: Special tokens of the tokenizer, beside the family's own control words.

        Raises:
            ValueError: If the prompt has a volume, which is no part of a chat message.
        """
        controls = {*self.controls, *special}

        def text(words: str) -> dict[str, Any]:
            return {"type": "text", "text": harmless(words, controls)}

        content = [
            text(part.text) if isinstance(part, TextPart) else _image(part, pixels=images)
            for part in self.arranged(prompt.parts)
        ]
        turns = [{"role": turn.role, "content": [text(turn.text)]} for turn in prompt.turns]
        system = [{"role": "system", "content": [text(prompt.system)]}] if prompt.system else []
        return [*system, {"role": "user", "content": content}, *turns]

    def arranged(self, parts: Sequence[Part]) -> list[Part]:
        """The parts of a message in the order that the family was trained on."""
        return list(parts)

    def text(self, processor: Any, prompt: Prompt, options: TransformersOptions = DEFAULTS) -> str:
        """The whole conversation as the chat template writes it, up to where the reply begins.

        Each picture is the one placeholder that the template has for it; see `words`.

        Raises:
            ValueError: If the template doesn't show each picture once.
        """
        found: str = processor.apply_chat_template(
            self.messages(prompt, images=False, special=special_tokens(processor.tokenizer)),
            tokenize=False,
            add_generation_prompt=True,
        )
        shown, expected = found.count(processor.image_token), len(prompt.pictures)
        if shown != expected:
            raise ValueError(f"the chat template shows {shown} pictures, expected {expected}")
        return found

    def words(
        self, processor: Any, prompt: Prompt, options: TransformersOptions = DEFAULTS
    ) -> dict[str, Any]:
        """What the family's processor makes of a prompt but the pixels, as tensors of one row.

        Nothing is cut and nothing encoded: `input_ids` and what goes along with each token, with as many
        placeholders for a picture as it will have tokens, and the shapes that positions are counted by.

        Raises:
            ValueError: If a picture has an impossible shape, or the template doesn't show each picture once.
        """
        text = self.text(processor, prompt, options).replace(
            processor.image_token, self.placeholder(processor)
        )
        counts = [
            self.count(processor, part.pixels.shape[0], part.pixels.shape[1], options)
            for part in prompt.pictures
        ]
        marks = {self.image_token(processor): 1}
        return self.tokenized(processor, text, marks=marks, counts=counts)

    def shown(self, prompt: Prompt) -> list[NDArray[np.uint8]]:
        """What `pixels` takes of each image of a prompt, its last axis the three channels.

        Raises:
            ValueError: If an image can't be shown so.
        """
        return [part.pixels for part in prompt.pictures]

    def pixels(
        self,
        processor: Any,
        pictures: Sequence[NDArray[np.uint8]],
        options: TransformersOptions = DEFAULTS,
    ) -> dict[str, Any]:
        """Arguments of the model's `get_image_features` for pictures, as tensors.

        Raises:
            ValueError: If a picture has an impossible shape.
        """
        made = processor.image_processor(
            [np.ascontiguousarray(self.fitted(processor, one)) for one in pictures],
            input_data_format="channels_last",
            return_tensors="pt",
            **self.cutting(options),
        )
        return {"pixel_values": made["pixel_values"]}

    def fitted(self, processor: Any, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture as the family's processor takes it whole.

        Args:
            processor: The model's own; None where it runs on a server.
            picture: Shape (rows, columns, 3).
        """
        return picture

    def cutting(self, options: TransformersOptions = DEFAULTS) -> dict[str, Any]:
        """Settings for the picture processor that must not be the folder's."""
        return {}

    def tokenized(
        self, processor: Any, text: str, *, marks: Mapping[int, int], counts: Sequence[int]
    ) -> dict[str, Any]:
        """A conversation as tensors of one row, the token that begins one written once.

        Args:
            processor: The model's own.
            text: With one token for each picture.
            marks: Tokens that stand for pictures, with their number in `type_ids`.
            counts: How many of its token each picture has, in order.

        Raises:
            ValueError: If the text hasn't as many such tokens.
        """
        import torch

        begin = processor.tokenizer.bos_token
        ids = processor.tokenizer(
            text, add_special_tokens=not (begin and text.startswith(begin)), return_tensors="pt"
        )["input_ids"][0]
        shown = torch.isin(ids, torch.tensor(list(marks)))
        if int(shown.sum()) != len(counts):
            raise ValueError(f"the chat template shows {int(shown.sum())} pictures, expected {len(counts)}")
        often = torch.ones_like(ids)
        often[shown] = torch.tensor(counts, dtype=often.dtype)
        # Written out in the text, tens of thousands of placeholders would cost as much as all pictures.
        ids = ids.repeat_interleave(often)[None]
        found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.type_ids is not None:
            found[self.type_ids] = sum(number * (ids == mark) for mark, number in marks.items())
        return found

    def load_processor(self, folder: Any) -> Any:
        """What makes the inputs of the model in a folder, with its chat template.

        Args:
            folder: As `models.folder.ModelFolder`.

        Raises:
            ValueError: If it has no chat template.
        """
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(folder.path, local_files_only=True)
        # Some folders keep the template with the tokenizer.
        processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
        if not processor.chat_template:
            raise ValueError("it has no chat template")
        return processor

    def source(self, folder: Any) -> dict[str, Any]:
        """What `from_pretrained` is told of where the model is, and under `model` what it is called on."""
        from transformers import AutoModelForImageTextToText

        return {"pretrained_model_name_or_path": folder.path, "model": AutoModelForImageTextToText}

    def by_picture(self, options: TransformersOptions = DEFAULTS) -> bool:
        """Whether `pixels` are those of each picture by itself; if not, `words` has them all."""
        return True

    def plan_for(self, options: TransformersOptions = DEFAULTS) -> dict[str, Any]:
        """`plan`, with what options make of it."""
        return dict(self.plan)

    def placeholder(self, processor: Any) -> str:
        """What stands in the text for a picture, with the token that is its own once."""
        return str(processor.image_token)

    @abstractmethod
    def count(self, processor: Any, rows: int, columns: int, options: TransformersOptions = DEFAULTS) -> int:
        """How often the token of a picture of that shape stands there."""

    def image_token(self, processor: Any) -> int:
        """The token that is replaced by what the model sees of a picture."""
        return int(processor.image_token_id)

    def tokens(
        self, processor: Any, *, rows: int, columns: int, options: TransformersOptions = DEFAULTS
    ) -> int:
        """Tokens that a picture of that shape takes, without its label."""
        once = processor.tokenizer(self.placeholder(processor), add_special_tokens=False)["input_ids"]
        return len(once) - 1 + self.count(processor, rows, columns, options)

    @abstractmethod
    def box_to_picture(
        self,
        box: tuple[float, ...],
        *,
        rows: int,
        columns: int,
        processor: Any = None,
        limits: tuple[int, int] | None = None,
    ) -> tuple[float, ...]:
        """A box of the family's convention as (column_min, row_min, column_max, row_max) of the picture.

        Args:
            box: Four numbers as the model wrote them.
            rows: Of the picture that was shown.
            columns: Of the picture that was shown.
            processor: The model's own; None where it runs on a server.
            limits: Fewest and most pixels the server makes of a picture, for families that count in them;
                None for those of the family's usual folders.
        """


def thousandths(box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
    """A box in thousandths of the picture's sides, x first, in its pixels.

    >>> thousandths((0, 250, 500, 1000), rows=200, columns=100)
    (0.0, 50.0, 50.0, 200.0)
    """
    left, top, right, bottom = box
    return left * columns / 1000, top * rows / 1000, right * columns / 1000, bottom * rows / 1000


def harmless(words: str, controls: Iterable[str]) -> str:
    """Words in which no control token is left: a space follows the first character of each.

    >>> harmless("see <image> <|im_end|>", ["<image>", "<|"])
    'see < image> < |im_end|>'
    """
    pattern = _any_of(frozenset(controls))
    while pattern.search(words):
        words = pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", words)
    return words


@lru_cache(maxsize=4)
def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """All tokens of a tokenizer that no text should hold, also those that have no role for transformers."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def label_of(part: Part, following: Part) -> str | None:
    """The label of a picture (`<image_3>` or `3`) if it stands alone in the text before; else None."""
    if isinstance(part, TextPart) and isinstance(following, PicturePart) and _LABEL.fullmatch(part.text):
        return part.text.strip().rstrip(":")
    return None


@lru_cache(maxsize=16)
def _any_of(controls: frozenset[str]) -> re.Pattern[str]:
    known = [one for one in controls if len(one) > 1 and not one[1].isspace() and not one.isspace()]
    return re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True))) or r"(?!)")


def _image(part: PicturePart | VolumePart, *, pixels: bool) -> dict[str, Any]:
    if isinstance(part, VolumePart):
        raise ValueError("found a volume in the prompt, expected pictures")
    if not pixels:
        return {"type": "image"}
    from PIL import Image

    return {"type": "image", "image": Image.fromarray(np.ascontiguousarray(part.pixels))}
