"""A study on disk → a `Volume`: the one door for folders, files, DICOMDIR, zip, NIfTI, NRRD and MetaImage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.dicom_series import read_dicom
from medmllm_plugin.transforms.entries import LINK, PACKED, ZIP_INSIDE, Listing, file_kind, list_entries
from medmllm_plugin.volume import Volume


def read_volume(
    paths: Sequence[Path],
    *,
    series: str | None = None,
    modality: str | None = None,
    volume: int | str | None = None,
    index: Path | None = None,
) -> Volume:
    """Read one series or file; headers now, pixels when `Volume.read_plane` asks for them.

    Args:
        paths: Folders, DICOM files, a DICOMDIR, zips of DICOM, or one NIfTI, NRRD or MetaImage file.
        series: Series Instance UID, its unique beginning or end, or the Series Number; None lets the rule of
            `medmllm_plugin.transforms.dicom_series` choose.
        modality: For DICOM: only series of this Modality (0008,0060). For other files: what it shows, such
            as MR.
        volume: Of a file or series that holds several volumes, which one, from 0: of NIfTI, NRRD and
            MetaImage by the fourth axis; of DICOM the stacks that the notes list (echoes, b-values, phases),
            which may be named too, such as `b-value 1000`. None takes the first, of DICOM the largest.
        index: A file in which the scan of the headers is kept, for the next time; see
            `medmllm_plugin.transforms.scan_index`. None keeps nothing.

    Returns:
        The planes sorted along their normal; `Volume.notes` says what was chosen, what was left out, and why.

    Raises:
        StudyError: If there is nothing to read, more than one patient or study, or a file is damaged.
        GeometryError: If a place can't be computed exactly.
        SettingsError: If the index can't be written.
        ValueError: If no path is given.
    """
    if not paths:
        raise ValueError("no path was given")
    where = ", ".join(map(str, paths))
    listing = _listing(paths, index)
    if listing.entries:
        return read_dicom(_without_files(listing), series=series, modality=modality, stack=volume)
    if len(listing.files) != 1:
        raise nothing_found(listing, where)
    if series is not None:
        raise StudyError(
            found=f"a {file_kind(listing.files[0])} file",
            expected="DICOM, as a series was named",
            where=where,
            remedy="leave out the series",
        )
    if volume is not None and not str(volume).isdecimal():
        raise StudyError(
            found=f"a {file_kind(listing.files[0])} file, whose volumes have no names",
            expected="the number of a volume, from 0",
            where=where,
            remedy="give a number",
        )
    return _read_file(listing.files[0], modality, None if volume is None else int(volume))


def _listing(paths: Sequence[Path], index: Path | None) -> Listing:
    if index is None:
        return list_entries(paths)
    from medmllm_plugin.transforms.scan_index import IndexedScanner

    scanner = IndexedScanner(index)
    listing = list_entries(paths, scanner)
    scanner.save()
    return listing


def _read_file(path: Path, modality: str | None, volume: int | None) -> Volume:
    match file_kind(path):
        case "NRRD":
            from medmllm_plugin.transforms.nrrd import read_nrrd as read
        case "MetaImage":
            from medmllm_plugin.transforms.metaimage import read_metaimage as read
        case _:
            from medmllm_plugin.transforms.nifti import read_nifti as read
    return read(path, modality=modality, volume=volume)


def _without_files(listing: Listing) -> Listing:
    for path in listing.files:
        listing.left_out[f"{file_kind(path)} beside DICOM"] += 1
    return listing


def nothing_found(listing: Listing, where: str) -> StudyError:
    """The error for paths under which there is no image to read, or more than one file that is a volume."""
    if listing.files:
        kinds = Counter(str(file_kind(path)) for path in listing.files)
        return StudyError(
            found=", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) + " files",
            expected="one",
            where=where,
            remedy="give the file itself",
        )
    others = ", ".join(f"{n} {reason}" for reason, n in sorted(listing.left_out.items()))
    return StudyError(
        found=f"no images ({others})" if others else "an empty folder",
        expected="DICOM images or a NIfTI, NRRD or MetaImage file",
        where=where,
        remedy=next((_REMEDIES[kind] for kind in _REMEDIES if listing.left_out[kind]), _OTHERWISE),
    )


_REMEDIES = {
    ZIP_INSIDE: "give the zip itself, or unpack it",
    PACKED: "unpack them and give the folder",
    LINK: "give the folder that the link leads to",
}
_OTHERWISE = "give the folder or file that holds the images"
