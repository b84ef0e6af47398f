"""The first bytes of files, read at once by the compiled part or one by one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.beginnings import Beginnings


@pytest.fixture(params=["compiled", "python"], autouse=True)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with the compiled part and without it."""
    if request.param == "python":
        monkeypatch.setattr(compiled, "read", None)
    elif compiled.read is None:
        pytest.skip("transforms/_read.c was not built: no C compiler when the package was installed")


def files_of(folder: Path, lengths: list[int]) -> list[str]:
    for n, length in enumerate(lengths):
        (folder / f"{n:03d}").write_bytes(bytes([n % 256]) * length)
    return [str(folder / f"{n:03d}") for n in range(len(lengths))]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_each_file_gives_its_beginning_and_its_length(tmp_path: Path) -> None:
    lengths = [n % 7 * 5 for n in range(300)]
    paths = files_of(tmp_path, lengths)

    found = [(path, bytes(head), size) for path, head, size in Beginnings(16).of(iter(paths))]

    assert found == [(p, bytes([n % 256]) * min(16, lengths[n]), lengths[n]) for n, p in enumerate(paths)]


def test_more_is_read_of_the_next_ones_once_more_is_asked_for(tmp_path: Path) -> None:
    paths = files_of(tmp_path, [40] * 200)
    beginnings = Beginnings(16)

    read = []
    for _, head, _ in beginnings.of(paths):
        read.append(len(head))
        beginnings.size = 32

    assert read[0] == 16
    assert read[-1] == 32
    assert read == sorted(read)


def test_a_size_beyond_what_is_held_at_once_is_read_one_by_one(tmp_path: Path) -> None:
    paths = files_of(tmp_path, [600 << 10, 10])

    assert [len(head) for _, head, _ in Beginnings(1 << 20).of(paths)] == [600 << 10, 10]


@pytest.mark.parametrize("wrong", ["gone", "."])
def test_a_file_that_cant_be_read_is_told(wrong: str, tmp_path: Path) -> None:
    paths = [*files_of(tmp_path, [3, 4]), str(tmp_path / wrong)]

    with pytest.raises(OSError, match=r"No such file|directory"):
        list(Beginnings(8).of(paths))


def test_a_name_is_not_cut_off_at_a_null(tmp_path: Path) -> None:
    (path,) = files_of(tmp_path, [3])

    with pytest.raises(ValueError, match="null"):
        list(Beginnings(8).of([f"{path}\0.dcm"]))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system doesn't list open files")
def test_no_file_stays_open_whatever_happens(tmp_path: Path) -> None:
    paths = files_of(tmp_path, [5] * 100)
    before = open_files()

    waiting = Beginnings(8).of(paths)
    next(waiting)
    waiting.close()
    with pytest.raises(OSError, match="No such file"):
        list(Beginnings(8).of([*paths, "/nowhere"]))

    assert open_files() == before
