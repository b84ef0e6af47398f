"""What lies in a folder, a file, a DICOMDIR or a zip, as entries that all look the same.

Nothing of a zip is ever written to disk. Hidden files and files that are not DICOM are counted, not hidden:
`Listing.left_out` says how many and why.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import MediaStorageDirectoryStorage

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.dicomdir import named_files
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.scan import Scanned, Scanner

FILE_KINDS = {
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".hdr": "NIfTI",
    ".hdr.gz": "NIfTI",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
}
"""Files that hold a volume and are not DICOM, by how their name ends; a .hdr has its voxels in an .img."""

MEMBER_LIMIT = 2 << 30
"""Largest member of a zip that is read, bytes: one member at a time is held in memory."""
TOTAL_LIMIT = 32 << 30
"""Largest sum of the members of a zip, bytes unpacked."""
COUNT_LIMIT = 200_000
"""Most members of a zip."""

ZIP_INSIDE = "zip inside"

LINK = "link to a folder"
PACKED = "packed file (gzip, bzip2, xz, 7z, rar or tar)"

_DICOM_SUFFIXES = (".dcm", ".dicom")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")
_PACKED_SUFFIXES = (".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".tar")
_HEAD = 144
_KNOWN_KINDS = "DICOM, a DICOMDIR, a .zip of DICOM, NIfTI, NRRD or MetaImage"


class Entry(NamedTuple):
    """One file that is, or says it is, DICOM."""

    file: str
    """The path as given, or `archive.zip:member`."""
    scanned: Scanned | None = None
    """Its header as far as it was scanned; None if pydicom must read it."""
    unpack: Callable[[], BinaryIO] | None = None
    """Unpacks a member of a zip; None for a file on disk."""

    def __repr__(self) -> str:
        return f"Entry({self.file!r})"

    @property
    def name(self) -> str:
        """How an error calls it."""
        return one_line(self.file)

    @property
    def path(self) -> Path | None:
        """Where it lies on disk; None for a member of a zip."""
        return Path(self.file) if self.unpack is None else None

    def open(self) -> BinaryIO:
        """Open it for reading bytes, seekable."""
        return _ToTheEnd(io.FileIO(self.file)) if self.unpack is None else self.unpack()


class _ToTheEnd(io.BufferedReader):
    """A file that takes no memory for bytes beyond its end, however many a damaged header asks for."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(size if size is None or size < 0 else max(0, min(size, left)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Everything that was found under the given paths."""

    entries: tuple[Entry, ...] = ()
    """Files that are DICOM or claim to be, in the order of their names."""
    files: tuple[Path, ...] = ()
    """Volume files that are not DICOM; see `FILE_KINDS`."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason, such as `not DICOM`, to the number of files."""

    def __add__(self, other: Listing) -> Listing:
        return Listing(
            entries=self.entries + other.entries,
            files=self.files + other.files,
            left_out=self.left_out + other.left_out,
        )


def read_meta(file: BinaryIO) -> FileMetaDataset:
    """The file meta information (PS3.10 7.1); the file is left where the dataset begins."""
    read_preamble(file, force=True)
    return _read_file_meta_info(file)


def list_entries(paths: Sequence[Path], scanner: Scanner | None = None) -> Listing:
    """What lies under the paths: folders (with their subfolders), files, DICOMDIRs, zips, volume files.

    Args:
        paths: In the order in which they are listed.
        scanner: What scans the headers of files on disk, such as one with an index; None for a plain one.

    Raises:
        StudyError: If a path does not exist, can't be opened, or is a file of no known kind.
    """
    listing, scanner = Listing(), scanner or Scanner()
    for path in map(Path, paths):
        try:
            listing += _list_folder(path, scanner) if path.is_dir() else _list_file(path, scanner)
        except OSError as error:
            raise StudyError(
                found=f"something that can't be opened ({error.strerror or type(error).__name__})",
                expected="a readable folder or file",
                where=path,
                remedy="check that it exists and that you may read it",
            ) from error
    return listing


