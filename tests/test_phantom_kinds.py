"""Tests of every kind of phantom: what is drawn, where it lies, and the truth about it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from medmllm_plugin import codes
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.findings import Finding, Side
from medmllm_plugin.geometry import apply, plane_name
from medmllm_plugin.phantoms import KINDS, PhantomStudy, sample_study
from medmllm_plugin.phantoms.dicom import truth
from medmllm_plugin.phantoms.head import Head
from medmllm_plugin.phantoms.head_lesions import Focus
from medmllm_plugin.phantoms.mr_brain import CONTRASTS
from medmllm_plugin.phantoms.radiograph import ChestRadiograph
from medmllm_plugin.schemas import truth_schema
from medmllm_plugin.transforms.slices import SlicePlan

NEW = ("ct-head", "xr-chest", "ct-abdomen", "mr-brain")
CASES = [(kind, key) for kind in NEW for key in KINDS[kind].findings]


@cache
def a_study(kind: str, *findings: str, seed: int = 0, matrix: int = 128) -> PhantomStudy:
    return sample_study(kind=kind, seed=seed, findings=findings, matrix=matrix)


def slice_of(study: PhantomStudy, finding: Finding) -> int:
    """The slice, from 0, of a finding's box."""
    assert finding.box is not None
    return next(k for k in range(study.slices) if study.source(k) == finding.box.image)


def test_there_are_five_kinds() -> None:
    assert set(KINDS) == {"ct-chest", "ct-head", "ct-abdomen", "xr-chest", "mr-brain"}


@pytest.mark.parametrize("kind", NEW)
def test_keys_of_a_kind_are_in_the_table_and_belong_together(kind: str) -> None:
    for key in KINDS[kind].findings:
        assert codes.finding(key).key == key
    for site in KINDS[kind].sites:
        assert codes.site(site).key == site


@pytest.mark.parametrize("kind", NEW)
def test_the_same_seed_makes_the_same_study(kind: str) -> None:
    one, again, other = (sample_study(kind=kind, seed=seed, matrix=128) for seed in (5, 5, 6))
    middle = one.slices // 2

    assert np.array_equal(one.values(middle), again.values(middle))
    assert one.truth() == again.truth()
    assert one.study == again.study
    assert not np.array_equal(one.values(middle), other.values(middle))
    assert one.study.study_instance_uid != other.study.study_instance_uid


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("kind", "key"), CASES)
def test_every_finding_can_be_placed_and_its_box_holds_its_mask(kind: str, key: str, seed: int) -> None:
    study = a_study(kind, key, seed=seed)

    (finding,) = study.truth()

    assert finding.finding == key
    assert finding.site in KINDS[kind].sites
    assert finding.side.value in codes.site(finding.site).allowed_sides
    box, k = finding.box, slice_of(study, finding)
    assert box is not None
    rows, columns = np.nonzero(study.masks(k)[0])
    assert (box.column_min, box.column_max) == (columns.min(), columns.max() + 1)
    assert (box.row_min, box.row_max) == (rows.min(), rows.max() + 1)
    areas = [masks[0].sum() for masks in map(study.masks, range(study.slices)) if 0 in masks]
    assert study.masks(k)[0].sum() == max(areas)
    assert set(finding.images) == {study.source(n) for n in range(study.slices) if 0 in study.masks(n)}
    sides = (box.column_max - box.column_min, box.row_max - box.row_min)
    assert finding.size_mm == pytest.approx(max(sides) * study.pixel, abs=0.051)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("kind", "key"), [one for one in CASES if one[0] != "xr-chest" and one[1] != "lesion"]
)
def test_left_is_where_x_is_positive(kind: str, key: str, seed: int) -> None:
    (finding,) = a_study(kind, key, seed=seed, matrix=64).truth()

    assert finding.center_mm is not None
    assert finding.side is (Side.LEFT if finding.center_mm[0] > 0 else Side.RIGHT)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("key", ["nodule", "mass", "consolidation", "pleural_effusion", "pneumothorax"])
def test_on_a_radiograph_left_is_at_the_right(key: str, seed: int) -> None:
    study = a_study("xr-chest", key, seed=seed)
    (finding,) = study.truth()
    assert finding.box is not None
    middle = study.scan.origin[0] + study.pixel * (finding.box.column_min + finding.box.column_max - 1) / 2

    assert finding.side is (Side.LEFT if middle > 0 else Side.RIGHT)
    assert finding.center_mm is None
    assert study.plane(0).to_patient is None
    assert study.plane(0).patient_orientation == ("L", "I")


