"""A study on disk → a `Volume`: the one door for folders, files, DICOMDIR, zip and NIfTI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.dicom_series import read_dicom
from medmllm_plugin.transforms.entries import ZIP_INSIDE, Listing, list_entries
from medmllm_plugin.volume import Volume


def read_volume(paths: Sequence[Path], *, series: str | None = None, modality: str | None = None) -> Volume:
    """Read one series or file; headers now, pixels when `Volume.read_plane` asks for them.

    Args:
        paths: Folders, DICOM files, a DICOMDIR, zips of DICOM, or one NIfTI file.
        series: Series Instance UID, its unique beginning or end, or the Series Number; None lets the rule of
            `medmllm_plugin.transforms.dicom_series` choose.
        modality: For DICOM: only series of this Modality (0008,0060). For NIfTI: what the file shows, such as
            MR.

    Returns:
        The planes sorted along their normal; `Volume.notes` says what was chosen, what was left out, and why.

    Raises:
        StudyError: If there is nothing to read, more than one patient or study, or a file is damaged.
        GeometryError: If a place can't be computed exactly.
        ValueError: If no path is given.
    """
    if not paths:
        raise ValueError("no path was given")
    where = ", ".join(map(str, paths))
    listing = list_entries(paths)
    if listing.entries:
        return read_dicom(_without_niftis(listing), series=series, modality=modality)
    if len(listing.niftis) != 1:
        raise _nothing(listing, where)
    if series is not None:
        raise StudyError(
            found="a NIfTI file",
            expected="DICOM, as a series was named",
            where=where,
            remedy="leave out the series",
        )
    from medmllm_plugin.transforms.nifti import read_nifti

    return read_nifti(listing.niftis[0], modality=modality)


def _without_niftis(listing: Listing) -> Listing:
    if listing.niftis:
        listing.left_out["NIfTI beside DICOM"] += len(listing.niftis)
    return listing


def _nothing(listing: Listing, where: str) -> StudyError:
    if listing.niftis:
        return StudyError(
            found=f"{len(listing.niftis)} NIfTI files",
            expected="one",
            where=where,
            remedy="give the file itself",
        )
    others = ", ".join(f"{n} {reason}" for reason, n in sorted(listing.left_out.items()))
    return StudyError(
        found=f"no images ({others})" if others else "an empty folder",
        expected="DICOM images or a NIfTI file",
        where=where,
        remedy="give the zip itself"
        if listing.left_out[ZIP_INSIDE]
        else "give the folder or file that holds the images",
    )
