"""A phantom study as real DICOM or NIfTI, marked so that nobody takes it for a patient."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.phantoms.enhanced import enhanced_instance
from medmllm_plugin.phantoms.headers import (
    RESCALE_INTERCEPT,
    coded,
    common_header,
    orientation,
    position,
    stored,
)
from medmllm_plugin.phantoms.nifti import write_nifti
from medmllm_plugin.phantoms.study import DEFAULT_KIND, NIFTI_NAME, Form, PhantomStudy, sample_study
from medmllm_plugin.report import finding_to_json
from medmllm_plugin.source import DicomImage

COMPRESSIONS = {
    "none": ExplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000Lossless,
}
"""Transfer syntaxes by name, all lossless."""


def write_study(
    folder: Path,
    *,
    kind: str = DEFAULT_KIND,
    seed: int = 0,
    findings: tuple[str, ...] | None = None,
    slices: int | None = None,
    matrix: int | None = None,
    form: Form = Form.SERIES,
    compression: str = "none",
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a phantom as files, and what is in it as `truth.json`.

    A series is `IM0001.dcm` and so on, a multi-frame object `phantom.dcm`, NIfTI `phantom.nii.gz`.

    Args:
        folder: Is made if it isn't there.
        kind: One of `phantoms.study.KINDS`.
        seed: The same seed makes the same bytes.
        findings: Keys of findings to place; None for a random choice; empty for a normal study.
        slices: How many slices; None for the usual number.
        matrix: Rows and columns; None for the usual number.
        form: How the images are kept.
        compression: One of `COMPRESSIONS`, for DICOM.
        progress: Called with (slices written, slices in all).

    Returns:
        The images' files in order, then `truth.json`.

    Raises:
        SettingsError: If such a phantom can't be made, or what encodes it is not installed.
    """
    study = sample_study(kind=kind, seed=seed, findings=findings, slices=slices, matrix=matrix, form=form)
    return save_study(study, folder, compression=compression, progress=progress)


def save_study(
    study: PhantomStudy,
    folder: Path,
    *,
    compression: str = "none",
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a phantom that was made before, as `write_study` does: same files, same errors."""
    form = study.form
    if compression not in COMPRESSIONS:
        raise SettingsError(f"no compression is named {compression!r}; there are: {', '.join(COMPRESSIONS)}")
    if compression != "none" and form is Form.NIFTI:
        raise SettingsError(f"{compression} is a compression of DICOM; a phantom in NIfTI is gzipped anyway")
    folder.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda done, total: None)
    if form is Form.NIFTI:
        paths = [folder / NIFTI_NAME]
        write_nifti(study, paths[0], progress=tell)
    elif form is Form.ENHANCED:
        paths = [folder / "phantom.dcm"]
        _save(enhanced_instance(study, progress=tell), paths[0], compression)
    else:
        paths = []
        for k in range(study.slices):
            paths.append(folder / f"IM{k + 1:04d}.dcm")
            _save(instance(study, k), paths[-1], compression)
            tell(k + 1, study.slices)
    path = folder / "truth.json"
    path.write_text(json.dumps(truth(study), indent=1) + "\n", encoding="utf-8")
    return [*paths, path]


def truth(study: PhantomStudy) -> dict[str, object]:
    """The content of `truth.json`: the findings as a perfect reader would report them."""
    return {
        "schema": "medmllm-truth/1",
        "kind": study.kind,
        "seed": study.seed,
        "study": {
            "study_instance_uid": study.uid("study"),
            "series_instance_uid": study.study.series_instance_uid,
            "modality": study.scan.modality,
        },
        "findings": [finding_to_json(finding) for finding in study.truth()],
    }


def instance(study: PhantomStudy, k: int) -> Dataset:
    """Slice k, from 0, as a CT Image (PS3.3 A.3), MR Image (A.4) or Digital X-Ray Image (A.26)."""
    source, plane, scan = study.source(k), study.plane(k), study.scan
    assert isinstance(source, DicomImage)
    header = common_header(study, source)
    number = study.slices - k if scan.downwards else k + 1
    header.InstanceNumber = number
    for keyword, value in scan.header.items():
        setattr(header, keyword, value)
    if plane.to_patient is not None:
        header.ImagePositionPatient = position(study, k)
        header.ImageOrientationPatient = orientation(study)
        header.PixelSpacing = list(scan.spacing)
        header.SliceThickness = scan.thickness
        header.SliceLocation = header.ImagePositionPatient[2]
        header.FrameOfReferenceUID = study.uid("frame of reference")
        header.PositionReferenceIndicator = ""
        header.PatientPosition = scan.position
    if scan.modality == "DX":
        _describe_radiograph(header)
    else:
        header.AcquisitionNumber = 1
        header.WindowCenter = f"{scan.window[0]:g}"
        header.WindowWidth = f"{scan.window[1]:g}"
    if scan.modality == "CT":
        header.RescaleIntercept = str(RESCALE_INTERCEPT)
        header.RescaleSlope = "1"
        header.RescaleType = "HU"
    header.PixelData = stored(study, k).tobytes()
    return header


def _describe_radiograph(header: Dataset) -> None:
    """What a Digital X-Ray Image has and others have not (PS3.3 A.26)."""
    header.PresentationIntentType = "FOR PRESENTATION"
    header.PresentationLUTShape = "IDENTITY"
    header.PixelIntensityRelationship = "LOG"
    header.PixelIntensityRelationshipSign = -1
    header.RescaleIntercept = "0"
    header.RescaleSlope = "1"
    header.RescaleType = "US"
    header.LossyImageCompression = "00"
    header.BurnedInAnnotation = "NO"
    header.ImageLaterality = "U"
    header.DetectorType = "DIRECT"
    header.PositionerType = "NONE"
    header.WindowCenter, header.WindowWidth = "2048", "4096"
    chest = coded("816094009", "SCT", "Chest")
    header.AnatomicRegionSequence = [chest]
    header.AcquisitionContextSequence = []
    view = {"PA": ("272479007", "postero-anterior"), "AP": ("399348003", "antero-posterior")}
    code, meaning = view[header.ViewPosition]
    header.ViewCodeSequence = [coded(code, "SCT", meaning)]


def _save(dataset: Dataset, path: Path, compression: str) -> None:
    if compression != "none":
        try:
            dataset.compress(COMPRESSIONS[compression], generate_instance_uid=False)
        except RuntimeError as error:
            raise SettingsError(
                f"{compression} can't be encoded here, as its encoder is not installed: "
                "pip install 'medmllm-plugin[imaging]'"
            ) from error
    dataset.save_as(path, enforce_file_format=True)
