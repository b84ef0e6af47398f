"""The files that a DICOMDIR names (PS3.3 F, PS3.10 8.6)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.scan import UNDEFINED

_RECORDS = 0x00041220
_SHORTEST_HEADER = 8
"""Bytes of tag and length, the least before a value (PS3.5 7.1)."""


def named_files(file: BinaryIO, path: Path) -> tuple[list[Path], int]:
    """The files that a DICOMDIR names and that are there, by name; and how many are not there.

    Args:
        file: The DICOMDIR, open.
        path: Where it lies; the files lie beside it.

    Raises:
        StudyError: If it is damaged or cut off, or none of its files is there.
    """
    try:
        with quiet():
            records = dcmread(file, force=True).get("DirectoryRecordSequence") or []
            _require_whole(file, path)
            names = [_file_id(r.ReferencedFileID) for r in records if r.get("ReferencedFileID")]
    except StudyError:
        raise
    except Exception as error:
        raise StudyError(
            found=f"a damaged DICOMDIR ({type(error).__name__})",
            expected="a directory of files (PS3.3 F.3)",
            where=path,
            remedy="give the folder instead",
        ) from error
    found = [_find(path.parent, parts) for parts in names]
    missing = sum(one is None for one in found)
    if missing == len(names):
        raise StudyError(
            found=f"{len(names)} names of files, none of which is there" if names else "no names of files",
            expected="the files beside the DICOMDIR",
            where=path,
            remedy="copy the whole medium, or give the folder of the images",
        )
    return sorted({one for one in found if one is not None}), missing


def _require_whole(file: BinaryIO, path: Path) -> None:
    """That Directory Record Sequence (0004,1220) is as long as it says: else a part of it would be read."""
    found: list[int] = []

    def at_records(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag == _RECORDS:
            found.append(length if vr in (None, "SQ") else 0)
        return bool(tag == _RECORDS)

    file.seek(0)
    read_partial(file, stop_when=at_records, force=True)
    start = file.tell()
    left = file.seek(0, 2) - start - _SHORTEST_HEADER
    if found and found[0] != UNDEFINED and found[0] > left:
        raise StudyError(
            found="a DICOMDIR that is cut off",
            expected="a directory of files (PS3.3 F.3)",
            where=path,
            remedy="copy the medium again, or give the folder instead",
        )


def _file_id(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, value))  # type: ignore[call-overload]


def _find(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """The file of that File ID under the folder, whatever the case of its letters; None if it isn't there."""
    here = folder
    for part in parts:
        if part in ("", ".", "..") or "/" in part or "\\" in part or not here.is_dir():
            return None
        exact = here / part
        if exact.exists():
            here = exact
            continue
        # a medium copied to disk is often in lower case
        alike = sorted(p for p in here.iterdir() if p.name.lower() == part.lower())
        if not alike:
            return None
        here = alike[0]
    return here if here.is_file() else None
