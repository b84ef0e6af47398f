"""Tests of `medmllm_plugin.transforms.entries`."""

from __future__ import annotations

import gzip
import os
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms.entries import list_entries, list_zip
from medmllm_plugin.transforms.quiet import quiet
from medmllm_plugin.transforms.reading import read_volume
from tests.builders import write_ct_series, write_dicomdir


def zipped(archive: Path, files: list[Path], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as opened:
        for file in files:
            opened.write(file, f"study/{file.name}")
    return archive


def a_dicomdir(folder: Path) -> Path:
    return write_dicomdir(folder / "medium", write_ct_series(folder / "loose", slices=3))


def test_a_folder_lists_dicom_of_any_name_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "series", slices=2)
    paths[0].rename(tmp_path / "series" / "IM0001")
    (tmp_path / "README.txt").write_text("nothing")
    (tmp_path / ".DS_Store").write_bytes(b"x")

    listing = list_entries([tmp_path])

    assert [Path(entry.name).name for entry in listing.entries] == ["0001.dcm", "IM0001"]
    assert listing.left_out == {"not DICOM": 1, "hidden": 1}


def test_a_zip_member_holds_the_bytes_of_the_file(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "series", slices=3)

    listing = list_entries([zipped(tmp_path / "study.zip", paths)])

    assert [entry.open().read() for entry in listing.entries] == [p.read_bytes() for p in sorted(paths)]
    assert all(entry.path is None for entry in listing.entries)


@pytest.mark.parametrize("limit", ["member_limit", "total_limit", "count_limit"])
def test_a_zip_beyond_a_limit_is_refused_unread(tmp_path: Path, limit: str) -> None:
    archive = zipped(tmp_path / "bomb.zip", write_ct_series(tmp_path / "series", slices=2))

    with pytest.raises(StudyError, match=r"bomb\.zip: found 2 members"):
        list_zip(archive, **{limit: 1})


def test_a_damaged_zip_is_one_clear_error(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "study.zip", write_ct_series(tmp_path / "series", slices=2))
    archive.write_bytes(archive.read_bytes()[:-40])

    with pytest.raises(StudyError, match="damaged or unsupported zip"):
        list_entries([archive])


def test_a_member_with_a_wrong_checksum_is_one_clear_error(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "series", slices=1)
    archive = zipped(tmp_path / "study.zip", paths, compression=zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(bytes(content))

    with pytest.raises(StudyError, match=r"study\.zip:study/0001\.dcm: found a damaged member"):
        list_entries([archive]).entries[0].open()


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "study.zip", write_ct_series(tmp_path / "series", slices=1))
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(content))

    with pytest.raises(StudyError, match="an encrypted zip"):
        list_entries([archive])


def test_a_dicomdir_lists_the_files_it_names(tmp_path: Path) -> None:
    listing = list_entries([a_dicomdir(tmp_path)])

    with ExitStack() as stack:
        modalities = [dcmread(stack.enter_context(entry.open())).Modality for entry in listing.entries]
    assert modalities == ["CT"] * 3
    assert not listing.left_out


def test_files_that_a_dicomdir_names_and_that_are_gone_are_counted(tmp_path: Path) -> None:
    dicomdir = a_dicomdir(tmp_path)
    files = sorted(p for p in dicomdir.parent.rglob("*") if p.is_file() and p != dicomdir)
    files[0].unlink()

    listing = list_entries([dicomdir])

    assert len(listing.entries) == 2
    assert listing.left_out == {"named in the DICOMDIR but not there": 1}


