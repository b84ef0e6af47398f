"""The slices of a series as a video for models of the Qwen2-VL family: two slices to a token.

A run is pictures of one shape that follow each other with nothing but their labels between. The reply still
cites pictures by number: the label of a run says which are in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.models.families.family import Family, label_of, special_tokens
from medmllm_plugin.prompts import Part, PicturePart, Prompt, TextPart
from medmllm_plugin.transforms.patches import PatchFormat, patches

SECONDS_PER_TOKEN = 1.0
"""Time that the slices of a token stand for: the family was trained on two frames a second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Pictures that go in together: as a video, or as a picture if there is one."""

    pictures: tuple[PicturePart, ...]

    @property
    def kind(self) -> str:
        """What a chat template calls it."""
        return "image" if len(self.pictures) == 1 else "video"

    @property
    def frames(self) -> list[NDArray[np.uint8]]:
        """The pixels of its pictures."""
        return [part.pixels for part in self.pictures]

    def tokens(self, form: PatchFormat) -> int:
        """Tokens of all its pictures."""
        each = form.tokens(*self.frames[0].shape[:2])
        return each if self.kind == "image" else each * -(-len(self.pictures) // form.temporal)


def video_words(family: Family, processor: Any, prompt: Prompt) -> dict[str, Any]:
    """All that the family's processor makes of a prompt whose runs of slices are videos, as tensors of a row.

    Raises:
        ValueError: If the processor isn't set as the family's is, a picture has an impossible shape, or the
            template doesn't show each video and picture once.
    """
    import torch

    form = PatchFormat.of(processor.image_processor)
    if form is None:
        raise ValueError("its settings for pictures are not the family's, so slices can't be a video")
    parts, runs = in_runs(prompt.parts)
    cut: dict[str, list[Any]] = {"image": [], "video": []}
    for run in runs:
        cut[run.kind].append(video_patches(run.frames, form=form) if run.kind == "video" else run.frames[0])
    said = family.messages(
        replace(prompt, parts=tuple(parts)), images=False, special=special_tokens(processor.tokenizer)
    )
    kinds = iter(runs)
    for part in next(one["content"] for one in said if one["role"] == "user"):
        if part["type"] == "image":
            part["type"] = next(kinds).kind
    text = processor.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    marks = {processor.image_token_id: 1, processor.video_token_id: 2}
    found = family.tokenized(processor, text, marks=marks, counts=[run.tokens(form) for run in runs])
    if cut["image"]:
        found |= family.pixels(processor, cut["image"])
    if cut["video"]:
        found["pixel_values_videos"] = torch.from_numpy(
            np.concatenate([values for values, _ in cut["video"]])
        )
        found["video_grid_thw"] = torch.tensor([grid for _, grid in cut["video"]])
        found["second_per_grid_ts"] = torch.full((len(cut["video"]),), SECONDS_PER_TOKEN)
    return found


def in_runs(parts: Sequence[Part]) -> tuple[list[Part], list[Run]]:
    """The parts with the first picture of each run in its place and the labels of a run joined; and the runs.

    >>> shown = [PicturePart(number=n, pixels=np.zeros((28, 28, 3), np.uint8)) for n in (1, 2, 3)]
    >>> parts, runs = in_runs([TextPart(text="1:"), shown[0], TextPart(text="2:"), shown[1], shown[2]])
    >>> parts[0].text, len(parts), [one.number for one in runs[0].pictures]
    ('1 to 3: ', 2, [1, 2, 3])
    """
    labels: dict[int, str] = {}
    plain: list[Part] = []
    for part, following in zip(parts, [*parts[1:], TextPart(text="")], strict=True):
        label = label_of(part, following)
        if label is None:
            plain.append(part)
        else:
            labels[id(following)] = label
    joined: list[list[Part]] = []
    for part in plain:
        last = joined[-1][-1] if joined else None
        if isinstance(part, PicturePart) and isinstance(last, PicturePart) and _alike(part, last):
            joined[-1].append(part)
        else:
            joined.append([part])
    found: list[Part] = []
    runs: list[Run] = []
    for group in joined:
        pictures = tuple(part for part in group if isinstance(part, PicturePart))
        if pictures:
            runs.append(Run(pictures=pictures))
            found.append(TextPart(text=_label(pictures, labels)))
        found.append(group[0])
    return found, runs


def video_patches(
    frames: Sequence[NDArray[np.uint8]], *, form: PatchFormat
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """`pixel_values_videos` and the grid (time, rows, columns) of pictures of one shape.

    Equal to what the family's video processor makes of frames that need no resizing; others are resized as
    pictures are, so that boxes mean the same. The last is repeated if their number is no multiple of the
    frames in a token.
    """
    missing = -len(frames) % form.temporal
    values, grid = patches([*frames, *[frames[-1]] * missing], form=replace(form, temporal=1))
    times, (_, high, wide) = len(grid) // form.temporal, (int(side) for side in grid[0])
    cut = values.reshape(times, form.temporal, high * wide, 3, form.patch**2).transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(cut).reshape(times * high * wide, form.width), (times, high, wide)


def _alike(one: PicturePart, other: PicturePart) -> bool:
    return one.pixels.shape[:2] == other.pixels.shape[:2]


def _label(pictures: Sequence[PicturePart], labels: dict[int, str]) -> str:
    first, last = (labels.get(id(part), str(part.number)) for part in (pictures[0], pictures[-1]))
    return f"{first}: " if len(pictures) == 1 else f"{first} to {last}: "
