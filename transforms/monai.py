"""Citizens of MONAI: `StudyReader`, `LoadStudy(d)`, `ToSliceSet(d)`, `ReadFindings(d)`, `SaveReport(d)`.

They go into `Compose` (lazy too), `Dataset` and the workers of a `DataLoader`, and take and give
`MetaTensor`s whose affine is RAS, as MONAI has it. A `SliceSet` and a `Report` are no tensors: load them with
`collate_fn=monai.data.utils.no_collation`. Needs `medmllm-plugin[engine]`.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ensure_tuple_rep

from medmllm_plugin.errors import MedMLLMError, StudyError
from medmllm_plugin.models import Model
from medmllm_plugin.transforms.entries import file_kind, looks_like_dicom
from medmllm_plugin.transforms.monai_array import (
    LazyModel,
    LoadStudy,
    ReadFindings,
    SaveReport,
    StudyReader,
    ToSliceSet,
)

__all__ = [
    "LazyModel",
    "LoadStudy",
    "LoadStudyD",
    "LoadStudyDict",
    "LoadStudyd",
    "ReadFindings",
    "ReadFindingsD",
    "ReadFindingsDict",
    "ReadFindingsd",
    "ReportEvaluator",
    "SaveReport",
    "SaveReportD",
    "SaveReportDict",
    "SaveReportd",
    "StudyReader",
    "ToSliceSet",
    "ToSliceSetD",
    "ToSliceSetDict",
    "ToSliceSetd",
    "studies_in",
]

Data = Mapping[Hashable, Any]


class LoadStudyd(MapTransform):  # type: ignore[misc]
    """Dictionary version of `LoadStudy`: paths of studies become images."""

    def __init__(self, keys: KeysCollection, *, allow_missing_keys: bool = False, **options: Any) -> None:
        """Take the keys.

        Args:
            keys: Of paths; the images take their places.
            allow_missing_keys: Whether a key may be missing.
            **options: As for `LoadStudy`.
        """
        super().__init__(keys, allow_missing_keys)
        self.loader = LoadStudy(**options)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The data with images for paths; errors as of `LoadStudy`."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.loader(d[key])
        return d


class ToSliceSetd(MapTransform):  # type: ignore[misc]
    """Dictionary version of `ToSliceSet`."""

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        """Take the keys.

        Args:
            keys: Of images, `MetaTensor` or `Volume`.
            output_keys: Where the slice sets go, one for each key; None puts them in place of the images.
            allow_missing_keys: Whether a key may be missing.
            **options: As for `ToSliceSet`.
        """
        super().__init__(keys, allow_missing_keys)
        self.output_keys = ensure_tuple_rep(output_keys, len(self.keys))
        self.to_slices = ToSliceSet(**options)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The data with slice sets; errors as of `ToSliceSet`."""
        d = dict(data)
        for key, output in self.key_iterator(d, self.output_keys):
            d[output or key] = self.to_slices(d[key])
        return d


class ReadFindingsd(MapTransform):  # type: ignore[misc]
    """Dictionary version of `ReadFindings`."""

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_keys: KeysCollection | None = "report",
        image_keys: KeysCollection | None = None,
        model: str | Model | LazyModel = "embedded",
        allow_missing_keys: bool = False,
        **options: Any,
    ) -> None:
        """Take the keys.

        Args:
            keys: Of slice sets.
            output_keys: Where the reports go, one for each key; None puts them in place of the slice sets.
            image_keys: Of what the slice sets were made of, for models that look at what they found once more
                from near; a slice set then gets the pictures of that look, which its report cites.
            model: As for `ReadFindings`.
            allow_missing_keys: Whether a key may be missing.
            **options: As for `ReadFindings`.
        """
        super().__init__(keys, allow_missing_keys)
        self.output_keys = ensure_tuple_rep(output_keys, len(self.keys))
        self.image_keys = ensure_tuple_rep(image_keys, len(self.keys))
        self.findings = ReadFindings(model=model, **options)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The data with reports; errors as of `ReadFindings`."""
        d = dict(data)
        for key, output, image in self.key_iterator(d, self.output_keys, self.image_keys):
            read = self.findings.read(d[key], None if image is None else d[image])
            d[key] = read.slices
            d[output or key] = read.report
        return d


class SaveReportd(MapTransform):  # type: ignore[misc]
    """Dictionary version of `SaveReport`; the folder written goes under the report's key and `_folder`."""

    def __init__(
        self,
        keys: KeysCollection = "report",
        *,
        output_dir: str | Path,
        slices_keys: KeysCollection = "slices",
        study_keys: KeysCollection = "image",
        sr: str = "default",
        allow_missing_keys: bool = False,
    ) -> None:
        """Take the keys.

        Args:
            keys: Of reports.
            output_dir: As for `SaveReport`.
            slices_keys: Of the slice sets that the reports are about.
            study_keys: Of the images, or paths, that these were made of.
            sr: As for `SaveReport`.
            allow_missing_keys: Whether a key may be missing.
        """
        super().__init__(keys, allow_missing_keys)
        self.slices_keys = ensure_tuple_rep(slices_keys, len(self.keys))
        self.study_keys = ensure_tuple_rep(study_keys, len(self.keys))
        self.save = SaveReport(output_dir, sr=sr)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """The data with the folders' paths; errors as of `SaveReport`."""
        d = dict(data)
        for key, slices, study in self.key_iterator(d, self.slices_keys, self.study_keys):
            d[f"{key}_folder"] = str(self.save(d[key], d[slices], d[study]))
        return d


