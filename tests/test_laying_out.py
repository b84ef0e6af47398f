"""Instances in segments become files: byte for byte, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge.layout import lay_out, reachable
from medmllm_plugin.dicom_bridge.segments import Facts
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.store import Instance
from medmllm_plugin.errors import OutputError
from tests.test_store import an_instance


@pytest.fixture
def spools(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def kept(spools: Path, contents: list[bytes]) -> list[Instance]:
    """Contents kept in the spool of the node `one`, as instances."""
    spool = Spool(spools / "one", segment_bytes=1 << 16)
    facts = Facts(
        sop_class_uid="1.2",
        sop_instance_uid="../../1.2.3",
        transfer_syntax_uid="1.2",
        calling_ae="CT1",
        called_ae="US",
        received=1.0,
    )
    records = [spool.put(facts, [content]) for content in contents]
    spool.close()
    return [
        an_instance(
            number,
            segment=one.segment,
            offset=one.offset,
            length=one.length,
            crc32=one.crc32,
            sop_instance_uid="../../1.2.3",
        )
        for number, one in enumerate(records)
    ]


def test_files_hold_what_was_kept(spools: Path, tmp_path: Path) -> None:
    contents = [bytes([number]) * (1000 + number) for number in range(5)]
    instances = kept(spools, contents)

    files = lay_out(instances, spools, tmp_path / "out")

    assert [path.read_bytes() for path in files] == contents
    assert sorted((tmp_path / "out").iterdir()) == sorted(files)
    assert all(path.parent == tmp_path / "out" for path in files)


def test_what_is_there_stays_and_what_is_not_wanted_goes(spools: Path, tmp_path: Path) -> None:
    instances = kept(spools, [b"one", b"two", b"three"])
    first = lay_out(instances[:2], spools, tmp_path / "out")
    inode = first[1].stat().st_ino

    second = lay_out(instances[1:], spools, tmp_path / "out")

    assert [path.read_bytes() for path in second] == [b"two", b"three"]
    assert second[0].stat().st_ino == inode
    assert not first[0].exists()


@pytest.mark.parametrize("change", [{"crc32": 7}, {"length": 1 << 20}, {"segment": "00000009.segment"}])
def test_what_is_damaged_or_gone_is_refused_and_nothing_left(
    spools: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    (instance,) = kept(spools, [b"content"])

    with pytest.raises(OutputError):
        lay_out([replace(instance, **change)], spools, tmp_path / "out")  # type: ignore[arg-type]

    assert not list((tmp_path / "out").glob("*.dcm"))


def test_spools_that_lie_here_can_be_read(spools: Path, tmp_path: Path) -> None:
    kept(spools, [b"content"])

    assert reachable(spools) == ["one"]
    assert reachable(tmp_path / "nowhere") == ()
