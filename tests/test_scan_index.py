"""An index saves opening files that are as they were, and changes nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.transforms.entries import list_entries
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.scan import KEYWORDS
from medmllm_plugin.transforms.scan_index import IndexedScanner
from tests.builders import write_ct_series


def scanned(folder: Path, index: Path) -> tuple[int, list[dict[str, tuple[str, ...]]]]:
    """How many files were opened, and what the scan says of each."""
    scanner = IndexedScanner(index)
    entries = list_entries([folder], scanner).entries
    scanner.save()
    values = [{k: e.scanned.texts(k) for k in KEYWORDS} for e in entries if e.scanned is not None]
    return scanner.opened, values


def test_a_folder_read_again_is_not_opened_again(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study")

    first = scanned(tmp_path / "study", tmp_path / "index.json")
    second = scanned(tmp_path / "study", tmp_path / "index.json")

    assert (first[0], second[0]) == (5, 0)
    assert first[1] == second[1]


def test_a_single_file_read_again_is_not_opened_again(tmp_path: Path) -> None:
    path, *_ = write_ct_series(tmp_path / "study")

    first = scanned(path, tmp_path / "index.json")
    second = scanned(path, tmp_path / "index.json")

    assert (first[0], second[0]) == (1, 0)
    assert first[1] == second[1]
    assert len(second[1]) == 1


def test_a_changed_and_a_new_file_are_opened_and_a_deleted_one_is_forgotten(tmp_path: Path) -> None:
    paths = write_ct_series(tmp_path / "study")
    index = tmp_path / "index.json"
    scanned(tmp_path / "study", index)
    paths[0].write_bytes(paths[0].read_bytes().replace(b"T1", b"T2"))
    paths[1].rename(tmp_path / "study" / "new.dcm")
    paths[2].unlink()

    opened, values = scanned(tmp_path / "study", index)

    assert opened == 2
    assert sorted(v["PatientID"][0] for v in values) == ["T1", "T1", "T1", "T2"]
    assert paths[2].name not in index.read_text()


def test_the_index_is_for_its_owner_only(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study")

    scanned(tmp_path / "study", tmp_path / "index.json")

    assert os.name != "posix" or (tmp_path / "index.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "medmllm-scan-index/0"}', "\x00"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, content: str) -> None:
    write_ct_series(tmp_path / "study")
    index = tmp_path / "index.json"
    index.write_text(content)

    opened = [scanned(tmp_path / "study", index)[0] for _ in range(2)]

    assert opened == [5, 0]


def test_an_index_that_cant_be_written_is_told(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study")

    with pytest.raises(SettingsError, match="can't be written"):
        scanned(tmp_path / "study", tmp_path / "nowhere" / "index.json")


def test_a_volume_read_with_an_index_is_the_same_volume(tmp_path: Path) -> None:
    write_ct_series(tmp_path / "study")
    index = tmp_path / "index.json"

    volumes = [read_volume([tmp_path / "study"], index=index) for _ in range(2)]

    assert volumes[0].notes == volumes[1].notes == read_volume([tmp_path / "study"]).notes
    assert np.array_equal(volumes[0].voxels(), volumes[1].voxels())
