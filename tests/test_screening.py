"""Pictures that leave this machine are looked at for words; where nobody can, that is said or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medmllm_plugin import registry
from medmllm_plugin.config import Settings
from medmllm_plugin.dicom_bridge import screening
from medmllm_plugin.dicom_bridge.node_settings import BurnedIn
from medmllm_plugin.dicom_bridge.opened_models import Models
from medmllm_plugin.dicom_bridge.screening import Reader, Screened, screened
from medmllm_plugin.errors import BurnedInTextError, SettingsError
from medmllm_plugin.models import Ask, Model, Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart

Picture = NDArray[np.uint8]


def elsewhere(*replies: str) -> ScriptedModel:
    """A scripted model that says that it sends pictures away."""
    return ScriptedModel(replies, capabilities=replace(ANYTHING, sends_to=("gpu.example",)))


@dataclass
class Counting:
    """Says which pictures have words, and how often it was asked."""

    has_words: Callable[[Picture], int] = lambda pixels: int(pixels.max() > 200)
    asked: int = 0

    def words(self, pixels: Picture) -> int:
        self.asked += 1
        return self.has_words(pixels)


def a_picture(*, words: bool = False) -> Picture:
    return np.full((32, 32, 3), 255 if words else 60, np.uint8)


def an_ask(*pictures: Picture) -> Ask:
    parts = [PicturePart(number=number, pixels=one) for number, one in enumerate(pictures, 1)]
    return Ask(prompt=Prompt(system="", parts=(TextPart(text="Read."), *parts)), schema=None)


def a_model(policy: BurnedIn, reader: object = None) -> Screened:
    return Screened(elsewhere(*["{}"] * 9), policy, reader)  # type: ignore[arg-type]


def told(replies: Sequence[Reply]) -> list[tuple[str, ...]]:
    return [one.notes for one in replies]


def test_a_model_on_this_machine_is_left_alone() -> None:
    model = ScriptedModel(["{}"])

    assert screened(model, BurnedIn.REFUSE) is model


def test_pictures_without_words_are_sent_and_nothing_is_noted() -> None:
    model = a_model(BurnedIn.REFUSE, Counting())

    assert told(model.replies([an_ask(a_picture()), an_ask(a_picture())])) == [(), ()]


def test_a_picture_with_words_is_not_sent() -> None:
    model = a_model(BurnedIn.REFUSE, Counting())

    with pytest.raises(BurnedInTextError, match="1 of 2 pictures"):
        model.replies([an_ask(a_picture(), a_picture(words=True))])

    assert len(model.replies([an_ask(a_picture())])) == 1


def test_words_are_noted_where_they_are_let_through() -> None:
    model = a_model(BurnedIn.WARN, Counting())

    ((note,),) = told(model.replies([an_ask(a_picture(words=True))]))

    assert "1 of 1 pictures" in note


def test_that_nobody_looked_is_noted() -> None:
    ((note,),) = told(a_model(BurnedIn.WARN).replies([an_ask(a_picture())]))

    assert "nobody looked" in note


def test_where_nobody_can_look_and_words_are_refused_the_model_is_not_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(screening, "can_look", lambda: False)

    with pytest.raises(SettingsError, match=r"node\.burned_in: .* gpu\.example"):
        screened(elsewhere("{}"), BurnedIn.REFUSE)

    assert isinstance(screened(elsewhere("{}"), BurnedIn.WARN), Screened)


def test_the_models_of_a_node_are_screened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "open_model", lambda name, settings: elsewhere("{}"))
    models = Models(Settings(), burned_in=BurnedIn.WARN)

    assert isinstance(models.opened("lingshu"), Screened)
    assert models.opened("lingshu") is models.opened("lingshu")


def test_a_screened_model_is_a_model() -> None:
    assert isinstance(a_model(BurnedIn.WARN), Model)


def drawn(*lines: str, shape: tuple[int, int] = (512, 512)) -> Picture:
    picture = Image.fromarray(np.random.default_rng(4).integers(0, 60, (*shape, 3), np.uint8))
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((10, 10 + 40 * number), line, fill=(255, 255, 255), font_size=24)
    return np.array(picture)


def test_words_burned_into_pixels_are_read() -> None:
    pytest.importorskip("rapidocr")
    reader = Reader()

    assert reader.words(drawn()) == 0
    assert reader.words(drawn("L", "R")) == 0
    assert reader.words(drawn("DOE JOHN", "ID 4711-23")) > 0
