"""What was acknowledged is there, whole, whatever happens: to the disk, to other writers, to this process."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin.dicom_bridge import spool as spool_module
from medmllm_plugin.dicom_bridge.group_commit import GroupCommit
from medmllm_plugin.dicom_bridge.segments import BLOCK, SUFFIX, Facts, Record, read_record, records
from medmllm_plugin.dicom_bridge.spool import Durability, Spool
from medmllm_plugin.errors import OutputError

SMALL = 64 << 10
"""A segment that a few instances fill."""


def some_facts(number: int = 1) -> Facts:
    return Facts(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=f"1.2.3.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        calling_ae="CT1",
        called_ae="MEDMLLM",
        received=1.5,
    )


def some_bytes(number: int, length: int = 5000) -> bytes:
    return random.Random(number).randbytes(length)


def found(folder: Path) -> dict[str, bytes]:
    """All sound records of a folder by their SOP Instance UID."""
    return {
        one.facts.sop_instance_uid: read_record(folder, one)
        for path in sorted(folder.glob(f"*{SUFFIX}"))
        for one in records(path)
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(0, 3 * BLOCK), max_size=12), cuts=st.integers(1, 700))
def test_what_was_put_is_read_as_it_was(
    lengths: list[int], cuts: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, segment_bytes=4 * BLOCK, durability=Durability.PROCESS)
    bodies = {f"1.2.3.{k}": some_bytes(k, length) for k, length in enumerate(lengths)}

    kept = []
    for k, body in enumerate(bodies.values()):
        parts = [body[at : at + cuts] for at in range(0, len(body), cuts)]
        kept.append(spool.put(some_facts(k), parts))
    spool.close()

    assert found(folder) == bodies
    assert [read_record(folder, one) for one in kept] == list(bodies.values())
    assert all(path.stat().st_size % BLOCK == 0 for path in folder.iterdir())


def test_many_writers_get_places_of_their_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=SMALL)
    bodies = {f"1.2.3.{k}": some_bytes(k, 100 + 37 * k) for k in range(120)}

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: spool.put(some_facts(k), [bodies[f"1.2.3.{k}"]]), range(120)))
    spool.close()

    assert found(tmp_path) == bodies
    assert len(list(tmp_path.iterdir())) > 2


def test_while_one_segment_is_flushed_others_write_to_another(tmp_path: Path) -> None:
    flushing, go_on = threading.Event(), threading.Event()

    def sync(fd: int) -> None:
        if not flushing.is_set():
            flushing.set()
            assert go_on.wait(10)

    spool = Spool(tmp_path, segment_bytes=SMALL, sync=sync)
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(spool.put, some_facts(0), [b"first"])]
        assert flushing.wait(10)
        held.append(pool.submit(spool.put, some_facts(1), [b"second"]))
        until = time.monotonic() + 10
        while len(spool.in_use) < 2 and time.monotonic() < until:
            time.sleep(0.01)  # the second segment is being made
        third = spool.put(some_facts(2), [b"third"])
        early = [one.done() for one in held]
        go_on.set()
        segments = [one.result(timeout=10).segment for one in held]
    spool.close()

    assert early == [False, False]
    assert segments == [segments[0]] * 2
    assert third.segment != segments[0]
    assert found(tmp_path) == {"1.2.3.0": b"first", "1.2.3.1": b"second", "1.2.3.2": b"third"}


def test_one_sender_needs_one_segment(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=SMALL)

    for number in range(5):
        spool.put(some_facts(number), [b"one"])

    assert len(spool.in_use) == 1
    spool.close()


def test_a_new_spool_leaves_the_segments_of_before_alone(tmp_path: Path) -> None:
    first = Spool(tmp_path, segment_bytes=SMALL)
    first.put(some_facts(1), [b"one"])
    second = Spool(tmp_path, segment_bytes=SMALL)

    second.put(some_facts(2), [b"two"])
    first.put(some_facts(3), [b"three"])

    assert found(tmp_path) == {"1.2.3.1": b"one", "1.2.3.2": b"two", "1.2.3.3": b"three"}


def test_a_large_instance_is_written_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "IN_MEMORY", 10_000)
    spool, body = Spool(tmp_path, segment_bytes=SMALL), some_bytes(1, 300_000)

    coming = spool.incoming(some_facts(), b"head")
    for at in range(0, len(body), 7000):
        coming.write(memoryview(body)[at : at + 7000])
    before = found(tmp_path)
    record = coming.commit()
    spool.close()

    assert before == {}
    assert coming.length == len(body) + 4
    assert read_record(tmp_path, record) == b"head" + body
    assert found(tmp_path) == {"1.2.3.1": b"head" + body}


@pytest.mark.parametrize("length", [100, 50_000])
def test_an_instance_that_does_not_come_to_its_end_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(spool_module, "IN_MEMORY", 10_000)
    spool = Spool(tmp_path, segment_bytes=SMALL)
    coming = spool.incoming(some_facts(), b"head")
    coming.write(some_bytes(1, length))

    coming.abandon()
    spool.close()

    assert found(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_costs_the_records_it_hits_and_no_other(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, segment_bytes=SMALL, durability=Durability.PROCESS)
    kept = [spool.put(some_facts(k), [some_bytes(k, 900)]) for k in range(8)]
    spool.close()
    (path,) = folder.iterdir()
    content = bytearray(path.read_bytes())
    starts = [one.offset - one.offset % BLOCK for one in kept]
    at = data.draw(st.integers(BLOCK, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)

    left = {one.facts.sop_instance_uid for one in records(path)}

    hit = {
        one.facts.sop_instance_uid
        for start, one in zip(starts, kept, strict=True)
        if start <= at < one.offset + one.length
    }
    assert left == {one.facts.sop_instance_uid for one in kept} - hit


def test_a_record_left_from_another_file_is_not_taken(tmp_path: Path) -> None:
    for name in ("a", "b"):
        spool = Spool(tmp_path / name, segment_bytes=SMALL, durability=Durability.PROCESS)
        for k in range(3):
            spool.put(some_facts(k), [name.encode() * 1000])
        spool.close()
    old, new = (tmp_path / name / f"00000001{SUFFIX}" for name in ("a", "b"))
    recycled = new.read_bytes()[: 3 * BLOCK + BLOCK] + old.read_bytes()[4 * BLOCK :]
    new.write_bytes(recycled)

    bodies = [read_record(new.parent, one) for one in records(new)]

    assert bodies == [b"b" * 1000]


def test_bytes_that_changed_on_the_disk_are_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=SMALL)
    record = spool.put(some_facts(), [b"x" * 1000])
    with (tmp_path / record.segment).open("r+b") as file:
        file.seek(record.offset + 7)
        file.write(b"y")

    with pytest.raises(OutputError, match="found other bytes"):
        read_record(tmp_path, record)


def test_when_a_sync_fails_nobody_is_told_that_it_was_kept(tmp_path: Path) -> None:
    broken = [True]

    def sync(fd: int) -> None:
        if broken[0]:
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(fd)

    spool = Spool(tmp_path, segment_bytes=SMALL, sync=sync)

    with ThreadPoolExecutor(4) as pool:
        tried = [pool.submit(spool.put, some_facts(k), [b"body"]) for k in range(4)]
    broken[0] = False
    record = spool.put(some_facts(9), [b"later"])

    for one in tried:
        with pytest.raises(OutputError, match="Input/output error"):
            one.result()
    assert read_record(tmp_path, record) == b"later"
    assert record.segment != f"00000001{SUFFIX}"


def test_a_full_disk_is_told_and_the_spool_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, segment_bytes=4 * BLOCK)
    spool.put(some_facts(1), [b"x" * 900])

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(OutputError, match=r"No space left on device.*make room"):
            spool.put(some_facts(2), [b"x" * 900])
    spool.put(some_facts(3), [b"y" * 900])

    assert set(found(tmp_path)) == {"1.2.3.1", "1.2.3.3"}


def test_a_closed_spool_takes_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=SMALL)
    spool.close()

    with pytest.raises(OutputError, match="closed"):
        spool.put(some_facts(), [b"x"])


def test_a_sync_covers_only_what_was_written_before_it_began() -> None:
    began, go_on, syncs = threading.Event(), threading.Event(), []

    def sync() -> None:
        syncs.append(time.monotonic())
        began.set()
        go_on.wait(10)

    commit, ended = GroupCommit(sync), list[str]()

    def wait(name: str) -> None:
        commit.wait()
        ended.append(name)

    first = threading.Thread(target=wait, args=("first",))
    first.start()
    began.wait(10)
    second = threading.Thread(target=wait, args=("second",))
    second.start()
    while commit._asked < 2:
        time.sleep(0.001)
    go_on.set()
    first.join(10)
    second.join(10)

    assert ended == ["first", "second"]
    assert len(syncs) == 2


WRITER = """
import sys, threading
from pathlib import Path
from tests.test_spool import SMALL, some_bytes, some_facts
from medmllm_plugin.dicom_bridge.spool import Spool

