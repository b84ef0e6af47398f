"""The reader that knows a phantom by heart sees what is in its pictures, and only that."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medmllm_plugin.errors import ModelError
from medmllm_plugin.models import Ask
from medmllm_plugin.phantoms import PhantomStudy, sample_study
from medmllm_plugin.phantoms.study import mask_box
from medmllm_plugin.prompts import PicturePart, Prompt, TextPart
from medmllm_plugin.transforms.window import Ramp
from medmllm_plugin.truth_reader import TruthReader

EDGES = "axial; the right edge of each picture is {}, its lower edge {}. Grey levels: x."


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return sample_study(seed=4, findings=("mass",), slices=16, matrix=96)


def pictures_of(study: PhantomStudy) -> list[NDArray[np.uint8]]:
    return [Ramp.of_window(*study.scan.window)(study.values(k)) for k in range(study.slices)]


def said(study: PhantomStudy, pictures: list[NDArray[np.uint8]], words: str = "") -> Any:
    """The findings of its reply to these pictures."""
    parts = [
        PicturePart(number=n, pixels=np.repeat(one[..., None], 3, axis=2))
        for n, one in enumerate(pictures, 1)
    ]
    prompt = Prompt(system="", parts=(*parts, TextPart(text=words)))
    (reply,) = TruthReader(study).replies([Ask(prompt=prompt, schema={})])
    return json.loads(reply.text)["findings"]


@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("rows", [1, -1])
@pytest.mark.parametrize("columns", [1, -1])
def test_a_box_frames_the_lesion_however_the_picture_is_turned(
    study: PhantomStudy, exchanged: bool, rows: int, columns: int
) -> None:
    def turned(image: NDArray[Any]) -> NDArray[Any]:
        image = image.T if exchanged else image
        return image[::rows, ::columns]

    (finding,) = said(study, [turned(one) for one in pictures_of(study)])

    true = study.truth()[0].box
    assert true is not None
    assert finding["box"]["picture"] == true.picture
    mask = turned(study.masks(true.picture - 1)[0])
    assert finding["box"]["bbox_2d"] == list(map(int, mask_box(mask)))


def test_a_box_follows_pixels_that_are_shifted(study: PhantomStudy) -> None:
    pictures = pictures_of(study)

    (still,) = said(study, pictures)
    (moved,) = said(study, [np.roll(one, (1, -1), axis=(0, 1)) for one in pictures])

    shift = np.subtract(moved["box"]["bbox_2d"], still["box"]["bbox_2d"])
    assert shift.tolist() == [-1, 1, -1, 1]


def test_the_box_is_on_the_picture_that_shows_most_of_those_given() -> None:
    study = sample_study(seed=4, findings=("cardiomegaly",), slices=24, matrix=96)
    best = study.truth()[0].box
    assert best is not None
    shown = pictures_of(study)[: best.picture - 1]

    (finding,) = said(study, shown)

    assert finding["box"]["picture"] == len(shown)
    assert said(study, pictures_of(study)[-1:]) == []


@pytest.mark.parametrize(
    ("flipped", "letters", "mirrored"),
    [
        (False, ("L", "P"), False),
        (False, ("R", "P"), True),
        (False, ("R", "A"), True),
        (True, ("L", "P"), True),
        (True, ("R", "P"), False),
        (False, ("A", "I"), False),
    ],
)
def test_it_believes_the_prompt_on_left_and_right(
    study: PhantomStudy, flipped: bool, letters: tuple[str, str], mirrored: bool
) -> None:
    pictures = [one[:, ::-1] if flipped else one for one in pictures_of(study)]
    assert study.plane(0).to_patient[0, 0] > 0  # type: ignore[index]

    (finding,) = said(study, pictures, EDGES.format(*letters))

    true = study.truth()[0].side
    assert {"left", "right"} >= {finding["side"], str(true)}
    assert (finding["side"] != true) is mirrored


def test_noise_is_no_image_of_the_phantom(study: PhantomStudy) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)

    with pytest.raises(ModelError, match="picture 1 is like no image of the phantom"):
        said(study, [noise])
    with pytest.raises(ModelError, match="all 2 pictures are blank"):
        said(study, [0 * noise] * 2)
