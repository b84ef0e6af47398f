"""A node that is killed leaves a segment set aside whole: what it did not need goes back, no record does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medmllm_plugin.dicom_bridge import indexing
from medmllm_plugin.dicom_bridge.indexing import Indexer
from medmllm_plugin.dicom_bridge.segments import BLOCK, SUFFIX, is_covered, records
from medmllm_plugin.dicom_bridge.spool import IN_MEMORY, Durability, Spool
from medmllm_plugin.dicom_bridge.trimming import trim
from tests.node_runner import Process, open_store, write_config
from tests.test_spool import SMALL, found, some_bytes, some_facts


def left_by_a_killed_node(folder: Path, bodies: list[bytes]) -> Path:
    """Its segment, as it is when a process ends without a word."""
    spool = Spool(folder, segment_bytes=SMALL, durability=Durability.PROCESS)
    for number, body in enumerate(bodies):
        spool.put(some_facts(number), [body])
    (path,) = folder.glob(f"*{SUFFIX}")
    return path


def bodies() -> st.SearchStrategy[list[bytes]]:
    one = st.tuples(st.integers(0, 3 * BLOCK), st.integers(0, 3 * BLOCK))
    return st.lists(one.map(lambda sizes: b"x" * sizes[0] + bytes(sizes[1])), max_size=8)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=bodies())
def test_all_but_what_was_written_is_given_back(
    bodies: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    path = left_by_a_killed_node(folder, bodies)
    assert path.stat().st_size == SMALL
    before = found(folder)

    freed = trim(folder)

    assert found(folder) == before == {some_facts(k).sop_instance_uid: one for k, one in enumerate(bodies)}
    assert freed == SMALL - path.stat().st_size
    assert is_covered(path.stat().st_size, [(one.offset, one.length) for one in records(path)])
    assert trim(folder) == 0


def test_a_torn_record_keeps_its_room(tmp_path: Path) -> None:
    path = left_by_a_killed_node(tmp_path, [some_bytes(1), some_bytes(2)])
    *_, last = records(path)
    with path.open("r+b") as file:
        file.seek(last.offset + 100)
        file.write(bytes(last.length - 100))

    trim(tmp_path)

    assert last.offset + last.length <= path.stat().st_size < last.offset + last.length + BLOCK


def test_bytes_without_a_head_stay(tmp_path: Path) -> None:
    path = left_by_a_killed_node(tmp_path, [some_bytes(1)])
    with path.open("r+b") as file:
        file.seek(SMALL // 2)
        file.write(b"x")

    trim(tmp_path)

    assert path.stat().st_size == SMALL // 2 + BLOCK
    assert len(found(tmp_path)) == 1


def test_a_segment_into_which_nothing_came_keeps_its_number(tmp_path: Path) -> None:
    path = left_by_a_killed_node(tmp_path, [])

    trim(tmp_path)
    following = Spool(tmp_path, segment_bytes=SMALL, durability=Durability.PROCESS)

    assert path.stat().st_size == BLOCK
    assert following.in_use == {f"{2:08d}{SUFFIX}"}


def test_segments_that_were_closed_stay_as_they_are(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=SMALL, durability=Durability.PROCESS)
    spool.put(some_facts(1), [some_bytes(1) + bytes(2000)])
    large = spool.incoming(some_facts(2), b"")
    large.write(bytes(IN_MEMORY + 77))
    large.commit()
    spool.close()
    before = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}

    assert trim(tmp_path) == 0
    assert {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    for path, (size, _) in before.items():
        assert is_covered(size, [(one.offset, one.length) for one in records(path)])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=bodies().filter(bool), data=st.data())
def test_a_segment_with_one_more_record_is_never_taken_as_known(
    bodies: list[bytes], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    path = left_by_a_killed_node(folder, bodies)
    trim(folder)
    known = [(one.offset, one.length) for one in records(path)]
    del known[data.draw(st.integers(0, len(known) - 1))]

    assert not is_covered(path.stat().st_size, known)


def test_what_is_known_is_not_read_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(path: Path) -> object:
        read.append(path.name)
        return records(path)

    monkeypatch.setattr(indexing, "records", noted)
    folder = tmp_path / "spool"
    first = left_by_a_killed_node(folder, [some_bytes(k, 900) for k in range(5)])
    engine, store = open_store(str(tmp_path / "db.sqlite"))
    for _ in range(2):
        trim(folder)
        Indexer(store, folder, node="one").close()
    second = Spool(folder, segment_bytes=SMALL, durability=Durability.PROCESS)
    second.put(some_facts(9), [some_bytes(9)])
    Indexer(store, folder, node="one").close()
    engine.dispose()

    assert read == [first.name, f"{2:08d}{SUFFIX}"]
    assert sum(map(len, store.indexed("one").values())) == 6


def test_a_node_that_is_killed_again_and_again_does_not_fill_the_disk(tmp_path: Path) -> None:
    node = Process(write_config(tmp_path / "one.toml", folder=tmp_path / "node", model="embedded"))
    for _ in range(2):
        node.start()
        node.kill()
    node.start()
    try:
        *earlier, _ = sorted((tmp_path / "node" / "spool").rglob(f"*{SUFFIX}"))
        sizes = [path.stat().st_size for path in earlier]
    finally:
        code = node.stop()

    assert code == 0
    assert sizes == [BLOCK, BLOCK]
