"""How soon a model answers, beside the README way of Lingshu: `python -m benchmarks.engine`.

Both ways run the same small model on the same pictures, in turns, in one process; docs/speed.md tells more.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.jobs import threads
from benchmarks.overhead import overhead
from benchmarks.reading import DATA, bars, into, machine
from benchmarks.timing import Bar, Table, Way, compare
from medmllm_plugin.models import Ask
from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.loading import Loaded, load
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.models.transformers import TransformersModel, open_model
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart
from tests.tiny_model import tiny_folder

MARKS = ("<!-- engine: begin -->", "<!-- engine: end -->")
OURS = "ours"
README = "the README way"
FIRST, SECOND = "first question on the study", "second question on the study"
SYSTEM = "You are an expert radiologist."
ALIKE = 48
"""Tokens that both ways write before they are timed, which must be the same."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Both:
    """The same model, opened by us and as transformers opens it."""

    ours: TransformersModel
    theirs: Loaded


def both() -> Both:
    """The tests' Qwen2.5-VL: two layers of vision, two of language, hidden size 64, random weights."""
    folder = str(tiny_folder(seed=1))
    theirs = load(open_folder(folder), TransformersOptions(device_map="cpu", attention="sdpa"))
    return Both(ours=open_model(f"{folder}?device_map=cpu&attention=sdpa"), theirs=theirs)


def slices(count: int, side: int) -> list[Pixels]:
    """Grey pictures as slice sets have them: three channels that are one memory."""
    generator = np.random.default_rng(side)
    planes = generator.integers(0, 256, (count, side, side, 1), dtype=np.uint8)
    return [np.broadcast_to(plane, (side, side, 3)) for plane in planes]


def by_us(model: TransformersModel, pictures: Sequence[Pixels], question: str, *, tokens: int = 1) -> str:
    """The reply through the package."""
    parts: list[TextPart | PicturePart] = []
    for number, pixels in enumerate(pictures, 1):
        parts += [TextPart(text=f"<image_{number}>: "), PicturePart(number=number, pixels=pixels)]
    prompt = Prompt(system=SYSTEM, parts=(*parts, TextPart(text=question)))
    (reply,) = model.replies([Ask(prompt=prompt, schema=None, max_tokens=tokens)])
    return reply.text