def test_a_dicomdir_whose_files_are_all_gone_is_refused(tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "DICOMDIR"
    alone.parent.mkdir()
    alone.write_bytes(a_dicomdir(tmp_path).read_bytes())

    with pytest.raises(StudyError, match="3 names of files, none of which is there"):
        list_entries([alone])


def test_a_dicomdir_cannot_name_a_file_outside_its_folder(tmp_path: Path) -> None:
    dicomdir = a_dicomdir(tmp_path)
    write_ct_series(tmp_path / "OUTSIDE", slices=1)
    index = dcmread(dicomdir)
    with quiet():
        for record in index.DirectoryRecordSequence:
            if "ReferencedFileID" in record:
                record.ReferencedFileID = ["..", "OUTSIDE", "0001.dcm"]
        index.save_as(dicomdir)

    with pytest.raises(StudyError, match="none of which is there"):
        list_entries([dicomdir])


def test_a_medium_copied_in_lower_case_is_found(tmp_path: Path) -> None:
    dicomdir = a_dicomdir(tmp_path)
    for path in sorted(dicomdir.parent.rglob("*"), key=lambda p: -len(p.parts)):
        if path != dicomdir:
            path.rename(path.with_name(path.name.lower()))

    assert len(list_entries([dicomdir]).entries) == 3


def test_pydicoms_own_dicomdir_names_files_that_are_all_there() -> None:
    path = get_testdata_file("DICOMDIR", download=False)
    assert path is not None

    listing = list_entries([Path(str(path))])

    assert (len(listing.entries), dict(listing.left_out)) == (31, {})


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("scan.dcm", b"hello, this is no image", "a file that is not DICOM"),
        ("scan.dcm", b"", "an empty file"),
        ("scan.png", b"\x89PNG\r\n\x1a\n" + bytes(200), "a file of unknown kind"),
    ],
)
def test_a_file_of_no_known_kind_is_refused(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(StudyError, match=found):
        list_entries([path])


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"gone: found something that can't be opened"):
        list_entries([tmp_path / "gone"])


def test_a_link_to_a_folder_is_not_followed_and_is_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "study").symlink_to(tmp_path / "study", target_is_directory=True)

    with pytest.raises(StudyError, match=r"1 link to a folder.*give the folder that the link leads to"):
        read_volume([tmp_path / "links"])


@pytest.mark.parametrize("name", ["0001.dcm.gz", "study.tar", "study.7z"])
def test_a_packed_file_is_refused_with_how_to_go_on(tmp_path: Path, name: str) -> None:
    content = gzip.compress(b"anything") if name.endswith("gz") else b"7z\xbc\xaf\x27\x1c" + bytes(200)
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(StudyError, match=r"packed file.*unpack it and give what was in it"):
        list_entries([path])
    with pytest.raises(StudyError, match=r"1 packed file.*unpack them"):
        read_volume([tmp_path])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(StudyError, match="a pipe or device"):
        list_entries([tmp_path / "pipe"])


def test_names_of_a_zip_that_lead_upwards_are_read_and_a_zip_inside_is_told(tmp_path: Path) -> None:
    path = write_ct_series(tmp_path / "ct", slices=1)[0]
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.write(path, "../above/0001.dcm")
        archive.writestr("inner.zip", b"PK\x05\x06" + bytes(18))

    listing = list_entries([tmp_path / "study.zip"])

    assert len(listing.entries) == 1
    assert listing.left_out == {"zip inside": 1}


def test_folders_may_lie_as_deep_as_the_disk_allows(tmp_path: Path) -> None:
    folders = [tmp_path.joinpath(*["a"] * depth) for depth in range(1, 1100)]
    for folder in folders:
        folder.mkdir()
    file = write_ct_series(tmp_path / "ct", slices=1)[0].rename(folders[-1] / "IM1")

    listing = list_entries([tmp_path])

    assert [entry.path for entry in listing.entries] == [file]
    file.unlink()
    for folder in reversed(folders):  # what clears up after the tests can't go so deep
        folder.rmdir()


@pytest.mark.parametrize("keep", [0.4, 0.6, 0.9, 0.99])
def test_a_dicomdir_that_is_cut_off_is_refused_and_not_read_in_part(tmp_path: Path, keep: float) -> None:
    directory = write_dicomdir(tmp_path / "medium", write_ct_series(tmp_path / "ct"))
    content = directory.read_bytes()
    directory.write_bytes(content[: int(len(content) * keep)])

    with pytest.raises(StudyError, match="DICOMDIR"):
        list_entries([directory])
