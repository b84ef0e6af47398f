"""Planes that are read from their files while they are drawn look as they do when they are read first."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medmllm_plugin.errors import StudyError
from medmllm_plugin.transforms import compiled, planes
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.slices import SlicePlan
from medmllm_plugin.volume import InFiles, Volume
from tests.builders import write_ct_series

pytestmark = pytest.mark.skipif(
    compiled.pictures is None or compiled.read is None,
    reason="transforms/*.c were not built: no C compiler when the package was installed",
)

SLICES = 12
"""More than are read at a time, so that they are read when they are drawn."""


def a_series(folder: Path, **options: Any) -> Volume:
    write_ct_series(folder, slices=SLICES, rows=60, columns=72, **options)
    volume = read_volume([folder])
    assert isinstance(volume.read_stored, InFiles)
    return volume


def pictures(volume: Volume, **plan: Any) -> list[NDArray[np.uint8]]:
    return [one.pixels for one in SlicePlan(count=SLICES, **{"size": 56, **plan}).apply(volume).slices]


def read_first(volume: Volume) -> Volume:
    """The same volume, whose planes are read before they are drawn."""
    assert isinstance(volume.read_stored, InFiles)
    return replace(volume, read_stored=volume.read_stored.read)


def a_rescale_of_its_own(k: int, dataset: Dataset) -> None:
    dataset.RescaleSlope, dataset.RescaleIntercept = 1 + k % 3, -1024 + k


@pytest.mark.parametrize(
    ("series", "plan"),
    [
        ({}, {}),
        ({"change": a_rescale_of_its_own}, {"window": "ct-lung"}),
        ({"PixelPaddingValue": 1024}, {"window": "ct-bone"}),
        ({}, {"window": "ct-medgemma"}),
        ({}, {"square": True, "size": 84}),
        ({}, {"size": 140}),
        ({"BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1}, {}),
    ],
)
def test_pictures_are_the_same_to_the_bit(
    series: dict[str, Any], plan: dict[str, Any], tmp_path: Path
) -> None:
    volume = a_series(tmp_path, **series)

    for one, other in zip(pictures(volume, **plan), pictures(read_first(volume), **plan), strict=True):
        assert np.array_equal(one, other)


def test_they_are_so_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = a_series(tmp_path)
    expected = pictures(volume)
    for part in ("pictures", "read", "scan"):
        monkeypatch.setattr(compiled, part, None)

    found = pictures(read_volume([tmp_path]))

    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_they_are_so_when_the_disk_has_to_be_asked(tmp_path: Path) -> None:
    volume = a_series(tmp_path)
    expected = pictures(read_first(volume))
    for path in tmp_path.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    found = pictures(read_volume([tmp_path]))

    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_planes_are_drawn_as_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    whole = planes.render_lying

    def counted(*args: Any, **kwargs: Any) -> int:
        done.append(whole(*args, **kwargs))
        return done[-1]

    monkeypatch.setattr(planes, "render_lying", counted)

    pictures(a_series(tmp_path))

    assert sum(done) == SLICES


def test_a_volume_that_says_itself_how_it_is_read_is_read_so(tmp_path: Path) -> None:
    volume = a_series(tmp_path)
    mirrored = replace(
        volume, read_plane=lambda k: volume.read_plane(k)[:, ::-1], read_stored=lambda ks: None
    )

    for one, other in zip(pictures(mirrored), pictures(volume), strict=True):
        assert np.array_equal(one, other[:, ::-1])


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


@pytest.mark.parametrize("harm", [cut_off, Path.unlink])
@pytest.mark.parametrize("number", [0, 5, 11])
def test_a_file_that_changed_since_is_named(
    harm: Callable[[Path], None], number: int, tmp_path: Path
) -> None:
    volume = a_series(tmp_path)
    assert isinstance(volume.read_stored, InFiles)
    (file,) = volume.read_stored.lying([number]).files
    harm(Path(file))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0  # noqa: PTH208

    with pytest.raises(StudyError, match=Path(file).name):
        pictures(volume)

    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0  # noqa: PTH208
    assert after == before


@pytest.mark.parametrize(
    ("paths", "offsets"),
    [((b"a",), [0, 0]), ((b"a", b"b"), [0]), ((), []), ((b"a", b"b\0c"), [0, 0]), (("a", "b"), [0, 0])],
)
def test_the_compiled_part_refuses_files_that_dont_fit(paths: tuple[Any, ...], offsets: list[int]) -> None:
    assert compiled.pictures is not None
    levels, lines = np.zeros((1, 1 << 16), np.uint8), np.zeros((1, 7), np.int32)
    out, line = np.zeros((2, 4, 4, 1), np.uint8), (4, 4, 0, 0, b"", b"", b"")
    which = np.zeros(2, np.int32)

    with pytest.raises((ValueError, TypeError)):
        compiled.pictures.resample(
            0, 2, 1, (paths, np.array(offsets, np.int64)), levels, lines, which, out, line, line
        )


def test_the_compiled_part_says_how_many_planes_were_there(tmp_path: Path) -> None:
    assert compiled.pictures is not None
    plane = np.arange(16, dtype=np.uint16)
    (tmp_path / "whole").write_bytes(b"head" + plane.tobytes())
    (tmp_path / "half").write_bytes(plane.tobytes())
    files = tuple(os.fsencode(tmp_path / name) for name in ("whole", "half", "whole"))
    levels, lines = np.arange(1 << 16, dtype=np.uint64).astype(np.uint8)[None] + 1, np.zeros((1, 7), np.int32)
    out, line = np.zeros((3, 4, 4, 1), np.uint8), (4, 4, 0, 0, b"", b"", b"")

    done = compiled.pictures.resample(
        *(0, 3, 1, (files, np.array([4, 4, 4])), levels, lines, np.zeros(3, np.int32), out, line, line)
    )

    assert done == 1
    assert out[0, :, :, 0].tolist() == (plane.reshape(4, 4) + 1).tolist()
    assert not out[1:].any()
