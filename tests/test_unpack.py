"""Tests of `medmllm_plugin.transforms.unpack`."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medmllm_plugin.transforms import unpack
from medmllm_plugin.transforms.unpack import Packing, Unpacked, first_bytes

CONTENT = np.random.default_rng(0).integers(0, 30, 700_000).astype(np.uint8).tobytes()
PACK: dict[Packing, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
}


@pytest.fixture(params=["zlib", "isal"], autouse=True)
def inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with Python's inflater and with ISA-L's."""
    if request.param == "zlib":
        monkeypatch.setattr(unpack, "inflater", lambda: zlib.decompressobj)
    elif importlib.util.find_spec("isal") is None:
        pytest.skip("isal is not installed")


def read(path: Path, packing: Packing, *, skip: int, count: int, start: int = 0) -> bytes:
    out = bytearray(count)
    with Unpacked(path, packing, start=start) as source:
        source.skip(skip)
        source.fill(memoryview(out))
        source.check_end()
    return bytes(out)


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize(("skip", "count"), [(0, len(CONTENT)), (0, 0), (5, 100_000), (699_999, 1)])
def test_as_many_bytes_come_as_are_asked_for(tmp_path: Path, packing: Packing, skip: int, count: int) -> None:
    path = tmp_path / "packed"
    path.write_bytes(b"header" + PACK[packing](CONTENT))

    assert read(path, packing, skip=skip, count=count, start=6) == CONTENT[skip : skip + count]


def test_gzip_members_behind_each_other_are_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "members.gz"
    parts = [CONTENT[:1], b"", CONTENT[1:300_000], CONTENT[300_000:]]
    path.write_bytes(b"".join(map(gzip.compress, parts)) + bytes(512))

    assert read(path, "gzip", skip=0, count=len(CONTENT)) == CONTENT
    with pytest.raises(EOFError, match="1 bytes are missing"):
        read(path, "gzip", skip=len(CONTENT), count=1)


@pytest.mark.parametrize("packing", ["gzip", "zlib", "bzip2"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_stream_that_is_cut_off_is_an_error(tmp_path: Path, packing: Packing, keep: float) -> None:
    whole = PACK[packing](CONTENT)
    path = tmp_path / "cut"
    path.write_bytes(whole[: int(keep * len(whole))])

    with pytest.raises(EOFError):
        read(path, packing, skip=0, count=len(CONTENT))


def test_a_missing_or_wrong_checksum_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(CONTENT)
    path = tmp_path / "checksum.gz"

    path.write_bytes(whole[:-8])
    with pytest.raises(EOFError):
        read(path, "gzip", skip=0, count=len(CONTENT))
    path.write_bytes(whole[:-8] + b"12345678")
    with pytest.raises(Exception, match=r"(?i)incorrect .*check"):
        read(path, "gzip", skip=0, count=len(CONTENT))


def test_the_first_bytes_of_a_packed_file_need_no_more_of_it(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(CONTENT)[:20_000])

    assert first_bytes(path, "gzip", 540) == CONTENT[:540]
    assert first_bytes(path, "none", 2) == b"\x1f\x8b"
