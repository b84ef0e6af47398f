"""Which series of a study is read, and studies and patients that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    SegmentationStorage,
    generate_uid,
)

from medmllm_plugin.errors import GeometryError, StudyError
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.reading import read_volume
from tests.builders import (
    a_dataset,
    save,
    set_pixels,
    write_ct_series,
    write_mr_series,
    write_rtstruct,
    write_sr,
)


def test_the_original_axial_series_is_chosen_and_the_others_are_told(tmp_path: Path) -> None:
    uid = generate_uid()
    write_ct_series(
        tmp_path / "scout",
        slices=1,
        SeriesNumber=1,
        SeriesInstanceUID=uid,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    write_ct_series(tmp_path / "axial", slices=6, SeriesNumber=2)
    write_ct_series(
        tmp_path / "coronal",
        slices=9,
        orientation=(1, 0, 0, 0, 0, -1),
        SeriesNumber=3,
        SeriesInstanceUID=generate_uid(),
        ImageType=["DERIVED", "PRIMARY", "MPR"],
    )
    write_ct_series(
        tmp_path / "screens",
        slices=2,
        SeriesNumber=9,
        SeriesInstanceUID=generate_uid(),
        ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"],
    )
    write_sr(tmp_path / "report.dcm")

    volume = read_volume([tmp_path])

    assert len(volume) == 6
    assert volume.notes == (
        "series 2 (CT, 6 images) was chosen: first of 3 series by being original rather than derived",
        "left out series 1 (CT, 1 image): localizers",
        "left out series 3 (CT, 9 images): derived, 9 in one stack",
        "left out series 9 (CT, 2 images): secondary images (screens, or made from other images)",
        "left out files: 1 SR",
    )


@pytest.mark.parametrize("name", ["3", "1.2.3.4.5", "1.2.3.4", "4.5"])
def test_a_series_is_picked_by_number_uid_or_part_of_it(tmp_path: Path, name: str) -> None:
    write_ct_series(tmp_path / "many", slices=6, SeriesNumber=2)
    write_ct_series(tmp_path / "few", slices=1, SeriesNumber=3, SeriesInstanceUID="1.2.3.4.5")

    volume = read_volume([tmp_path], series=name)

    assert volume.study.series_instance_uid == "1.2.3.4.5"
    assert volume.notes[0] == "series 3 (CT, 1 image) was chosen: it was asked for"


@pytest.mark.parametrize("name", ["77", "1.2"])
def test_a_series_that_is_not_there_or_not_one_is_refused(tmp_path: Path, name: str) -> None:
    write_ct_series(tmp_path / "a", slices=1, SeriesNumber=2, SeriesInstanceUID="1.2.3")
    write_ct_series(tmp_path / "b", slices=1, SeriesNumber=3, SeriesInstanceUID="1.2.4")

    with pytest.raises(StudyError, match=rf"series 2 .*series 3 .*expected one series that '{name}' names"):
        read_volume([tmp_path], series=name)


@pytest.mark.parametrize("name", ["2", "5", "45", "12345"])
def test_a_number_that_the_study_lacks_is_no_part_of_a_uid(tmp_path: Path, name: str) -> None:
    write_ct_series(tmp_path, slices=1, SeriesNumber=1, SeriesInstanceUID="2.25.140212345")

    with pytest.raises(StudyError, match=f"expected one series that '{name}' names"):
        read_volume([tmp_path], series=name)
    assert len(read_volume([tmp_path], series="212345")) == 1


def test_a_modality_limits_the_choice(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "ct", slices=6)
    write_mr_series(tmp_path / "mr", slices=5, SeriesInstanceUID="1.2.3")

    assert read_volume([tmp_path], modality="MR").study.modality == "MR"


def test_two_patients_are_refused_without_their_names(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=1)
    write_ct_series(tmp_path / "b", slices=1, PatientName="Other^Person")

    with pytest.raises(StudyError, match=r"2 patients \(they differ in PatientName\)") as told:
        read_volume([tmp_path])

    assert "Other" not in str(told.value)


def test_free_text_of_a_header_reaches_no_note_and_no_error(tmp_path: Path) -> None:
    secret = {
        "Modality": "Doe^John",
        "SeriesDescription": "Doe^John",
        "PatientName": "Doe^John",
        "RescaleType": "Doe^John",
        "ImageType": ["ORIGINAL", "PRIMARY", "Doe^John"],
    }
    with quiet():
        write_ct_series(tmp_path / "shown", slices=2, SeriesNumber=1, **secret)
        write_ct_series(
            tmp_path / "left out",
            slices=1,
            SeriesNumber=2,
            SeriesInstanceUID="1.2.3",
            **secret,
            PhotometricInterpretation="Doe^John",
        )

    volume = read_volume([tmp_path])
    with pytest.raises(StudyError) as told:
        read_volume([tmp_path], series="77")

    assert "Doe" not in "\n".join(volume.notes) + str(told.value)
    assert volume.study.modality == "CT"


def test_one_name_in_two_character_sets_is_one_patient(tmp_path: Path) -> None:
    latin = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "M\u00fcller^Test"}
    decomposed = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Mu\u0308ller^Test"}
    write_ct_series(tmp_path / "a", slices=1, **latin)
    write_ct_series(tmp_path / "b", slices=1, origin=(-20, -30, 102), **decomposed)

    volume = read_volume([tmp_path])

    assert len(volume) == 2


@pytest.mark.parametrize("slope", ["1e300", "-1e38"])
def test_a_rescale_that_no_value_survives_is_refused(tmp_path: Path, slope: str) -> None:
    write_ct_series(tmp_path, slices=2, RescaleSlope=slope)

    with pytest.raises(GeometryError, match=r"Rescale Slope .* absurd"):
        read_volume([tmp_path])


def test_an_unknown_photometric_interpretation_is_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=1, PhotometricInterpretation="FOO")

    volume = read_volume([tmp_path])

    assert "Photometric Interpretation (0028,0004) is missing or unknown" in "\n".join(volume.notes)


def test_an_empty_birth_date_is_no_other_patient(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=1)
    write_ct_series(
        tmp_path / "b", slices=2, positions=[2, 4], PatientBirthDate="", PatientName="TEST^BUILDER^"
    )

    assert len(read_volume([tmp_path])) == 3


def test_two_studies_are_refused_unless_a_series_is_named(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "a", slices=2, seed="now", SeriesNumber=1)
    write_ct_series(tmp_path / "b", slices=2, seed="then", SeriesNumber=2)

    with pytest.raises(StudyError, match="2 studies"):
        read_volume([tmp_path])
    assert len(read_volume([tmp_path], series="2")) == 2


def test_the_same_instance_twice_counts_once(tmp_path: Path) -> None:
    write_ct_series(tmp_path, slices=3)

    volume = read_volume([tmp_path, tmp_path])

    assert len(volume) == 3
    assert "3 repeats an instance that is there already" in "\n".join(volume.notes)


def test_only_objects_that_are_no_images_are_refused_by_name(tmp_path: Path) -> None:
    write_sr(tmp_path / "report.dcm")
    write_rtstruct(tmp_path / "contours.dcm")
    segmentation = a_dataset(sop_class=SegmentationStorage, modality="SEG")
    set_pixels(segmentation, np.zeros((2, 4, 4), np.uint8))
    save(segmentation, tmp_path / "segmentation.dcm")

    with pytest.raises(StudyError, match=r"no images \(1 RTSTRUCT, 1 SR, 1 Segmentation\)"):
        read_volume([tmp_path])
