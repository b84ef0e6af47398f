"""MONAI's array side: a reader, and transforms from a study to its report.

Thin: what is done stands in `metatensor`, `engine` and `pipeline`. The public names,
and the dictionary side, are in `medmllm_plugin.transforms.monai`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader, MetaTensor
from monai.data.utils import is_supported_format
from monai.transforms import EnsureChannelFirst, Transform
from monai.utils import ImageMetaKey, ensure_tuple
from numpy.typing import NDArray

from medmllm_plugin import engine, outputs, pipeline, registry
from medmllm_plugin.errors import SettingsError, StudyError
from medmllm_plugin.geometry import Matrix
from medmllm_plugin.models import Model
from medmllm_plugin.report import Report
from medmllm_plugin.request import Request
from medmllm_plugin.resampled import Resampled
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import DicomImage, FileImage, ImageRef
from medmllm_plugin.strategies import View
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.entries import file_kind, list_entries
from medmllm_plugin.transforms.metaimage import metaimage_header
from medmllm_plugin.transforms.metatensor import to_array, to_slices, to_volume
from medmllm_plugin.transforms.nifti import nifti_header
from medmllm_plugin.transforms.nrrd import nrrd_header
from medmllm_plugin.transforms.origin import KEY, Origin
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.recipes import settings_of
from medmllm_plugin.transforms.reformat import resample as straightened
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.views import changed
from medmllm_plugin.volume import Volume

Paths = str | Path | Sequence[str | Path]

_NO_STUDIES = ("png", "jpg", "jpeg", "bmp", "npz", "npy")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """Paths to be read. When `read` fails `LoadImage` tries other readers, so `get_data` is what refuses."""

    paths: tuple[Path, ...]


class LazyModel:
    """A model by name, opened when first needed; travels to `DataLoader` workers by its name.

    Transforms that are given the same one share the opened model.
    """

    def __init__(self, name: str = "embedded") -> None:
        """Take a name that `registry.open_model` knows."""
        self.name = name
        self._opened: Model | None = None

    @classmethod
    def of(cls, model: str | Model | LazyModel) -> LazyModel:
        """From a name, or a model that is open already (which must itself be picklable to travel)."""
        if isinstance(model, LazyModel):
            return model
        return _OpenModel(model) if isinstance(model, Model) else cls(model)

    def open(self) -> Model:
        """The model.

        Raises:
            SettingsError: If there is none of that name.
            ModelError: If it can't be loaded.
        """
        if self._opened is None:
            self._opened = registry.open_model(self.name)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_opened": None}


class _OpenModel(LazyModel):
    """A model that was given open."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.name)
        self._opened = model

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_opened": self._opened}


class StudyReader(ImageReader):  # type: ignore[misc]
    """Reads a study for `LoadImage(reader=StudyReader())` and `LoadImaged`: one series as one array.

    Unlike MONAI's own readers it sorts slices by their places, chooses the series worth reading (see
    `medmllm_plugin.transforms.dicom_choice`), refuses what is no straight grid, and takes a list of files as
    one study, not as channels. It refuses where `LoadImage` would otherwise try its next reader.
    """

    def __init__(
        self,
        *,
        series: str | None = None,
        modality: str | None = None,
        volume: int | str | None = None,
        resample: bool = False,
    ) -> None:
        """Take the choice.

        Args:
            series: Series Instance UID, its unique beginning or end, or the Series Number; None for the rule.
            modality: As in `read_volume`.
            volume: Which of several volumes, as in `read_volume`.
            resample: Whether slices with gantry tilt or uneven gaps are interpolated onto a straight grid;
                otherwise they are refused.
        """
        super().__init__()
        self.series = series
        self.modality = modality
        self.which = volume
        self.resample = resample

    def verify_suffix(self, filename: Paths) -> bool:
        """Whether the paths may be a study: folders, DICOM files of any name, zips, NIfTI and the like."""
        return not is_supported_format(filename, _NO_STUDIES)

    def read(self, data: Paths, **kwargs: Any) -> _Asked:
        """The paths of one study; nothing is read yet."""
        return _Asked(paths=_paths(data))

    def get_data(self, img: _Asked) -> tuple[NDArray[Any], dict[str, Any]]:
        """The voxels (x, y, z[, 3]) and their metadata, see `metatensor.to_array`.

        Raises:
            StudyError: If there is nothing to read, or more than one patient or study, or a damaged file.
            GeometryError: If the slices form no straight grid and `resample` is False.
        """
        volume = self.volume(img.paths)
        stored = _stored_affine(img.paths, volume)
        if self.resample and len(volume) > 1 and volume.planes[0].to_patient is not None:
            return to_array(straightened(volume), original=volume, paths=img.paths, which=self.which)
        return to_array(volume, stored=stored, paths=img.paths, which=self.which)

    def volume(self, paths: Paths) -> Volume:
        """The series as a `Volume`, as stored: every slice in its own place, nothing decoded yet."""
        return read_volume(_paths(paths), series=self.series, modality=self.modality, volume=self.which)