@pytest.mark.parametrize("kind", NEW)
def test_both_sides_occur(kind: str) -> None:
    key = "cyst" if kind == "ct-abdomen" else "mass"

    assert {a_study(kind, key, seed=seed, matrix=128).lesions[0].side for seed in range(8)} == {
        "left",
        "right",
    }


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", ["ct-head", "mr-brain"])
def test_the_centre_is_where_the_lesion_was_put_however_it_is_scanned(kind: str, seed: int) -> None:
    study = a_study(kind, "mass", seed=seed)
    head, (lesion,), (finding,) = study.anatomy, study.lesions, study.truth()
    assert isinstance(head, Head)
    assert isinstance(lesion, Focus)
    assert finding.center_mm is not None

    put = head.pose @ lesion.solid.center + study.scan.shift

    step = float(np.linalg.norm(study.scan.step))
    rough = 0.35 * float(lesion.solid.reach.max())
    assert np.linalg.norm(np.array(finding.center_mm) - put) < step / 2 + 2 * study.pixel + rough


@pytest.mark.parametrize("seed", range(8))
def test_a_cyst_lies_where_it_was_put_lying_on_the_back_or_the_front(seed: int) -> None:
    study = a_study("ct-abdomen", "cyst", seed=seed)
    (lesion,), (finding,) = study.lesions, study.truth()
    assert finding.center_mm is not None

    put = lesion.solid.center + study.scan.shift  # type: ignore[attr-defined]

    apart = np.array(finding.center_mm) - put
    assert np.abs(apart[:2]).max() < 2 * study.pixel
    assert abs(apart[2]) < study.scan.step[2]


def test_positions_planes_and_tilts_vary() -> None:
    heads = [sample_study(kind="ct-head", seed=seed, matrix=64).scan for seed in range(40)]
    bellies = [sample_study(kind="ct-abdomen", seed=seed, matrix=64).scan for seed in range(60)]
    brains = [sample_study(kind="mr-brain", seed=seed, matrix=64) for seed in range(40)]
    films = [sample_study(kind="xr-chest", seed=seed, matrix=128).scan for seed in range(20)]

    assert 5 <= sum("GantryDetectorTilt" in scan.header for scan in heads) <= 30
    assert {scan.position for scan in bellies} == {"HFS", "FFS", "HFP", "FFP"}
    assert {scan.downwards for scan in heads} == {True, False}
    planes = {plane_name(matrix) for s in brains if (matrix := s.plane(0).to_patient) is not None}
    assert {"axial", "coronal", "sagittal"} <= planes
    assert any(name.startswith("oblique") for name in planes)
    assert {str(s.scan.header["SequenceName"]) for s in brains} == {one.name for one in CONTRASTS}
    assert {scan.header["ViewPosition"] for scan in films} == {"PA", "AP"}


def test_planes_of_a_tilted_head_lie_above_each_other_and_not_along_their_normal() -> None:
    study = next(
        s
        for s in (sample_study(kind="ct-head", seed=seed, matrix=64) for seed in range(40))
        if abs(float(str(s.scan.header.get("GantryDetectorTilt", 0)))) > 8
    )
    first, second = (study.plane(k).to_patient for k in (0, 1))
    assert first is not None
    assert second is not None

    step = second[:3, 3] - first[:3, 3]

    assert step.tolist() == pytest.approx([0, 0, study.scan.step[2]])
    assert abs(float(first[2, 1])) > 0.1 * study.pixel
    assert study.scan.section(0).normal @ study.scan.step > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_head_has_scalp_bone_brain_and_fluid_of_the_right_density(seed: int) -> None:
    study = a_study("ct-head", seed=seed)
    volume = np.stack([study.values(k) for k in range(study.slices)])

    head = volume > -300
    share = {
        "bone": (volume > 300).sum() / head.sum(),
        "brain": ((volume > 15) & (volume < 55)).sum() / head.sum(),
        "air": (volume < -900).sum() / volume.size,
    }

    assert 0.1 < share["bone"] < 0.4
    assert share["brain"] > 0.3
    assert share["air"] > 0.3
    brain = volume[(volume > 15) & (volume < 55)]
    assert 28 < np.median(brain) < 40


@pytest.mark.parametrize(
    ("kind", "key", "low", "high"),
    [
        ("ct-head", "hemorrhage", 55, 85),
        ("ct-head", "hematoma", 50, 85),
        ("ct-abdomen", "cyst", -10, 25),
        ("ct-abdomen", "renal_stone", 250, 1300),
    ],
)
def test_a_lesion_has_the_density_of_what_it_is(kind: str, key: str, low: float, high: float) -> None:
    study = a_study(kind, key, seed=1, matrix=256)
    (finding,) = study.truth()
    k = slice_of(study, finding)

    assert low < np.median(study.values(k)[study.masks(k)[0]]) < high
    (mean,) = (one for one in finding.measurements if one.code == "attenuation")
    assert mean.unit == "[hnsf'U]"
    assert low < mean.value < high


@pytest.mark.parametrize("seed", range(6))
def test_a_liver_lesion_is_darker_or_brighter_than_the_liver_as_it_says(seed: int) -> None:
    study = a_study("ct-abdomen", "lesion", seed=seed, matrix=256)
    (finding,) = study.truth()
    k = slice_of(study, finding)
    inside = study.masks(k)[0]
    rows, columns = np.nonzero(inside)
    around = np.zeros_like(inside)
    around[rows.min() - 6 : rows.max() + 7, columns.min() - 6 : columns.max() + 7] = True

    bright = np.median(study.values(k)[inside]) > np.median(study.values(k)[around & ~inside])

    assert finding.sentence.startswith("Hyperdense" if bright else "Hypodense")