def readme_inputs(of: Loaded, pictures: Sequence[Pixels], question: str) -> Any:
    """What the README of Lingshu makes of slices for `generate`."""
    from PIL import Image
    from qwen_vl_utils import process_vision_info

    content: list[dict[str, Any]] = []
    for number, pixels in enumerate(pictures, 1):
        content.append({"type": "text", "text": f"<image_{number}>: "})
        content.append({"type": "image", "image": Image.fromarray(np.ascontiguousarray(pixels))})
    messages = [
        {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
        {"role": "user", "content": [*content, {"type": "text", "text": question}]},
    ]
    text = of.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    images, videos = process_vision_info(messages)
    return of.processor(text=[text], images=images, videos=videos, padding=True, return_tensors="pt")


def by_readme(of: Loaded, pictures: Sequence[Pixels], question: str, *, tokens: int = 1) -> str:
    """The reply as the README of Lingshu gets it; scores that stand for no token are left out, as by us."""
    import torch

    inputs = readme_inputs(of, pictures, question)
    none = list(range(len(of.processor.tokenizer), of.model.config.text_config.vocab_size))
    with torch.inference_mode():
        written = of.model.generate(**inputs, max_new_tokens=tokens, suppress_tokens=none)
    reply = written[0, inputs["input_ids"].shape[1] :]
    words: str = of.processor.tokenizer.decode(reply, skip_special_tokens=True)
    return words


def check_alike(models: Both, pictures: Sequence[Pixels], question: str) -> int:
    """See that both ways make the same prompt of slices and write the same; returns its tokens."""
    parts = [PicturePart(number=number, pixels=pixels) for number, pixels in enumerate(pictures, 1)]
    labelled = [one for part in parts for one in (TextPart(text=f"<image_{part.number}>: "), part)]
    prompt = Prompt(system=SYSTEM, parts=(*labelled, TextPart(text=question)))
    mine = models.theirs.family.words(models.theirs.processor, prompt)["input_ids"][0].tolist()
    theirs = readme_inputs(models.theirs, pictures, question)["input_ids"][0].tolist()
    assert mine == theirs, "the prompts differ"
    replies = (
        by_us(models.ours, pictures, question, tokens=ALIKE),
        by_readme(models.theirs, pictures, question, tokens=ALIKE),
    )
    assert replies[0] == replies[1], "the replies differ"
    return len(mine)


def first_token(models: Both, *, count: int, side: int, rounds: int) -> Table:
    """From slices in memory to the first token, beside the README way."""
    pictures = slices(count, side)
    tokens = check_alike(models, pictures, "Report.")
    return compare(
        f"{count} slices of {side} x {side} px to the first token",
        f"From uint8 pictures in memory; {tokens} tokens, nothing remembered. The README way is that of "
        "Lingshu: Pillow → `process_vision_info` → processor → `generate`. Both made the same token ids and "
        f"wrote the same {ALIKE} tokens first.",
        [
            Way(
                name=OURS,
                run=partial(by_us, models.ours, pictures, "Report."),
                before=models.ours.forget,
            ),
            Way(name=README, run=partial(by_readme, models.theirs, pictures, "Report.")),
        ],
        check=_same(),
        rounds=rounds,
        base=README,
        bars=[
            Bar(
                what=f"time to first token, {count} x {side} px",
                ours=OURS,
                other=README,
                limit=0.6,
                floor=True,
            )
        ],
    )


def second_question(models: Both, *, count: int, side: int, rounds: int) -> Table:
    """Another question on a study, beside the first."""
    pictures = slices(count, side)
    ask = partial(by_us, models.ours, pictures)
    fresh = open_model(f"{tiny_folder(seed=1)}?device_map=cpu&attention=sdpa&memory=0")
    ask("Report.")
    assert ask("Any nodule?", tokens=ALIKE) == by_us(fresh, pictures, "Any nodule?", tokens=ALIKE)
    return compare(
        f"{count} slices of {side} x {side} px: a second question, to its first token",
        f"The first question with nothing remembered, the second with the study remembered: keys, values and "
        f"vision tokens. The second gets the same {ALIKE} tokens as from a model that remembers nothing.",
        [
            Way(name=FIRST, run=partial(ask, "Any nodule?"), before=models.ours.forget),
            Way(name=SECOND, run=partial(ask, "Any nodule?"), before=partial(ask, "Report.")),
        ],
        check=_same(),
        rounds=rounds,
        base=SECOND,
        bars=[Bar(what=f"second question, {count} x {side} px", ours=SECOND, other=FIRST, limit=5)],
    )


def _same() -> Callable[[str, Any], str]:
    """A check that all ways say the same."""
    said: list[Any] = []

    def check(name: str, result: Any) -> str:
        said.append(result)
        assert result == said[0], f"{name} says something else"
        return "equal"

    return check


@click.command()
@click.option("--small", is_flag=True, help="Few small pictures: for checks, not for figures.")
@click.option("--rounds", default=7, show_default=True, help="How often each way is timed.")
@click.option("--data", type=click.Path(path_type=Path), default=DATA, help="Where the series is kept.")
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Put the tables into this page.")
def main(small: bool, rounds: int, data: Path, write: Path | None) -> None:
    """Print the tables and which bars are met."""
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    words = machine()
    click.echo(words)
    with threads(1):
        models = both()
        sizes = [(4, 84)] if small else [(32, 512), (32, 336), (32, 112)]
        tables = [first_token(models, count=count, side=side, rounds=rounds) for count, side in sizes]
        tables.append(
            second_question(models, count=4 if small else 64, side=84 if small else 504, rounds=rounds)
        )
        tables.append(overhead(data, small=small, rounds=rounds))
    judged = bars([bar for table in tables for bar in table.bars])
    page = "\n\n".join([words, judged, *(table.markdown() for table in tables)])
    click.echo(page)
    if write is not None:
        into(write, page, marks=MARKS)


if __name__ == "__main__":
    main()