class LoadStudy(Transform):  # type: ignore[misc]
    """Path of a study → `MetaTensor` (x, y, z) of modality values with a RAS affine, or our `Volume`."""

    def __init__(
        self,
        *,
        series: str | None = None,
        modality: str | None = None,
        volume: int | str | None = None,
        resample: bool = False,
        as_volume: bool = False,
        ensure_channel_first: bool = False,
    ) -> None:
        """Take the choice.

        Args:
            series: As in `StudyReader`.
            modality: As in `StudyReader`.
            volume: As in `StudyReader`.
            resample: As in `StudyReader`.
            as_volume: Whether to give a `Volume`, which decodes only the slices that pictures are made of and
                keeps tilted and unevenly spaced slices in their own places. For pipelines without spatial
                transforms: they go to `ToSliceSet` at once.
            ensure_channel_first: Whether to give (channel, x, y, z).
        """
        self.reader = StudyReader(series=series, modality=modality, volume=volume, resample=resample)
        self.as_volume = as_volume
        self.ensure_channel_first = ensure_channel_first

    def __call__(self, filename: Paths) -> MetaTensor | Volume:
        """Read it.

        Raises:
            StudyError: As `StudyReader.get_data`.
            GeometryError: As `StudyReader.get_data`.
        """
        asked = self.reader.read(filename)
        if self.as_volume:
            return self.reader.volume(asked.paths)
        array, meta = self.reader.get_data(asked)
        meta[ImageMetaKey.FILENAME_OR_OBJ] = str(asked.paths[0])
        values = torch.from_numpy(np.asarray(array, np.float32))
        image = MetaTensor.ensure_torch_and_prune_meta(values, meta)
        return EnsureChannelFirst()(image) if self.ensure_channel_first else image


class ToSliceSet(Transform):  # type: ignore[misc]
    """`MetaTensor` or `Volume` → `SliceSet`: the pictures that a model is shown, and the exact way back.

    After any of MONAI's spatial transforms, lazy or not, a finding's place comes out in true LPS millimetres
    and its citations are the original images (see `metatensor.to_slices`). Crop with transforms, not by
    index: MONAI leaves the affine as it is when an array is indexed.
    """

    def __init__(
        self,
        *,
        model: str | Model | LazyModel | None = None,
        modality: str | None = None,
        plan: str = "",
        **settings: Any,
    ) -> None:
        """Take the plan.

        Args:
            model: Whose own plan to start from; None for that of `SlicePlan`.
            modality: What an image shows whose metadata don't say, such as CT.
            plan: A recipe and settings in words, as `recipes.settings_of` takes them, such as `medgemma-ct`.
            **settings: Settings of `SlicePlan`, such as `count`, `size` and `window`; they go before `plan`.

        Raises:
            SettingsError: If there is no such recipe, or a setting is out of its range.
        """
        self.settings = {**(settings_of(plan) if plan else {}), **settings}
        if model is None:
            SlicePlan(**self.settings)
        self.model = None if model is None else LazyModel.of(model)
        self.modality = modality

    def __call__(self, image: MetaTensor | Volume) -> SliceSet:
        """The pictures.

        Raises:
            StudyError: If a slice can't be decoded.
            GeometryError: If the affine is singular or in an unknown space.
            ValueError: If the image has several channels, or is a batch.
            SettingsError: If the plan doesn't suit the values or the model.
        """
        if isinstance(image, Volume):
            shown = self._plan(image).apply(image)
        else:
            shown = to_slices(image, self._plan, modality=self.modality)
        return shown if _is_dicom(shown) else replace(shown, notes=(*shown.notes, pipeline.NO_SR))

    def _plan(self, volume: Volume) -> SlicePlan:
        if self.model is None:
            return SlicePlan(**self.settings)
        return pipeline.plan_for(self.model.open(), volume, asked=self.settings)


class ReadFindings(Transform):  # type: ignore[misc]
    """`SliceSet` → `Report`: a model is asked, its reply checked and its findings put in their places."""

    def __init__(
        self,
        *,
        model: str | Model | LazyModel = "embedded",
        task: str = "report",
        question: str | None = None,
        seed: int = 0,
    ) -> None:
        """Take what is asked; the model is opened when first needed, in each process.

        Args:
            model: A name that `registry.open_model` knows, or a model.
            task: A name of `tasks.TASKS`.
            question: The user's own question, for the task `question`.
            seed: For models that sample.

        Raises:
            SettingsError: If there is no such task.
        """
        self.model = LazyModel.of(model)
        if task not in TASKS:
            raise SettingsError(f"no task is named {task!r}; there are: {', '.join(TASKS)}")
        self.task = TASKS[task]
        self.question = question
        self.seed = seed

    def __call__(self, slices: SliceSet) -> Report:
        """The report.

        Raises:
            MedMLLMError: As `engine.read`.
        """
        return self.read(slices).report

    def read(self, slices: SliceSet, image: MetaTensor | Volume | None = None) -> engine.Read:
        """The report, and the pictures that its findings cite.

        Args:
            slices: What is shown.
            image: What they were made of, for a model that looks at what it found once more from near (see
                `closer`); its pictures then follow those of `slices`.

        Raises:
            MedMLLMError: As `engine.read`.
        """
        model = self.model.open()
        request = Request(task=self.task, slices=slices, question=self.question, seed=self.seed)
        return engine.read(request, model, view=None if image is None else _view(image, model, slices))


