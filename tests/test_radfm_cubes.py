"""Tests of `models.radfm.cubes` and `volumes`: what RadFM is shown, and the way back from there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.geometry import apply
from medmllm_plugin.models.radfm.cubes import cubes, nearest, spread
from medmllm_plugin.models.radfm.sizes import DEPTHS, VisionSizes, prompt_size
from medmllm_plugin.prompts import PicturePart, TextPart, VolumePart
from medmllm_plugin.request import Exchange
from medmllm_plugin.sliceset import joined
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volumes import stacks, volume_prompt
from tests.values import AXIAL, CORONAL, OBLIQUE_TURN, SAGITTAL, a_request, a_stack, a_volume


def a_volume_part(*, slices: int = 5, side: int = 64, first: int = 1) -> VolumePart:
    """Pictures that each have one level, all of them different."""
    planes = tuple(np.full((side, side, 3), 5 * k, np.uint8) for k in range(1, slices + 1))
    return VolumePart(number=1, pictures=tuple(range(first, first + slices)), planes=planes)


def a_picture(*, side: int = 64, number: int = 1) -> PicturePart:
    return PicturePart(number=number, pixels=np.full((side, side, 3), 51, np.uint8))


@given(st.lists(st.integers(1, 64), min_size=1, max_size=6))
def test_the_size_of_a_prompt_leaves_out_no_slice(depths: list[int]) -> None:
    side, depth = prompt_size(depths)

    assert depth in DEPTHS
    assert max(depths) <= depth < max(depths) + 4 or depth == 4
    assert side == (256 if len(depths) == 1 and max(depths) > 4 else 512)


@pytest.mark.parametrize("target", [256, 512, *DEPTHS])
def test_neighbours_are_chosen_as_torch_chooses_them(target: int) -> None:
    for source in range(1, 65):
        line = torch.arange(source, dtype=torch.float32)[None, None]
        expected = torch.nn.functional.interpolate(line, size=target, mode="nearest")[0, 0]

        found = torch.from_numpy(nearest(source, target))
        on_an_edge = torch.arange(target) * source % target == 0  # where float32 may fall below
        assert torch.equal(found[~on_an_edge], expected.long()[~on_an_edge])
        assert (found - expected).abs().max() <= 1


def test_a_volume_becomes_a_cube_and_a_picture_four_equal_slices() -> None:
    alone, (single,) = cubes([a_volume_part()])[0], cubes([a_picture()])
    both = cubes([a_picture(), a_volume_part(first=2)])

    assert alone.levels.shape == (8, 256, 256, 3)
    assert alone.pictures == (1, 1, 2, 2, 3, 4, 4, 5)
    assert [int(plane.max()) for plane in alone.levels] == [5, 5, 10, 10, 15, 20, 20, 25]
    assert single.levels.shape == (4, 512, 512, 3)
    assert single.pictures == (1, 1, 1, 1)
    assert [one.levels.shape for one in both] == [(8, 512, 512, 3)] * 2
    assert both[1].pictures == (2, 2, 3, 3, 4, 5, 5, 6)


def test_a_grey_cube_takes_the_memory_of_one_channel() -> None:
    grey = np.broadcast_to(np.zeros((64, 64, 1), np.uint8), (64, 64, 3))

    (cube,) = cubes([VolumePart(number=1, pictures=(1, 2), planes=(grey, grey))])

    assert cube.levels.strides[3] == 0


def test_a_volume_with_more_slices_than_its_prompt_shows_is_refused() -> None:
    many = [a_volume_part(slices=40), *[a_picture()] * 6]

    with pytest.raises(ValueError, match="found a volume of 40 slices, expected 32 at most in this prompt"):
        cubes(many)


def test_levels_of_a_volume_are_spread_and_those_of_a_picture_are_not() -> None:
    levels = np.array([100, 150, 200], np.uint8)

    assert spread(levels, volume=True).tolist() == [0.0, 0.5, 1.0]
    assert spread(levels, volume=False) == pytest.approx(levels / 255)
    assert spread(np.full(3, 9, np.uint8), volume=True).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [32, 256, 320])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_a_place_in_the_cube_is_the_very_place_in_the_patient(size: int, tilt: float) -> None:
    stack = a_stack(22, orientation=OBLIQUE_TURN, spacing=(0.8, 0.8), step=2.5, tilt=tilt)
    volume = a_volume(22, rows=64, columns=64)
    planes = [replace(plane, to_patient=way) for plane, way in zip(volume.planes, stack, strict=True)]
    slices = SlicePlan(count=20, size=size, square=True, multiple=32).apply(replace(volume, planes=planes))
    numbers = tuple(range(1, len(slices) + 1))
    part = VolumePart(number=1, pictures=numbers, planes=tuple(one.pixels for one in slices.slices))
    (cube,) = cubes([part])
    depth, rows, columns = 7.0, 100.25, 31.0

    found = cube.to_patient(slices, [[depth, rows, columns], [0.4, -0.5, 255.5]])

    k = [plane.source for plane in volume.planes].index(slices.picture(cube.pictures[7]).source)
    scale = 64 / 256  # the image's pixels in one of the cube, edge to edge
    column, row = ((one + 0.5) * scale - 0.5 for one in (columns, rows))
    assert found[0] == pytest.approx(apply(stack[k], (column, row, 0.0)), abs=1e-6)
    assert found[1] == pytest.approx(apply(stack[0], (63.5, -0.5, 0.0)), abs=1e-6)


def test_a_place_outside_of_the_cube_is_refused() -> None:
    (cube,) = cubes([a_volume_part()])

    with pytest.raises(ValueError, match="outside of a cube of 8 x 256 x 256 voxels"):
        cube.in_pictures((8.0, 0.0, 0.0))


def test_slices_of_one_stack_are_a_volume_and_all_others_stand_by_themselves() -> None:
    axial = SlicePlan(count=4, size=56).apply(a_volume(4))
    windows = SlicePlan(count=8, size=56, window="ct-lung+ct-bone").apply(a_volume(4))
    flat = SlicePlan(count=2, size=56).apply(a_volume(2, placed=False))
    montage = SlicePlan(count=1, size=112, montage="2x2").apply(a_volume(4))

    assert stacks(axial) == [(1, 2, 3, 4)]
    assert sorted(map(len, stacks(windows))) == [4, 4]
    assert stacks(flat) == [(1,), (2,)]
    assert stacks(montage) == [(1,)]


def test_several_series_are_a_volume_each() -> None:
    one = SlicePlan(count=3, size=56).apply(a_volume(3))
    other = replace(one, study=replace(one.study, series_instance_uid="1.2.4"))

    assert stacks(joined([one, other])) == [(1, 2, 3), (4, 5, 6)]


def test_a_prompt_has_volumes_then_a_short_question_and_cites_every_picture() -> None:
    slices = SlicePlan(count=4, size=56).apply(a_volume(4))
    request = a_request(slices=slices, priors=(replace(slices, days_before=30),), task="compare")

    prompt = volume_prompt(request, ["Known of the patient: <data>age: 64</data>."])

    kinds = [type(part) for part in prompt.parts]
    assert kinds == [TextPart, VolumePart, TextPart, VolumePart, TextPart]
    assert [one.pictures for one in prompt.images if isinstance(one, VolumePart)] == [
        (1, 2, 3, 4),
        (5, 6, 7, 8),
    ]
    assert "30 days before" in prompt.text
    assert prompt.text.endswith("Known of the patient: <data>age: 64</data>.")
    assert "<volume_2>" in prompt.text
    assert prompt.sha256 != replace(prompt, parts=prompt.parts[:-2]).sha256


def test_every_task_that_shows_pictures_can_be_put_in_a_short_question() -> None:
    spoken = {name: one.said_in("en").volume for name, one in TASKS.items() if one.needs_pictures}

    assert all(len(words) < 200 for words in spoken.values())
    assert {name for name, words in spoken.items() if not words} == {"locate"}


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (AXIAL, (False, False)),
        ((-1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (False, True)),
        ((1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (True, False)),
        ((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0), (True, True)),
        (CORONAL, (False, False)),
        ((-1.0, 0.0, 0.0, 0.0, 0.0, 1.0), (True, True)),
        (SAGITTAL, (False, False)),
    ],
)
def test_pictures_are_shown_with_the_patient_s_right_on_the_left(
    orientation: tuple[float, ...], turned: tuple[bool, bool]
) -> None:
    corner = np.zeros((56, 56), np.float32)
    corner[:28, :28] = 300.0
    volume = a_volume(5, orientation=orientation, values=lambda k: corner)
    slices = SlicePlan(count=5, size=56, window="ct-soft-tissue").apply(volume)

    prompt = volume_prompt(a_request(slices=slices))

    (part,) = prompt.images
    assert isinstance(part, VolumePart)
    assert part.turned == turned
    (cube,) = cubes(prompt.images)
    bright = np.argwhere(cube.levels[0, :, :, 0] == cube.levels.max()).mean(axis=0)
    at = cube.to_patient(slices, [0.0, *bright])
    assert at == pytest.approx(slices.to_patient(1, [13.5, 13.5]), abs=1e-6)
    left, right = cube.to_patient(slices, [[0.0, 128.0, 0.0], [0.0, 128.0, 255.0]])
    assert right[0] > left[0] or orientation == SAGITTAL


def test_a_picture_alone_is_turned_as_well() -> None:
    slices = SlicePlan(count=1, size=56).apply(a_volume(1, orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)))

    (part,) = volume_prompt(a_request(slices=slices)).images

    assert isinstance(part, VolumePart)
    assert part.turned == (False, True)


def test_pictures_that_lie_on_their_side_are_refused() -> None:
    slices = SlicePlan(count=3, size=56).apply(a_volume(3, orientation=(0.0, 1.0, 0.0, 1.0, 0.0, 0.0)))

    with pytest.raises(SettingsError, match="found axial pictures whose right edge is P and lower edge L"):
        volume_prompt(a_request(slices=slices))


def test_choices_and_earlier_questions_go_with_the_last_one() -> None:
    slices = SlicePlan(count=4, size=56).apply(a_volume(4))
    request = a_request(
        slices=slices,
        task="question",
        question="Is there a nodule?",
        choices=("yes", "no"),
        history=(Exchange(question="Which organ?", answer="The lung."),),
    )

    prompt = volume_prompt(request)

    assert prompt.text.splitlines()[-2:] == ["<user> Is there a nodule?", "yes; no?"]
    assert "Which organ?\n<assistant> The lung." in prompt.text


def test_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden: found 64, expected a multiple of 3"):
        VisionSizes(hidden=64)
    with pytest.raises(ValueError, match="layers: found 0"):
        VisionSizes(layers=0)