spool = Spool(Path(sys.argv[1]), segment_bytes=SMALL)
def write(worker):
    for k in range(worker, 100_000, 4):
        spool.put(some_facts(k), [some_bytes(k)])
        sys.stdout.write(f"{k}\\n")
        sys.stdout.flush()
for worker in range(4):
    threading.Thread(target=write, args=(worker,)).start()
"""


@pytest.mark.parametrize("after", [0.05, 0.2, 0.5])
def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path, after: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [writer.stdout.readline()]
        time.sleep(after)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += writer.stdout.readlines()

    kept = found(tmp_path)

    numbers = [int(line) for line in acknowledged if line.endswith("\n")]
    assert numbers
    assert lost(numbers, kept) == []
    assert all(body == some_bytes(int(uid.rpartition(".")[2])) for uid, body in kept.items())


def lost(numbers: Iterable[int], kept: dict[str, bytes]) -> list[int]:
    return [k for k in numbers if kept.get(f"1.2.3.{k}") != some_bytes(k)]


def test_records_can_be_read_on_from_where_one_left_off(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=SMALL)
    kept: list[Record] = [spool.put(some_facts(k), [b"z" * 600]) for k in range(3)]
    path = tmp_path / kept[0].segment

    later = list(records(path, start=kept[0].offset + kept[0].length))

    assert later == kept[1:]