def test_cardiomegaly_is_a_heart_of_more_than_half_the_thorax() -> None:
    enlarged = [a_study("xr-chest", "cardiomegaly", seed=seed).anatomy for seed in range(6)]
    normal = [a_study("xr-chest", seed=seed).anatomy for seed in range(6)]

    assert all(isinstance(one, ChestRadiograph) and one.ratio > 0.52 for one in enlarged)
    assert all(isinstance(one, ChestRadiograph) and one.ratio < 0.48 for one in normal)


def test_a_pneumothorax_is_dark_and_an_effusion_bright_against_the_other_side() -> None:
    for key, darker in (("pneumothorax", True), ("pleural_effusion", False)):
        study = a_study("xr-chest", key, seed=2, matrix=256)
        mask, values = study.masks(0)[0], study.values(0)
        centre = round(-study.scan.origin[0] / study.pixel)
        rows, columns = np.nonzero(mask)
        mirrored = 2 * centre - columns
        seen = (mirrored >= 0) & (mirrored < 256)

        this, other = (np.median(values[rows[seen], one[seen]]) for one in (columns, mirrored))

        assert bool(this < other) is darker


def test_contrasts_show_fluid_as_they_should() -> None:
    fluid, white, grey = (
        np.array([getattr(one.signals, name) for one in CONTRASTS]) for name in ("fluid", "white", "grey")
    )

    assert [c.name for c in CONTRASTS] == ["T1", "T2", "FLAIR"]
    assert (fluid > white).tolist() == [False, True, False]
    assert (white > grey).tolist() == [True, False, False]


@pytest.mark.parametrize("kind", NEW)
def test_a_normal_study_has_no_findings_and_findings_at_random_cover_all(kind: str) -> None:
    drawn = [sample_study(kind=kind, seed=seed, matrix=128).lesions for seed in range(60)]

    assert a_study(kind).truth() == ()
    assert 8 <= sum(not lesions for lesions in drawn) <= 30
    assert {one.finding for lesions in drawn for one in lesions} == set(KINDS[kind].findings)


@pytest.mark.parametrize("kind", NEW)
def test_the_truth_keeps_to_its_schema(kind: str) -> None:
    study = a_study(kind, *KINDS[kind].findings, seed=3)

    found = truth(study)

    Draft202012Validator(truth_schema()).validate(found)
    assert isinstance(found["findings"], list)
    assert len(found["findings"]) == len(KINDS[kind].findings)


@pytest.mark.parametrize("kind", NEW)
def test_values_are_whole_numbers_of_12_bits(kind: str) -> None:
    study = a_study(kind)

    values = study.values(study.slices // 2)

    low = -1024 if study.scan.modality == "CT" else 0
    assert values.dtype == np.float32
    assert np.array_equal(values, np.rint(values))
    assert values.min() >= low
    assert values.max() <= low + 4095
    assert values.std() > 20


@pytest.mark.parametrize("kind", NEW)
def test_a_phantom_goes_through_the_usual_slice_plan(kind: str) -> None:
    shown = SlicePlan(count=6, size=112).apply(a_study(kind).volume())

    assert len(shown) == min(6, a_study(kind).slices)
    assert shown.study.phantom == kind
    assert (shown.slices[0].to_patient is None) is (kind == "xr-chest")


@pytest.mark.parametrize("kind", NEW)
def test_boxes_map_to_the_centre_they_say(kind: str) -> None:
    key = KINDS[kind].findings[0]
    study = a_study(kind, key, seed=4)
    (finding,) = study.truth()
    box, matrix = finding.box, study.plane(slice_of(study, finding)).to_patient
    if matrix is None:
        assert finding.center_mm is None
        return
    assert box is not None
    assert finding.center_mm is not None

    column, row, off = apply(np.linalg.inv(matrix), finding.center_mm)

    assert (column + 0.5, row + 0.5) == pytest.approx(
        ((box.column_min + box.column_max) / 2, (box.row_min + box.row_max) / 2)
    )
    assert off == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", NEW)
def test_what_a_kind_can_not_have_is_refused(kind: str) -> None:
    with pytest.raises(SettingsError, match=f"a {kind} phantom has no finding 'lump'; it can have: "):
        sample_study(kind=kind, findings=("lump",))
    with pytest.raises(SettingsError, match=f"a {kind} phantom has {KINDS[kind].slices[0]} to"):
        sample_study(kind=kind, slices=2000)


def test_a_slice_is_the_same_whatever_was_drawn_before() -> None:
    study = a_study("ct-abdomen", "cyst", seed=2, matrix=64)
    again = sample_study(kind="ct-abdomen", seed=2, findings=("cyst",), matrix=64)
    for k in range(20):
        again.values(k)

    assert np.array_equal(study.values(25), again.values(25))