def studies_in(folder: str | Path) -> list[dict[str, Any]]:
    """The studies of a folder as a MONAI data list, `[{"image": path}, ...]`, in the order of their names.

    Each folder in it, each zip and each file such as NIfTI is one study. DICOM files that lie in it directly
    are together one more; with a DICOMDIR among them the whole folder is one.

    Raises:
        StudyError: If there is none.
    """
    place = Path(folder).expanduser()
    inside = (
        sorted(path for path in place.iterdir() if not path.name.startswith(".")) if place.is_dir() else []
    )
    if any(path.name.upper() == "DICOMDIR" for path in inside):
        return [{"image": str(place)}]
    studies: list[dict[str, Any]] = [
        {"image": str(path)}
        for path in inside
        if path.is_dir() or path.suffix.lower() == ".zip" or file_kind(path) is not None
    ]
    loose = [str(path) for path in inside if path.is_file() and _is_dicom(path)]
    if loose:
        studies.append({"image": loose})
    if not studies:
        raise StudyError(
            found="no study",
            expected="a folder, zip or file for each study",
            where=folder,
            remedy="give the folder that holds the studies",
        )
    return studies


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return looks_like_dicom(file.read(144)) or path.suffix.lower() in (".dcm", ".dicom")


class ReportEvaluator:
    """Runs studies through transforms to their reports; one that is refused stops no other."""

    def __init__(self, dataset: Sequence[Data], postprocessing: Any = None) -> None:
        """Take the studies.

        Args:
            dataset: Such as a `monai.data.Dataset` with `LoadStudyd` and `ToSliceSetd`.
            postprocessing: What is done to each item, such as a `Compose` of `ReadFindingsd` and
                `SaveReportd`.
        """
        self.dataset = dataset
        self.postprocessing = postprocessing

    def run(self) -> list[Data]:
        """The items of the studies that went through.

        Raises:
            StudyError: At the end, if some were refused; the log says why for each.
        """
        log = logging.getLogger("medmllm_plugin")
        done: list[Data] = []
        refused = 0
        for number in range(len(self.dataset)):
            try:
                item = self.dataset[number]
                done.append(item if self.postprocessing is None else self.postprocessing(item))
            except (MedMLLMError, RuntimeError) as error:
                # MONAI wraps what a transform raises, layer by layer
                cause = _ours(error)
                if cause is None:
                    raise
                refused += 1
                log.error("study %d of %d: %s", number + 1, len(self.dataset), cause)
        if refused:
            raise StudyError(
                found=f"{refused} of {len(self.dataset)} studies that were refused",
                expected="studies that can be read",
                where="dataset",
                remedy="see the log for the reasons; all others are done",
            )
        return done


def _ours(error: BaseException | None) -> MedMLLMError | None:
    while error is not None and not isinstance(error, MedMLLMError):
        error = error.__cause__
    return error


LoadStudyD = LoadStudyDict = LoadStudyd
ToSliceSetD = ToSliceSetDict = ToSliceSetd
ReadFindingsD = ReadFindingsDict = ReadFindingsd
SaveReportD = SaveReportDict = SaveReportd