def _view(image: MetaTensor | Volume, model: Model, slices: SliceSet) -> View:
    """Makes more pictures of an image, by the model's own plan but for the settings asked for."""

    def view(settings: Mapping[str, Any]) -> SliceSet:
        def plan(volume: Volume) -> SlicePlan:
            return changed(pipeline.plan_for(model, volume), volume, settings)

        if isinstance(image, Volume):
            return plan(image).apply(image)
        return to_slices(image, plan, modality=slices.study.modality)

    return view


class SaveReport(Transform):  # type: ignore[misc]
    """`Report` and its `SliceSet` → a folder of `report.json`, a page, pictures and, for DICOM, SRs."""

    def __init__(self, output_dir: str | Path, *, sr: str = "default") -> None:
        """Take the place.

        Args:
            output_dir: Each series gets a folder in it, which appears whole or not at all: named by its
                Series Instance UID, or for a file by its name and a hash of the pictures. An earlier report
                there is replaced if it was left as we wrote it.
            sr: Which DICOM objects: a name of `dicom_bridge.sr_profile.PROFILES`.
        """
        self.output_dir = Path(output_dir)
        self.sr = sr

    def __call__(self, report: Report, slices: SliceSet, study: Volume | MetaTensor | Paths) -> Path:
        """Write it.

        An SR needs the patient's and study's attributes, which no metadata carry: they are read again from
        the study's headers, and only if these have the very images that the pictures show.

        Args:
            report: What was found.
            slices: The pictures that it was found in.
            study: What they were made of, or its path.

        Returns:
            The folder.

        Raises:
            StudyError: If the headers are not there any more, or are those of other images.
            OutputError: If it can't be written.
            SettingsError: If the folder can't be used, or there is no such profile.
        """
        volume = _study_volume(study, slices)
        folder = self.output_dir / _folder_name(slices)
        with outputs.whole_folder(folder, kind="report") as part:
            pipeline.write(
                pipeline.Reading(report=report, slices=slices, volumes=(volume,)), part, sr=self.sr
            )
        return folder


def _paths(data: Paths) -> tuple[Path, ...]:
    return tuple(Path(str(one)).expanduser() for one in ensure_tuple(data))


def _stored_affine(paths: Sequence[Path], volume: Volume) -> Matrix | None:
    """The affine of the one file that is not DICOM, (i, j, k, 1) to LPS mm; None for DICOM."""
    if not isinstance(volume.planes[0].source, FileImage) or volume.planes[0].to_patient is None:
        return None
    found = list_entries(paths)
    if found.entries or len(found.files) != 1:
        return None
    (path,) = found.files
    read = {"NRRD": nrrd_header, "MetaImage": metaimage_header}.get(str(file_kind(path)), nifti_header)
    return read(path).affine


def _images(slices: SliceSet) -> set[ImageRef]:
    """The images that the pictures are, or were computed from; of a stack its first and last one."""
    found: set[ImageRef] = set()
    for one in slices.shown:
        source = one.source
        found |= {source.first, source.last} if isinstance(source, Resampled) else set(one.images)
    return found


def _is_dicom(slices: SliceSet) -> bool:
    return all(isinstance(image, DicomImage) for image in _images(slices))


def _study_volume(study: Volume | MetaTensor | Paths, slices: SliceSet) -> Volume:
    """The volume with the headers that an SR needs; without headers if the pictures are no DICOM images."""
    if not _is_dicom(slices):
        if isinstance(study, MetaTensor):
            return to_volume(study)
        volume = study if isinstance(study, Volume) else read_volume(_paths(study))
        return replace(volume, headers=())
    if not isinstance(study, Volume):
        which = None
        if isinstance(study, MetaTensor):
            origin = Origin.from_text(study.meta[KEY])
            study, which = origin.paths, origin.which
        study = read_volume(_paths(study), series=slices.study.series_instance_uid, volume=which)
    shown = {image.sop_instance_uid for image in _images(slices) if isinstance(image, DicomImage)}
    missing = shown - {str(header.SOPInstanceUID) for header in study.headers}
    if missing:
        raise StudyError(
            found=f"a study without {len(missing)} of the images that the pictures show",
            expected="the study that they were made of",
            where=f"series {slices.study.series_instance_uid}",
            remedy="give that study",
        )
    return study


def _folder_name(slices: SliceSet) -> str:
    uid = slices.study.series_instance_uid
    if uid is not None and _is_dicom(slices) and re.fullmatch(r"[0-9]+(\.[0-9]+)*", uid):
        return uid
    one = slices.shown[0]
    first = one.source.first if isinstance(one.source, Resampled) else one.images[0]
    digest = hashlib.sha256(b"".join(one.pixels.tobytes() for one in slices.slices)).hexdigest()[:8]
    name = PurePath(first.file).name.partition(".")[0] if isinstance(first, FileImage) else "images"
    return f"{name or 'images'}-{digest}"
