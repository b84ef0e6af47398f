"""Tests of `medmllm_plugin.transforms.looks`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.source import DicomImage
from medmllm_plugin.transforms.looks import Look, Samples, check_names, look, window_names
from medmllm_plugin.transforms.planes import Planes
from medmllm_plugin.transforms.window import PRESETS, Ramp
from medmllm_plugin.volume import Volume
from tests.values import CT_IMAGE_STORAGE, a_volume


def a_look(name: str, volume: Volume) -> Look:
    """A look at all slices of a volume."""
    planes = Planes.read(volume, range(len(volume)))
    return look(name, volume, planes, lambda: Samples(values=planes.coarse(), words="the slices shown"))


def with_headers(volume: Volume, *headers: Dataset) -> Volume:
    return replace(volume, headers=headers)


def a_header(**elements: Any) -> Dataset:
    header = Dataset()
    with config.disable_value_validation():
        for keyword, value in elements.items():
            setattr(header, keyword, value)
    return header


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("CHEST", "ct-chest"),
        ("HEAD ", "ct-head"),
        ("ABDOMENPELVIS", "ct-abdomen"),
        ("LSPINE", "ct-skeleton"),
    ],
)
def test_the_body_part_is_a_hint_only_where_the_plan_says_auto(part: str, name: str) -> None:
    volume = with_headers(a_volume(1), a_header(BodyPartExamined=part))

    assert window_names(None, volume) == (("ct",), "")
    names, why = window_names("auto", volume)
    assert names == (name,)
    assert why == f"chosen by Body Part Examined (0018,0015), which says {part.strip()}"


def test_free_text_of_a_header_does_not_get_into_the_words() -> None:
    volume = with_headers(a_volume(1), a_header(BodyPartExamined="C H-E<S>T"))

    assert window_names("auto", volume)[1].endswith("which says CHEST")


@pytest.mark.parametrize(
    ("volume", "name"),
    [
        (a_volume(1), "ct"),
        (with_headers(a_volume(1), a_header(BodyPartExamined="PHANTOM")), "ct"),
        (with_headers(a_volume(1, modality="MR", unit=""), a_header(BodyPartExamined="CHEST")), "body"),
        (a_volume(1, modality="CT", unit=""), "body"),
        (a_volume(1, modality="DX", unit="", placed=False), "header"),
    ],
)
def test_auto_without_a_usable_hint_goes_by_modality(volume: Volume, name: str) -> None:
    assert window_names("auto", volume) == ((name,), "")


def test_several_windows_are_several_pictures() -> None:
    assert window_names("ct-lung+ct-bone", a_volume(1)) == (("ct-lung", "ct-bone"), "")


@pytest.mark.parametrize("setting", ["ct+header:2+body", "auto", "slice-range", "percentile"])
def test_windows_that_are_there_are_let_pass(setting: str) -> None:
    check_names(setting)


@pytest.mark.parametrize("setting", ["", "lung", "ct+", "ct:2", "header:0", "header:x", "auto+ct", "body:1"])
def test_windows_that_are_none_are_refused(setting: str) -> None:
    with pytest.raises(SettingsError, match="window"):
        check_names(setting)


def test_medgemma_s_windows_reach_exactly_from_end_to_end() -> None:
    (channels,) = a_look("ct-medgemma", a_volume(1)).windows

    ends = [(ramp.low, ramp.low + ramp.span) for ramp in channels if isinstance(ramp, Ramp)]
    assert ends == [(-1024, 1024), (-135, 215), (0, 80)]
    assert channels[0](np.array([-1024, 0, 1024], np.float32)).tolist() == [0, 128, 255]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_needs_hounsfield_units(name: str) -> None:
    with pytest.raises(SettingsError, match="needs Hounsfield units, but these PT values have unit SUVbw"):
        a_look(name, a_volume(1, modality="PT", unit="SUVbw"))


def test_the_background_of_an_mr_is_left_out_of_its_percentiles() -> None:
    values = np.zeros((400, 400), np.float32)
    values[100:300, 100:300] = np.linspace(400, 800, 40_000).reshape(200, 200)
    volume = a_volume(1, rows=400, columns=400, modality="MR", unit="", values=lambda k: values)

    body, whole = a_look("body", volume), a_look("percentile", volume)

    (ramp,) = body.windows[0]
    assert isinstance(ramp, Ramp)
    assert 400 <= ramp.low < 405
    assert "of the body in the slices shown" in body.words
    assert "percentile 0.5 (0)" in whole.words
    assert "body" not in whole.words


def test_each_slice_may_have_its_own_range() -> None:
    volume = a_volume(
        3, modality="MR", unit="", values=lambda k: np.linspace(k, 10 * k + 1, 56 * 56).reshape(56, 56)
    )

    ranges = [one[0] for one in a_look("slice-range", volume).windows]

    assert ranges == [Ramp(low=float(k), span=9.0 * k + 1) for k in range(3)]


def test_a_slice_without_any_number_has_a_range() -> None:
    volume = a_volume(1, unit="", modality="MR", values=lambda k: np.full((56, 56), np.nan, np.float32))

    assert a_look("slice-range", volume).windows == ((Ramp(low=0.0, span=1.0),),)


def test_a_later_window_of_the_header_can_be_chosen() -> None:
    header = a_header(WindowCenter=[40, -600], WindowWidth=[400, 1500])
    volume = with_headers(a_volume(2), header, header)

    first, second = a_look("header", volume), a_look("header:2", volume)

    assert first.windows[0][0] == Ramp.of_window(40, 400)
    assert second.windows[1][0] == Ramp.of_window(-600, 1500)
    assert "-600/1500" in second.words


def test_slices_with_one_window_share_one_function() -> None:
    headers = [a_header(WindowCenter=40, WindowWidth=400) for _ in range(3)]

    functions = {id(one[0]) for one in a_look("header", with_headers(a_volume(3), *headers)).windows}

    assert len(functions) == 1


def test_slices_with_windows_of_their_own_keep_them() -> None:
    headers = [a_header(WindowCenter=100 * k, WindowWidth=50 + k) for k in range(3)]

    found = a_look("header", with_headers(a_volume(3), *headers))

    assert [one[0] for one in found.windows] == [Ramp.of_window(100 * k, 50 + k) for k in range(3)]
    assert found.words == "window of each image's own header"


def test_a_window_that_not_every_image_has_is_refused_if_asked_for_by_number() -> None:
    headers = [
        a_header(WindowCenter=[40, 50], WindowWidth=[400, 80]),
        a_header(WindowCenter=40, WindowWidth=400),
    ]

    with pytest.raises(SettingsError, match="window number 2 of the header was asked for, but not every"):
        a_look("header:2", with_headers(a_volume(2), *headers))


def test_without_a_window_in_the_header_percentiles_stand_in() -> None:
    assert a_look("header", a_volume(3, unit="", modality="CR")).words.startswith(
        "grey levels from percentile"
    )


def test_frames_have_their_windows_in_functional_groups() -> None:
    def a_group(center: float) -> Dataset:
        return a_header(FrameVOILUTSequence=Sequence([a_header(WindowCenter=center, WindowWidth=100)]))

    header = a_header(
        SOPInstanceUID="1.2.3.4", PerFrameFunctionalGroupsSequence=Sequence([a_group(10), a_group(20)])
    )
    volume = a_volume(2)
    planes = tuple(
        replace(
            plane,
            source=DicomImage(
                sop_class_uid=CT_IMAGE_STORAGE,
                sop_instance_uid="1.2.3.4",
                series_instance_uid="1.2.3",
                frame=n,
            ),
        )
        for n, plane in enumerate(volume.planes, 1)
    )

    found = a_look("header", with_headers(replace(volume, planes=planes), header))

    assert [one[0] for one in found.windows] == [Ramp.of_window(10, 100), Ramp.of_window(20, 100)]


def test_monochrome1_is_inverted_in_all_that_has_no_unit() -> None:
    volume = a_volume(
        1,
        unit="",
        modality="MR",
        inverted=True,
        window=(500, 100),
        values=lambda k: np.linspace(0, 1000, 3136, dtype=np.float32).reshape(56, 56),
    )

    for name in ("header", "percentile", "body", "slice-range"):
        grey = a_look(name, volume).of(0)[0](np.array([0, 1000], np.float32))
        assert grey.tolist() == [255, 0], name
