"""Tests of `medmllm_plugin.transforms.suv`, and of PET series read in SUV."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage

from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.suv import suv_of
from tests.builders import write_ct_series

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[2] / "shared" / "data"))
HALF_LIFE = 6586.2


def a_pet(**attributes: Any) -> Dataset:
    """An FDG PET: 70 kg, 350 MBq at 09:00, scanned at 10:00, its values in Bq/ml at the scan's start.

    Attributes of the Radiopharmaceutical Information Sequence go there; None removes one.
    """
    pet, drug, nuclide = Dataset(), Dataset(), Dataset()
    pet.SOPClassUID = PositronEmissionTomographyImageStorage
    pet.Units, pet.DecayCorrection = "BQML", "START"
    pet.CorrectedImage = ["NORM", "ATTN", "SCAT", "DECY"]
    pet.PatientWeight = 70
    pet.SeriesDate = pet.AcquisitionDate = "20260102"
    pet.SeriesTime, pet.AcquisitionTime = "100000", "100000.00"
    pet.FrameReferenceTime, pet.ActualFrameDuration = 0, 120000
    nuclide.CodeMeaning = "^18^Fluorine"
    drug.RadionuclideCodeSequence = [nuclide]
    drug.RadiopharmaceuticalStartTime = "090000"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = 350e6, HALF_LIFE
    pet.RadiopharmaceuticalInformationSequence = [drug]
    for keyword, value in attributes.items():
        target = drug if keyword.startswith("Radio") else pet
        if value is None:
            delattr(target, keyword)
        else:
            setattr(target, keyword, value)
    return pet


def expected(minutes: float) -> float:
    """70 kg and 350 MBq, decayed for so many minutes."""
    return 70000 / (350e6 * 2 ** (-60 * minutes / HALF_LIFE))


def test_activity_is_divided_by_the_dose_left_at_the_start_of_the_scan() -> None:
    suv = suv_of([a_pet()])

    assert suv.factor == pytest.approx(expected(60))
    assert suv.unit == "SUVbw"
    assert "decayed for 60 minutes, the scan's start by Series Time" in suv.how


def test_values_corrected_to_the_injection_are_divided_by_the_whole_dose() -> None:
    assert suv_of([a_pet(DecayCorrection="ADMIN")]).factor == pytest.approx(expected(0))


def test_later_bed_positions_have_the_factor_of_the_first() -> None:
    beds = [a_pet(AcquisitionTime=time, FrameReferenceTime=0) for time in ("100000", "100300", "102400")]

    assert suv_of(beds).factor == pytest.approx(expected(60))


def test_an_injection_before_midnight_was_the_day_before() -> None:
    late = a_pet(RadiopharmaceuticalStartTime="233000", SeriesTime="003000.5", AcquisitionTime="003000.5")

    assert suv_of([late]).factor == pytest.approx(expected(60 + 0.5 / 60))


def test_a_shifted_date_of_the_injection_does_no_harm() -> None:
    shifted = a_pet(RadiopharmaceuticalStartDateTime="20260103090000.00")

    assert suv_of([shifted]).factor == pytest.approx(expected(60))


def test_a_series_made_afterwards_starts_where_ge_says() -> None:
    derived = a_pet(SeriesTime="150000")
    derived.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20260102100000.00")

    suv = suv_of([derived])

    assert suv.factor == pytest.approx(expected(60))
    assert "GE's private scan time" in suv.how


def test_a_series_made_afterwards_starts_a_frame_reference_time_before_its_image() -> None:
    derived = a_pet(SeriesTime="150000", AcquisitionTime="101000", FrameReferenceTime=660000)

    suv = suv_of([derived])

    assert suv.factor == pytest.approx(expected(60), rel=1e-4)
    assert "Frame Reference Time" in suv.how


def test_counts_of_philips_have_a_factor_of_their_own() -> None:
    counts = a_pet(Units="CNTS")
    counts.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.000378")

    assert suv_of([counts]).factor == pytest.approx(0.000378)


def test_counts_of_philips_may_go_by_way_of_activity() -> None:
    counts = a_pet(Units="CNTS")
    block = counts.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0")
    block.add_new(0x09, "DS", "2.5")

    assert suv_of([counts]).factor == pytest.approx(2.5 * expected(60))


@pytest.mark.parametrize(
    ("units", "kind", "unit"),
    [("GML", None, "SUVbw"), ("GML", "BW", "SUVbw"), ("GML", "LBM", "SUVlbm"), ("CM2ML", "BSA", "SUVbsa")],
)
def test_values_that_are_suv_stay_as_they_are(units: str, kind: str | None, unit: str) -> None:
    ready = a_pet(Units=units, DecayCorrection="ADMIN")
    if kind is not None:
        ready.SUVType = kind

    suv = suv_of([ready])

    assert (suv.factor, suv.unit) == (1.0, unit)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"CorrectedImage": ["DECY"]}, "lacks ATTN"),
        ({"CorrectedImage": None}, "lacks ATTN"),
        ({"CorrectedImage": ["ATTN"]}, "lacks DECY"),
        ({"DecayCorrection": "NONE"}, "is NONE, expected START or ADMIN"),
        ({"Units": "PROPCPS"}, "is PROPCPS, expected BQML"),
        ({"Units": "CNTS"}, "without Philips' private factor"),
        ({"Units": "GML", "SUVType": "BSA"}, "no known pair"),
        ({"PatientWeight": None}, r"Patient's Weight \(0010,1030\) is missing"),
        ({"PatientWeight": 0}, "is missing"),
        ({"PatientWeight": 70000}, "no value in kg"),
        ({"RadionuclideTotalDose": 350}, "is 350, which is no value in Bq"),
        ({"RadionuclideTotalDose": None}, "is missing"),
        ({"RadionuclideHalfLife": 109.8}, "that of the nuclide named is 6586.2 s"),
        ({"RadiopharmaceuticalStartTime": None}, "time of the injection"),
        ({"RadiopharmaceuticalStartTime": "100100"}, "24.0 hours after the injection"),
        ({"RadiopharmaceuticalStartTime": "235900"}, "10.0 hours after the injection"),
        ({"RadiopharmaceuticalStartDateTime": "20260102110000"}, "two times of the injection"),
        ({"AcquisitionTime": None}, "Acquisition Date or Time"),
        ({"SeriesTime": "150000"}, "series was made after its images"),
        ({"DecayFactor": 1.5}, "corrects for 64 minutes"),
        ({"RescaleIntercept": -5}, "is not 0"),
        ({"RadiopharmaceuticalInformationSequence": []}, "has 0 items"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.130"}, "PET Image Storage only"),
    ],
)
def test_what_is_missing_or_contradictory_gives_no_factor_but_the_reason(
    wrong: dict[str, Any], says: str
) -> None:
    pet = a_pet()
    for keyword, value in wrong.items():
        one_level_down = keyword.startswith("Radio") and not keyword.endswith("Sequence")
        target = pet.RadiopharmaceuticalInformationSequence[0] if one_level_down else pet
        if value is None:
            delattr(target, keyword)
        else:
            setattr(target, keyword, value)

    suv = suv_of([pet])

    assert (suv.factor, suv.unit) == (None, "")
    assert re.search(says, suv.how)


def test_a_long_lived_nuclide_needs_the_date_of_its_injection() -> None:
    zirconium = {"RadionuclideHalfLife": 282276.0, "RadiopharmaceuticalStartTime": "100000"}
    dated = a_pet(**zirconium, RadiopharmaceuticalStartDateTime="20251229100000")
    undated = a_pet(**zirconium)
    for one in (dated, undated):
        one.RadiopharmaceuticalInformationSequence[0].RadionuclideCodeSequence[
            0
        ].CodeMeaning = "^89^Zirconium"

    assert suv_of([dated]).factor == pytest.approx(70000 / (350e6 * 2 ** (-4 * 86400 / 282276)))
    assert "days before" in suv_of([undated]).how


def test_images_that_differ_have_no_common_factor() -> None:
    assert "different factors" in suv_of([a_pet(), a_pet(PatientWeight=80)]).how


@given(st.text(max_size=20), st.sampled_from(["SeriesTime", "AcquisitionTime", "Units", "DecayCorrection"]))
def test_no_text_in_the_header_breaks_it_or_is_repeated(value: str, keyword: str) -> None:
    with quiet():
        pet = a_pet(**{keyword: f"^Example {value}"})

    suv = suv_of([pet])

    assert "Example" not in suv.how


@given(
    st.fixed_dictionaries(
        {},
        optional={
            keyword: st.floats(allow_nan=False, allow_infinity=False, width=32)
            for keyword in (
                *("PatientWeight", "FrameReferenceTime", "ActualFrameDuration", "DecayFactor"),
                *("RadionuclideTotalDose", "RadionuclideHalfLife", "RescaleIntercept"),
            )
        },
    ),
    st.sampled_from(["090000", "150000"]),
)
def test_any_numbers_give_a_positive_factor_or_a_reason(values: dict[str, float], series: str) -> None:
    with quiet():
        pet = a_pet(SeriesTime=series, **{keyword: f"{value:.6g}" for keyword, value in values.items()})

    suv = suv_of([pet])

    assert (suv.factor is None) == suv.how.startswith("no SUV: ")
    assert suv.factor is None or 0 < suv.factor < 1e9


def write_pet(folder: Path, **attributes: Any) -> None:
    """Three PET slices of `ct_voxels` + 1024, each with a Rescale Slope of its own."""
    source = a_pet(**attributes)

    def change(k: int, dataset: Dataset) -> None:
        dataset.update(source)
        dataset.Modality, dataset.ImageType = "PT", ["ORIGINAL", "PRIMARY"]
        dataset.RescaleSlope, dataset.RescaleIntercept = 10 * (k + 1), 0
        del dataset.RescaleType

    write_ct_series(folder, slices=3, change=change)


def test_a_pet_is_read_in_suv_with_the_slope_of_each_slice(tmp_path: Path) -> None:
    write_pet(tmp_path)

    volume = read_volume([tmp_path])

    assert volume.unit == "SUVbw"
    stored = np.array([24.0, 124, 224]) * [10, 20, 30]
    assert volume.voxels()[:, 0, 0] == pytest.approx(stored * expected(60))
    assert volume.read_plane(2)[0, 0] == pytest.approx(stored[2] * expected(60))
    assert any("the values are SUVbw: body weight" in note for note in volume.notes)


def test_a_pet_without_the_dose_keeps_its_values_and_says_why(tmp_path: Path) -> None:
    write_pet(tmp_path, RadionuclideTotalDose=None)

    volume = read_volume([tmp_path])

    assert volume.unit == ""
    assert volume.voxels()[:, 0, 0].tolist() == [240, 2480, 6720]
    assert any("Radionuclide Total Dose (0018,1074) is missing" in note for note in volume.notes)


@pytest.mark.skipif(not DATA.exists(), reason="the real images are not here (MEDMLLM_DATA)")
def test_a_real_ge_series_has_the_factor_of_its_header() -> None:
    path = DATA / "fodicom_dev" / "GH184.dcm"
    if not path.exists():
        pytest.skip("GH184.dcm is not here")
    header = dcmread(path, stop_before_pixels=True)

    suv = suv_of([header])

    # 09:32:00 to 11:00:36 are 5316 s
    assert suv.factor == pytest.approx(90000 / (474592928 * 2 ** (-5316 / 6588)))