def one_line(text: str) -> str:
    r"""The text with a question mark for each character that can't be printed on one line.

    >>> one_line("IM\n0001")
    'IM?0001'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def file_kind(path: Path) -> str | None:
    """NIfTI, NRRD or MetaImage by the name of a volume file; None for every other name.

    >>> file_kind(Path("t1.NII.gz")), file_kind(Path("t1.nhdr")), file_kind(Path("t1.gz"))
    ('NIfTI', 'NRRD', None)
    """
    name = path.name.lower()
    return next((kind for suffix, kind in FILE_KINDS.items() if name.endswith(suffix)), None)


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are those of DICOM, be it without preamble (PS3.10 section 7.1).

    >>> looks_like_dicom(bytes(128) + b"DICM")
    True
    >>> looks_like_dicom(bytes.fromhex("08000500") + b"CS" + bytes.fromhex("0a00") + b"ISO_IR 100")
    True
    >>> looks_like_dicom(b"ReadMe: nothing to see here")
    False
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:4] == bytes(4):
        return False
    for order in ("little", "big"):
        group, element = (int.from_bytes(head[i : i + 2], order) for i in (0, 2))
        if group in (2, 8) and element <= 0x0100:
            length = int.from_bytes(head[4:8], order)
            return bool(head[4:6].isalpha() and head[4:6].isupper()) or length <= 256
    return False


def _list_folder(folder: Path, scanner: Scanner) -> Listing:
    entries: list[Entry] = []
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    for file, head, scanned in scanner.scan_all(_walk(str(folder), left_out)):
        if scanned is not None:
            entries.append(Entry(file, scanned))
            continue
        path = Path(file)
        # other programs, too, call a file .hdr: those of NIfTI begin with their size
        if file_kind(path) and (path.suffix.lower() != ".hdr" or _nifti_size(head)):
            files.append(path)
        elif looks_like_dicom(head) or path.suffix.lower() in _DICOM_SUFFIXES:
            entries.append(Entry(file))
        else:
            inside = ZIP_INSIDE if zipfile.is_zipfile(path) else "not DICOM"
            left_out[PACKED if _is_packed(path.name, head) else inside] += 1
    return Listing(entries=tuple(entries), files=tuple(files), left_out=left_out)


def _walk(folder: str, left_out: Counter[str]) -> Iterator[str]:
    """The files of a folder by name, then those of its folders; links to folders are not followed."""
    waiting = [folder]
    while waiting:
        folders: list[str] = []
        with os.scandir(waiting.pop()) as found:
            inside = sorted(found, key=attrgetter("name"))
        for one in inside:
            if one.is_dir(follow_symlinks=False):
                if not _is_hidden(one.name):
                    folders.append(one.path)
            elif _is_hidden(one.name):
                left_out["hidden"] += 1
            elif one.is_file():
                yield one.path
            else:
                left_out[LINK if one.is_dir() else "not a regular file"] += 1
        waiting += reversed(folders)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_packed(name: str, head: bytes) -> bool:
    """Whether a file is packed by something else than zip."""
    return head.startswith(_PACKED) or name.lower().endswith(_PACKED_SUFFIXES)


def _list_file(path: Path, scanner: Scanner) -> Listing:
    if path.exists() and not path.is_file():
        raise StudyError(
            found="a pipe or device",
            expected="a folder or a regular file",
            where=path,
            remedy="write what comes out of it to a file, and give that",
        )
    head, scanned = scanner.scan(str(path))
    if file_kind(path):
        return Listing(files=(path,))
    if (header := _header_beside(path)) is not None:
        return Listing(files=(header,))
    if path.suffix.lower() == ".zip" or head.startswith(_ZIP):
        return list_zip(path)
    if scanned is None and looks_like_dicom(head) and _is_directory(path):
        return _list_directory(path, scanner)
    if scanned is not None or looks_like_dicom(head):
        return Listing(entries=(Entry(str(path), scanned),))
    if _is_packed(path.name, head):
        raise StudyError(
            found=f"a {PACKED}", expected=_KNOWN_KINDS, where=path, remedy="unpack it and give what was in it"
        )
    claims = path.suffix.lower() in _DICOM_SUFFIXES or path.name.upper() == "DICOMDIR"
    raise StudyError(
        found="an empty file"
        if not head
        else "a file that is not DICOM"
        if claims
        else "a file of unknown kind",
        expected=_KNOWN_KINDS,
        where=path,
        remedy="give the file that the scanner or PACS exported, or convert it to DICOM or NIfTI",
    )


def _nifti_size(head: bytes) -> bool:
    """Whether a header begins with its size, 348 (NIfTI-1) or 540 (NIfTI-2), in either byte order."""
    return any(int.from_bytes(head[:4], order) in (348, 540) for order in ("little", "big"))


def _header_beside(path: Path) -> Path | None:
    """The .hdr of a pair that was given by its .img; None for any other file."""
    name = path.name.lower()
    if not name.endswith((".img", ".img.gz")):
        return None
    stem = path.name[: name.rindex(".img")]
    names = [f"{stem}{suffix}" for suffix in (".hdr", ".HDR", ".hdr.gz", ".HDR.GZ")]
    return next((path.with_name(n) for n in names if path.with_name(n).is_file()), None)


def list_zip(
    path: Path,
    *,
    member_limit: int = MEMBER_LIMIT,
    total_limit: int = TOTAL_LIMIT,
    count_limit: int = COUNT_LIMIT,
) -> Listing:
    """The members of a zip that are DICOM; each is unpacked in memory whenever it is opened.

    Args:
        path: The zip.
        member_limit: Most bytes of one member, unpacked.
        total_limit: Most bytes of all members, unpacked.
        count_limit: Most members.

    Raises:
        StudyError: If it is damaged, encrypted, or larger than the limits (a zip bomb).
    """
    remedy = "unpack it and give the folder"
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted((m for m in archive.infolist() if not m.is_dir()), key=lambda m: m.filename)
            sizes = [member.file_size for member in members]
            if len(sizes) > count_limit or sum(sizes) > total_limit or max(sizes, default=0) > member_limit:
                raise StudyError(
                    found=f"{len(sizes)} members of {sum(sizes)} bytes unpacked, the largest {max(sizes)}",
                    expected=f"at most {count_limit} members, {total_limit} bytes, {member_limit} bytes each",
                    where=path,
                    remedy=remedy,
                )
            if any(member.flag_bits & 1 for member in members):
                raise StudyError(found="an encrypted zip", expected="a plain zip", where=path, remedy=remedy)
            return _list_members(path, archive, members)
    except (StudyError, OSError):
        raise
    except Exception as error:  # zipfile raises many kinds on damaged directories
        raise StudyError(
            found="a damaged or unsupported zip",
            expected="a whole zip of DICOM files",
            where=path,
            remedy="fetch it again, or unpack it and give the folder",
        ) from error


def _list_members(path: Path, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> Listing:
    entries: list[Entry] = []
    left_out: Counter[str] = Counter()
    for member in members:
        name = PurePosixPath(member.filename)
        if any(_is_hidden(part) for part in name.parts if part != ".."):  # nothing is unpacked to disk
            left_out["hidden"] += 1
            continue
        with _reading_member(path, member.filename), archive.open(member) as file:
            head = file.read(_HEAD)
        if looks_like_dicom(head) or name.suffix.lower() in _DICOM_SUFFIXES:
            entries.append(_member_entry(path, member))
        else:
            kind = file_kind(Path(name.name))
            packed = PACKED if _is_packed(name.name, head) else "not DICOM"
            other = ZIP_INSIDE if head.startswith(_ZIP) else packed
            left_out[f"{kind} inside a zip" if kind else other] += 1
    return Listing(entries=tuple(entries), left_out=left_out)


def _member_entry(path: Path, member: zipfile.ZipInfo) -> Entry:
    def unpack() -> BinaryIO:
        with _reading_member(path, member.filename), zipfile.ZipFile(path) as archive:
            # zipfile hands out no more than the size that the directory declares, which was checked
            return io.BytesIO(archive.read(member))

    return Entry(f"{path}:{member.filename}", unpack=unpack)


@contextmanager
def _reading_member(path: Path, member: str) -> Iterator[None]:
    """Turns what zipfile and zlib raise on a damaged member into one of our errors."""
    try:
        yield
    except Exception as error:
        raise StudyError(
            found=f"a damaged member ({type(error).__name__})",
            expected="a whole zip of DICOM files",
            where=one_line(f"{path}:{member}"),
            remedy="fetch the zip again",
        ) from error


def _is_directory(path: Path) -> bool:
    """Whether a DICOM file is a DICOMDIR, by its meta information or its name."""
    if path.name.upper() == "DICOMDIR":
        return True
    try:
        with quiet(), Entry(str(path)).open() as file:
            return bool(read_meta(file).get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage)
    except Exception:  # a damaged header is told by the reader of headers, which names the file
        return False


def _list_directory(path: Path, scanner: Scanner) -> Listing:
    """The files that a DICOMDIR names; a name that is not there is counted."""
    with Entry(str(path)).open() as file:
        files, missing = named_files(file, path)
    left_out = Counter({"named in the DICOMDIR but not there": missing}) if missing else Counter[str]()
    entries = tuple(Entry(file, scanned) for file, _, scanned in scanner.scan_all(map(str, files)))
    return Listing(entries=entries, left_out=left_out)
