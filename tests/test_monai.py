"""Tests of `medmllm_plugin.transforms.monai`: MONAI's own conventions, and places that stay true."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, NibabelReader, PydicomReader, decollate_batch
from monai.data.utils import list_data_collate, no_collation
from monai.transforms import (
    Compose,
    Flip,
    Flipd,
    Invertd,
    LoadImage,
    LoadImaged,
    Orientation,
    Orientationd,
    ScaleIntensityRange,
    Spacing,
    Spacingd,
    SpatialCrop,
)
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from medmllm_plugin.errors import GeometryError, SettingsError, StudyError
from medmllm_plugin.geometry import apply
from medmllm_plugin.resampled import Resampled
from medmllm_plugin.source import DicomImage, FileImage
from medmllm_plugin.transforms.metatensor import CHANGED, to_volume
from medmllm_plugin.transforms.monai import (
    LazyModel,
    LoadStudy,
    LoadStudyD,
    LoadStudyd,
    LoadStudyDict,
    ReadFindings,
    StudyReader,
    ToSliceSet,
    ToSliceSetd,
)
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.slices import SlicePlan
from tests.builders import OBLIQUE, write_cr, write_nifti
from tests.monai_images import a_study, same_pictures

# MONAI tries a decoder for GPUs whenever LoadImage is made, and warns that it isn't there
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")


def an_image(folder: Path, **options: Any) -> MetaTensor:
    return LoadStudy(ensure_channel_first=True)(a_study(folder, **options))


@pytest.mark.parametrize("orientation", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)])
def test_a_series_is_the_array_that_monai_itself_reads(
    tmp_path: Path, orientation: tuple[float, ...]
) -> None:
    a_study(tmp_path, reverse=False, orientation=orientation)

    ours = LoadImage(reader=StudyReader())(tmp_path)

    theirs = LoadImage(reader=PydicomReader())(tmp_path)
    assert ours.shape == (40, 32, 12)
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    assert torch.allclose(ours.affine, theirs.affine, atol=1e-9)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "ASL", "SRA", "IPL"])
def test_a_nifti_is_the_array_that_monai_itself_reads(tmp_path: Path, axes: str) -> None:
    values = np.random.default_rng(1).integers(-1000, 1000, (7, 8, 9)).astype(np.int16)
    turned = np.array([[0.8, 0.6, 0, -10], [-0.6, 0.8, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1]]) @ np.diag(
        [2.0, 1, 1, 1]
    )
    image = nibabel.Nifti1Image(values, turned)
    way = ornt_transform(io_orientation(turned), axcodes2ornt(axes))
    path = tmp_path / "image.nii.gz"
    nibabel.save(image.as_reoriented(way), path)

    ours = LoadImage(reader=StudyReader())(path)

    theirs = LoadImage(reader=NibabelReader())(path)
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    assert torch.allclose(ours.affine, theirs.affine, atol=1e-5)


def test_slices_are_sorted_by_place_whatever_their_numbers(tmp_path: Path) -> None:
    volume = read_volume([a_study(tmp_path, reverse=True)])

    image = LoadStudy()(tmp_path)

    assert torch.equal(image.as_tensor(), torch.from_numpy(volume.voxels().transpose(2, 1, 0).copy()))
    assert isinstance(image, MetaTensor)


@pytest.mark.parametrize(
    ("odd", "found"),
    [({"tilt": 0.3}, "sheared by 16.7 degrees"), ({"positions": (0, 2, 5)}, "not evenly spaced")],
)
def test_tilt_and_uneven_gaps_are_refused_by_load_image_too(
    tmp_path: Path, odd: dict[str, Any], found: str
) -> None:
    a_study(tmp_path, slices=3, **odd)

    for load in (LoadStudy(), LoadImage(reader=StudyReader())):
        with pytest.raises(GeometryError, match=rf"{found}.*as_volume=True.*resample=True"):
            load(tmp_path)


def test_what_is_no_study_is_refused_by_load_image_and_not_tried_again(tmp_path: Path) -> None:
    a_study(tmp_path / "a", PatientID="A")
    a_study(tmp_path / "b", PatientID="B", seed="other")

    with pytest.raises(StudyError, match="2 patients"):
        LoadImage(reader=StudyReader())(tmp_path)


def test_a_tilted_series_resampled_by_name_lies_where_it_lay(tmp_path: Path) -> None:
    a_study(tmp_path, tilt=0.3)

    image = LoadStudy(resample=True)(tmp_path)

    volume = to_volume(image)
    assert np.abs(volume.affine[:3, 2] @ volume.affine[:3, 0]) < 1e-6
    assert np.abs(volume.affine[:3, 2] @ volume.affine[:3, 1]) < 1e-6
    tilted = read_volume([tmp_path])
    plane, place = tilted.planes[6].to_patient, np.array([20, 16, 0])
    assert plane is not None
    column, row, k = np.rint(apply(np.linalg.inv(volume.affine), apply(plane, place))).astype(int)
    assert volume.read_plane(k)[row, column] == pytest.approx(tilted.read_plane(6)[16, 20], abs=12)
    assert all(isinstance(one.source, Resampled) for one in volume.planes)


def test_as_a_volume_tilted_slices_keep_their_own_places(tmp_path: Path) -> None:
    a_study(tmp_path, tilt=0.3)

    volume = LoadStudy(as_volume=True)(tmp_path)

    shown = ToSliceSet(count=3, size=56)(volume)
    assert same_pictures(shown, SlicePlan(count=3, size=56).apply(read_volume([tmp_path])))


def test_the_metadata_name_no_patient(tmp_path: Path) -> None:
    image = an_image(
        tmp_path / "study", PatientName="Secret^Name", PatientID="ID-4711", PatientBirthDate="19010203"
    )

    told = repr({key: str(value) for key, value in image.meta.items()})

    assert "instance" in told
    assert not any(word in told for word in ("Secret", "ID-4711", "19010203"))


@pytest.mark.parametrize("orientation", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), OBLIQUE])
def test_ras_there_and_back_is_the_same_volume(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    volume = read_volume([a_study(tmp_path, orientation=orientation)])

    back = to_volume(LoadStudy()(tmp_path))

    assert [one.source for one in back.planes] == [one.source for one in volume.planes]
    for k, (one, other) in enumerate(zip(back.planes, volume.planes, strict=True)):
        assert one.to_patient is not None
        assert other.to_patient is not None
        np.testing.assert_allclose(one.to_patient, other.to_patient, atol=1e-6)
        assert np.array_equal(back.read_plane(k), volume.read_plane(k))
    assert (back.unit, back.study) == ("HU", volume.study)


@pytest.mark.parametrize("lazy", [False, True])
def test_turned_and_mirrored_images_give_the_same_pictures_and_cite_the_same_images(
    tmp_path: Path, lazy: bool
) -> None:
    image = an_image(tmp_path)
    turn = Compose([Orientation("PIR", labels=None), Flip(1), Orientation("SAL", labels=None)], lazy=lazy)

    shown = ToSliceSet(count=4, size=56)(turn(image))

    assert same_pictures(shown, ToSliceSet(count=4, size=56)(image))
    assert shown.notes == ToSliceSet(count=4, size=56)(image).notes


def test_pending_operations_are_applied_first(tmp_path: Path) -> None:
    image = an_image(tmp_path)

    pending = Flip(0, lazy=True)(Spacing((2, 2, 3), lazy=True)(image))

    assert len(pending.pending_operations) == 2
    assert same_pictures(
        ToSliceSet(count=4, size=56)(pending),
        ToSliceSet(count=4, size=56)(Compose([Spacing((2, 2, 3)), Flip(0)], lazy=True)(image)),
    )


def test_a_cropped_image_cites_the_image_that_its_plane_lies_in(tmp_path: Path) -> None:
    image = an_image(tmp_path)
    volume = read_volume([tmp_path])

    shown = ToSliceSet(count=1, size=56)(SpatialCrop(roi_start=(4, 6, 5), roi_end=(24, 26, 6))(image))

    (outline, *_) = shown.outlines(1, column_min=0, row_min=0, column_max=56, row_max=56)
    assert outline.image == volume.planes[5].source
    height, width = shown.picture(1).pixels.shape[:2]
    whole = shown.outlines(1, column_min=0, row_min=0, column_max=width, row_max=height)[0]
    np.testing.assert_allclose(whole.bounds, (4, 6, 24, 26), atol=1e-6)


def test_pictures_between_images_cite_those_beside_them(tmp_path: Path) -> None:
    image = an_image(tmp_path)
    places = {one.source: one.to_patient for one in read_volume([tmp_path]).planes}

    shown = ToSliceSet(count=5, size=56)(Spacing((1.2, 1.5, 3.1))(image))

    for number in range(1, 6):
        outline = shown.outlines(number, column_min=10, row_min=10, column_max=20, row_max=20)[0]
        matrix = places[outline.image]
        assert matrix is not None
        assert shown.from_patient(number, matrix[:3, 3])[2] == pytest.approx(0, abs=1.01)


def test_hounsfield_units_end_where_a_transform_changes_the_values(tmp_path: Path) -> None:
    image = an_image(tmp_path)

    scaled = to_volume(ScaleIntensityRange(-1000, 1000, 0, 1)(image))

    assert scaled.unit == ""
    assert scaled.notes[-1] == CHANGED
    assert to_volume(Spacing((1.7, 2.1, 3))(image)).unit == "HU"
    with pytest.raises(SettingsError, match="needs Hounsfield units"):
        ToSliceSet(window="ct-lung")(ScaleIntensityRange(-1000, 1000, 0, 1)(image))


def test_a_cropped_film_keeps_its_image_and_claims_no_place(tmp_path: Path) -> None:
    film = write_cr(tmp_path / "film.dcm", PatientOrientation=["L", "F"])
    image = LoadStudy(ensure_channel_first=True)(film)

    shown = ToSliceSet(size=56)(Flip(0)(SpatialCrop(roi_start=(1, 2, 0), roi_end=(5, 8, 1))(image)))

    one = shown.picture(1)
    assert isinstance(one.source, DicomImage)
    assert (one.to_patient, one.source_shape, one.patient_orientation) == (None, (8, 6), ("L", "I"))
    height, width = one.pixels.shape[:2]
    box = shown.box_in_source(1, column_min=0, row_min=0, column_max=width, row_max=height)
    np.testing.assert_allclose(box, (1, 2, 5, 8), atol=1e-6)


def test_what_another_reader_read_is_cited_as_its_file(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "ct.nii", np.zeros((9, 8, 4), np.int16), np.diag([1.0, 1, 2, 1]))
    ours = read_volume([path], modality="CT")

    volume = to_volume(LoadImage(reader=NibabelReader())(path), modality="CT")

    assert [one.source for one in volume.planes] == [one.source for one in ours.planes]
    assert volume.planes[1].source == FileImage(file="ct.nii", index=1)
    for one, other in zip(volume.planes, ours.planes, strict=True):
        np.testing.assert_allclose(np.array(one.to_patient), np.array(other.to_patient), atol=1e-6)
    assert (volume.unit, volume.study.modality) == ("HU", "CT")


def test_an_affine_that_says_nothing_gives_no_place() -> None:
    volume = to_volume(MetaTensor(torch.zeros(1, 8, 9, 4)))

    assert {one.to_patient for one in volume.planes} == {None}


def test_an_affine_in_lps_is_taken_as_such(tmp_path: Path) -> None:
    image = an_image(tmp_path)
    lps = MetaTensor(image.as_tensor(), meta={**image.meta, "space": "LPS"})
    lps.affine = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ image.affine

    assert np.allclose(to_volume(lps).affine, to_volume(image).affine)
    with pytest.raises(GeometryError, match="the space is scanner"):
        to_volume(MetaTensor(image.as_tensor(), meta={**image.meta, "space": "scanner"}))


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda image: image.as_tensor(), "found a Tensor"),
        (lambda image: list_data_collate([image, image]), "found a batch"),
        (lambda image: image[..., 3], "has lost its place"),
        (lambda image: torch.cat([image, image]), "found 2 channels"),
    ],
)
def test_what_is_no_image_with_its_place_is_refused(
    tmp_path: Path, wrong: Callable[[MetaTensor], Any], found: str
) -> None:
    image = an_image(tmp_path)

    with pytest.raises(ValueError, match=found):
        to_volume(wrong(image))


def test_a_batch_and_back_cites_the_same_images(tmp_path: Path) -> None:
    studies = [{"image": str(a_study(tmp_path / name, seed=name))} for name in ("a", "b")]
    loaded = Dataset(studies, LoadStudyd("image", ensure_channel_first=True))

    (batch,) = DataLoader(loaded, batch_size=2, num_workers=2)

    assert batch["image"].shape == (2, 1, 40, 32, 12)
    for one, study in zip(decollate_batch(batch), studies, strict=True):
        shown = ToSliceSet(count=3, size=56)(one["image"])
        assert same_pictures(shown, SlicePlan(count=3, size=56).apply(read_volume([Path(study["image"])])))


@pytest.mark.parametrize("as_volume", [False, True])
def test_slice_sets_come_out_of_the_workers_of_a_loader(tmp_path: Path, as_volume: bool) -> None:
    study = str(a_study(tmp_path))
    transform = Compose([LoadStudyd("image", as_volume=as_volume), ToSliceSetd("image", count=3, size=56)])

    (items,) = DataLoader(Dataset([{"image": study}], transform), num_workers=1, collate_fn=no_collation)

    assert same_pictures(items[0]["image"], SlicePlan(count=3, size=56).apply(read_volume([tmp_path])))


def test_inverting_the_transforms_leads_back_to_the_original_images(tmp_path: Path) -> None:
    transforms = Compose(
        [
            LoadStudyd("image", ensure_channel_first=True),
            Orientationd("image", axcodes="LAS", labels=None),
            Spacingd("image", pixdim=(2.4, 1.5, 4.0)),
            Flipd("image", spatial_axis=2),
        ]
    )
    item = transforms({"image": str(a_study(tmp_path))})

    back = Invertd("image", transform=transforms, orig_keys="image", nearest_interp=False)(item)

    sources = [one.source for one in read_volume([tmp_path]).planes]
    assert all(isinstance(one.source, Resampled) for one in to_volume(item["image"]).planes)
    assert [one.source for one in to_volume(back["image"]).planes] == sources


def test_keys_may_be_missing_where_that_is_allowed(tmp_path: Path) -> None:
    data = {"image": str(a_study(tmp_path))}

    loaded = LoadStudyd(["image", "prior"], allow_missing_keys=True)(data)

    assert set(loaded) == {"image"}
    with pytest.raises(KeyError, match="prior"):
        LoadStudyd(["image", "prior"])(data)
    assert LoadStudyD is LoadStudyDict is LoadStudyd


def test_load_imaged_takes_the_reader_by_its_dotted_name(tmp_path: Path) -> None:
    a_study(tmp_path)

    by_name = LoadImaged("image", reader="medmllm_plugin.transforms.monai.StudyReader", series="1")(
        {"image": str(tmp_path)}
    )

    assert torch.equal(by_name["image"].as_tensor(), LoadStudy()(tmp_path).as_tensor())


def test_transforms_are_picklable_and_open_their_model_late() -> None:
    transform = ReadFindings(model=LazyModel("scripted:nowhere.json"))

    again = pickle.loads(pickle.dumps(Compose([LoadStudy(), ToSliceSet(count=3), transform])))

    with pytest.raises(SettingsError, match=r"nowhere\.json"):
        again.transforms[2].model.open()
