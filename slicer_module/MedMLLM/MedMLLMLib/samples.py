"""The sample study: a synthetic chest CT and what the engine reported of it, packed with the extension.

So the tutorial works without a network and without an engine. It shows no real person.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

NAME = "MedMLLM phantom chest CT"
ARCHIVE = Path(__file__).parents[1] / "Resources" / "SampleData" / "MedMLLMPhantomChestCT.zip"
SHA256 = "3fcb4bb6d7c5e744d762ec75f059b6c3eca2fc9972819da9e9e43ffde4a3fae4"
"""Of `ARCHIVE`; `tools/slicer_sample.py` prints it."""


def unpack(folder: Path) -> list[Path]:
    """The sample's DICOM files: the images, and the structured report as `findings.dcm`.

    Args:
        folder: Where to.

    Raises:
        ValueError: If the archive is not the one that was shipped.
    """
    found = hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"found an archive of SHA-256 {found}, expected {SHA256}, at {ARCHIVE.name}; install the "
            "extension again"
        )
    with zipfile.ZipFile(ARCHIVE) as archive:
        return [Path(archive.extract(name, folder)) for name in archive.namelist()]


def register() -> None:
    """Put the sample into Slicer's module Sample Data, under "MedMLLM"."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="MedMLLM",
        sampleName=NAME,
        thumbnailFileName=str(ARCHIVE.with_suffix(".png")),
        uris=ARCHIVE.as_uri(),
        fileNames=ARCHIVE.name,
        nodeNames=NAME,
        checksums=f"SHA256:{SHA256}",
        customDownloader=load,
    )


def load(source: Any = None) -> list[Any]:
    """Import the sample into Slicer's DICOM database and load its images and its report.

    Args:
        source: The entry of Sample Data that was chosen.

    Returns:
        The nodes that were loaded, the volume first.

    Raises:
        RuntimeError: If no DICOM database is open.
    """
    import slicer
    from DICOMLib import DICOMUtils

    if not (slicer.dicomDatabase and slicer.dicomDatabase.isOpen):
        raise RuntimeError(
            "no DICOM database is open; open the module DICOM once, then load the sample again"
        )
    folder = Path(slicer.app.temporaryPath) / "MedMLLMSample"
    files = unpack(folder)
    DICOMUtils.importDicom(str(folder), slicer.dicomDatabase)
    series = dict.fromkeys(slicer.dicomDatabase.fileValue(str(file), "0020,000E") for file in files)
    return [slicer.mrmlScene.GetNodeByID(one) for one in DICOMUtils.loadSeriesByUID(list(series))]
