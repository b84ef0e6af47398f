"""Images of one direction in one series that were not taken together are told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medmllm_plugin.errors import StudyError
from medmllm_plugin.geometry import Matrix
from medmllm_plugin.transforms.mixed import are_stacks, fields_of_view, jumps, lie_between
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.volume import Volume
from tests.builders import write_ct_series, write_mr_series


def numbered(first: int, **attributes: Any) -> Callable[[int, Dataset], None]:
    """What gives slices rising numbers and some attributes."""

    def change(k: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = first + k
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


def heights(volume: Volume) -> list[float]:
    """Where each plane's first voxel lies, LPS z in mm."""
    return [float(plane.to_patient[2, 3]) for plane in volume.planes if plane.to_patient is not None]


def lefts(volume: Volume) -> set[float]:
    """How far left the planes' first voxels lie, LPS x in mm."""
    return {float(plane.to_patient[0, 3]) for plane in volume.planes if plane.to_patient is not None}


def test_a_second_acquisition_between_the_slices_of_the_first_is_a_stack_of_its_own(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", thickness=5, change=numbered(1, AcquisitionNumber=1))
    shifted = (-20.0, -30.0, 102.5)
    write_ct_series(tmp_path / "b", thickness=5, origin=shifted, change=numbered(9, AcquisitionNumber=2))

    first = read_volume([tmp_path])
    second = read_volume([tmp_path], volume="acquisition number 2")

    assert heights(first) == [100, 105, 110, 115, 120]
    assert heights(second) == [102.5, 107.5, 112.5, 117.5, 122.5]
    assert any("0 (acquisition number 1), 1 (acquisition number 2)" in note for note in first.notes)


def test_passes_that_are_numbered_and_fill_each_others_gaps_stay_one_stack(tmp_path: Path) -> None:
    def change(k: int, dataset: Dataset) -> None:
        dataset.AcquisitionNumber = 1 + k % 2

    write_mr_series(tmp_path, slices=6, thickness=4, change=change)

    volume = read_volume([tmp_path])

    assert len(volume) == 6


@pytest.mark.parametrize("keyword", ["EchoTime", "DiffusionBValue", "TemporalPositionIdentifier"])
def test_contrasts_whose_slices_lie_between_one_another_are_stacks(tmp_path: Path, keyword: str) -> None:
    write_mr_series(tmp_path / "a", thickness=4, change=numbered(1, **{keyword: 1}))
    write_mr_series(tmp_path / "b", thickness=4, origin=(-20, -30, 101), change=numbered(9, **{keyword: 2}))

    volume = read_volume([tmp_path])

    assert heights(volume) == [100, 104, 108, 112, 116]


@pytest.mark.parametrize("between", [0.0, 1.0])
@pytest.mark.parametrize("numbers", [6, 2])
def test_two_fields_of_view_are_never_one_stack(tmp_path: Path, between: float, numbers: int) -> None:
    def change(k: int, dataset: Dataset) -> None:
        dataset.InstanceNumber = numbers + 2 * k

    write_ct_series(tmp_path / "right", origin=(-120, -30, 100), change=numbered(1))
    write_ct_series(tmp_path / "left", origin=(20, -30, 100 + between), change=change)

    volumes = [read_volume([tmp_path], volume=name) for name in ("field of view R 118", "field of view L 22")]

    assert [lefts(volume) for volume in volumes] == [{-120.0}, {20.0}]
    assert [len(volume) for volume in volumes] == [5, 5]


def test_slices_of_another_frame_of_reference_are_a_stack_of_their_own(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", change=numbered(1))
    other = numbered(9, FrameOfReferenceUID="1.2.3.4")
    write_ct_series(tmp_path / "b", slices=4, origin=(-20, -30, 110), change=other)

    volume = read_volume([tmp_path])

    assert heights(volume) == [100, 102, 104, 106, 108]
    assert any("axial 6 x 8, frame of reference 2" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [({"StudyInstanceUID": "1.2.3.4"}, "in 2 studies"), ({"Modality": "PT"}, "of CT and PT")],
)
def test_one_series_uid_for_two_things_is_refused(tmp_path: Path, wrong: dict[str, str], found: str) -> None:
    write_ct_series(tmp_path / "a")
    write_ct_series(tmp_path / "b", origin=(-20, -30, 120), change=numbered(9, **wrong))

    with pytest.raises(StudyError, match=f"one Series Instance UID {found}"):
        read_volume([tmp_path])


def test_a_series_taken_place_by_place_is_told_apart_by_time(tmp_path: Path) -> None:
    for time in range(3):

        def change(k: int, dataset: Dataset, time: int = time) -> None:
            dataset.InstanceNumber = 3 * k + time + 1
            dataset.AcquisitionTime = f"10{k:02d}{10 * time:02d}"

        write_mr_series(tmp_path / str(time), change=change)

    volume = read_volume([tmp_path], volume="time 2")

    assert [int(header.InstanceNumber) for header in volume.headers] == [2, 5, 8, 11, 14]


def a_stack(*, shift: float, slices: int = 8) -> list[Matrix]:
    """Axial planes 2 mm apart, each moved along its columns by `shift` mm more than the one before."""
    matrices = []
    for k in range(slices):
        matrix = np.eye(4)
        matrix[:3, 3] = (-10, shift * k, 2 * k)
        matrices.append(matrix)
    return matrices


@given(shift=st.floats(-1.4, 1.4), slices=st.integers(1, 40))
def test_no_gantry_tilt_takes_a_stack_apart(shift: float, slices: int) -> None:
    matrices = a_stack(shift=shift, slices=slices)

    labels = fields_of_view(matrices, rows=20, columns=20)

    assert not are_stacks(labels)
    assert not jumps(np.array([m[:3, 3] for m in matrices]), np.array([0.0, 0.0, 1.0]))


@given(labels=st.lists(st.sampled_from("abc"), min_size=1), letter=st.sampled_from("abc"))
def test_sorted_labels_never_lie_between_one_another(labels: list[str], letter: str) -> None:
    blocks = sorted(labels)

    assert not lie_between(blocks)
    assert lie_between([*blocks, "x", blocks[-1]])
    assert lie_between([letter, "x", letter])
