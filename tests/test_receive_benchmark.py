"""The benchmark of receiving: its sender is understood by everyone, and what it says adds up."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydicom import dcmread

sys.path.append(str(Path(__file__).parents[1]))  # `benchmarks` is in the repository and not in the package
from benchmarks.receive import MEMORY, flushed, instances, received
from benchmarks.receivers import OURS, RAW, Receiver, receivers, running
from benchmarks.sender import associate, messages, send
from benchmarks.series import SMALL
from medmllm_plugin.dicom_bridge.segments import read_record, records


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    return instances(tmp_path_factory.mktemp("instances"), small=True)


def named(name: str) -> Receiver:
    (found,) = (one for one in receivers(None) if one.name == name)
    return found


def test_no_instance_is_sent_twice(parts: list[list[Path]]) -> None:
    uids = [dcmread(path, stop_before_pixels=True).SOPInstanceUID for part in parts for path in part]

    assert len(uids) == len(set(uids)) == 4 * SMALL.slices


@pytest.mark.parametrize("name", [OURS, RAW])
def test_every_instance_is_taken_and_timed(name: str, parts: list[list[Path]], tmp_path: Path) -> None:
    seconds, cpu = received(named(name), parts[:2], tmp_path / "received", sender=MEMORY)

    assert seconds > 0
    assert cpu >= 0


def test_what_is_received_is_what_was_sent(parts: list[list[Path]], tmp_path: Path) -> None:
    with running(named(OURS), tmp_path / "received") as (port, _):
        connection, most = associate(port)
        with connection:
            taken = send(connection, messages(parts[0], most))
        (segment,) = (tmp_path / "received" / "spool").glob("*.segment")
        kept = {one.facts.sop_instance_uid: read_record(segment.parent, one) for one in records(segment)}

    assert taken == len(parts[0])
    for path in parts[0]:
        sent = path.read_bytes()
        uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
        assert kept[uid].endswith(sent[144 + int.from_bytes(sent[140:144], "little") :])


def test_the_disk_alone_takes_time_and_leaves_nothing(tmp_path: Path) -> None:
    assert flushed(tmp_path / "floor", [1000, 2000]) > 0
    assert list(tmp_path.iterdir()) == []
