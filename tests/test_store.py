"""Tests of the node's database: what is indexed, where studies are, what happened to them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from sqlalchemy import Engine, inspect

from medmllm_plugin.dicom_bridge import tables
from medmllm_plugin.dicom_bridge.indexing import UNREADABLE, Indexer, instance_of
from medmllm_plugin.dicom_bridge.segments import Facts
from medmllm_plugin.dicom_bridge.spool import Durability, Spool
from medmllm_plugin.dicom_bridge.states import NEXT, State, may_go
from medmllm_plugin.dicom_bridge.store import Instance, Store, digest_of
from medmllm_plugin.dicom_bridge.tables import open_database
from medmllm_plugin.errors import SettingsError
from tests.postgres import BINARIES, postgres


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_database(str(tmp_path / "node.sqlite"))
    yield opened
    opened.dispose()


@pytest.fixture
def store(engine: Engine) -> Store:
    clock = iter(range(1000, 10_000))
    return Store(engine, salt=b"a salt", clock=lambda: float(next(clock)))


def an_instance(number: int = 1, **values: Any) -> Instance:
    plain: dict[str, Any] = {
        "node": "one",
        "segment": "00000001.segment",
        "offset": 1000 * number,
        "length": 900,
        "crc32": number,
        "dataset_crc32": number,
        "sop_instance_uid": f"1.2.3.{number}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "study_uid": "1.2.3",
        "series_uid": "1.2.3.4",
        "modality": "CT",
        "calling_ae": "CT1",
        "received": 100.0 + number,
    }
    return Instance(**{**plain, **values})


def test_a_study_arrives_with_its_first_instance(store: Store) -> None:
    changed = store.add([an_instance(1), an_instance(2)])

    study = store.study("1.2.3")
    assert changed == ["1.2.3"]
    assert study is not None
    assert (study.state, study.first_received, study.last_received) == (State.ARRIVING, 101, 102)
    assert store.instances("1.2.3") == [an_instance(1), an_instance(2)]


def test_what_is_indexed_already_changes_nothing(store: Store) -> None:
    store.add([an_instance(1)])
    store.move("1.2.3", State.COMPLETE, "all there")

    assert store.add([an_instance(1)]) == []
    assert store.study("1.2.3").state is State.COMPLETE  # type: ignore[union-attr]


def test_the_same_sent_again_counts_once_and_changes_nothing(store: Store) -> None:
    store.add([an_instance(1)])
    store.move("1.2.3", State.COMPLETE, "all there")

    changed = store.add([an_instance(1, offset=5000, received=300.0)])

    assert changed == []
    assert [one.offset for one in store.instances("1.2.3")] == [5000]
    assert store.study("1.2.3").state is State.COMPLETE  # type: ignore[union-attr]


@pytest.mark.parametrize("late", [an_instance(2), an_instance(1, offset=5000, dataset_crc32=77)])
@pytest.mark.parametrize("state", [State.COMPLETE, State.READING, State.REPORTED])
def test_what_comes_late_brings_a_study_back(store: Store, late: Instance, state: State) -> None:
    store.add([an_instance(1)])
    for step in (State.COMPLETE, State.READING, State.REPORTED):
        store.move("1.2.3", step, "on its way")
        if step is state:
            break

    changed = store.add([late])

    study = store.study("1.2.3")
    assert changed == ["1.2.3"]
    assert study is not None
    assert (study.state, study.reason) == (State.ARRIVING, f"an instance came after it was {state}")


def test_a_digest_tells_sets_of_instances_apart() -> None:
    one, two = an_instance(1), an_instance(2)

    assert digest_of([one, two]) == digest_of([two, replace(one, offset=9, crc32=9, received=9.0)])
    assert digest_of([one]) != digest_of([one, two])
    assert digest_of([one]) != digest_of([replace(one, dataset_crc32=9)])


def test_a_study_goes_only_where_it_may(store: Store) -> None:
    store.add([an_instance(1)])

    assert not store.move("1.2.3", State.DELIVERED, "no")
    assert not store.move("1.2.4", State.COMPLETE, "not there")
    assert not store.move("1.2.3", State.COMPLETE, "not so", at=State.READING)
    assert store.move(
        "1.2.3", State.COMPLETE, "all there", at=State.ARRIVING, plan={"rule": "ct"}, owner="me"
    )
    study = store.study("1.2.3")
    assert study is not None
    assert (study.state, study.reason, study.plan, study.owner) == (
        *(State.COMPLETE, "all there", {"rule": "ct"}, "me"),
    )


def test_every_state_can_be_reached_and_left() -> None:
    reached = {after for row in NEXT.values() for after in row}

    assert reached == set(State) == set(NEXT)
    assert all(not may_go(state, state) for state in State)


def test_all_that_happened_is_kept_without_a_uid(store: Store) -> None:
    store.add([an_instance(1)])
    store.move("1.2.3", State.PARKED, "can't be read")
    store.note("1.2.3", "looked-at", {"by": "an administrator"})

    said = store.events("1.2.3")

    assert [one["event"] for one in said] == ["received", "moved", "looked-at"]
    assert (said[1]["from"], said[1]["to"], said[1]["reason"]) == ("arriving", "parked", "can't be read")
    assert "1.2.3" not in str(said)


def test_a_key_is_the_same_for_a_study_and_another_with_another_salt(engine: Engine) -> None:
    one, other = Store(engine, salt=b"a"), Store(engine, salt=b"b")

    assert one.key("1.2.3") == one.key("1.2.3")
    assert len({one.key("1.2.3"), one.key("1.2.4"), other.key("1.2.3")}) == 3


def test_studies_are_named_by_the_end_of_a_uid_or_key(store: Store) -> None:
    store.add([an_instance(1), an_instance(2, study_uid="1.2.99")])

    assert store.named("99").study_uid == "1.2.99"
    assert store.named(store.key("1.2.3")).study_uid == "1.2.3"
    for name in ("", "1.2", "7"):
        with pytest.raises(SettingsError, match="expected 1"):
            store.named(name)


def test_studies_to_be_worked_on_first_come_first(store: Store) -> None:
    store.add([an_instance(k, study_uid=f"1.{k}") for k in (1, 2, 3)])
    for k, priority in ((1, 5), (2, 5), (3, 0)):
        store.move(f"1.{k}", State.COMPLETE, "all there", priority=priority)

    assert [one.study_uid for one in store.studies(State.COMPLETE)] == ["1.3", "1.1", "1.2"]
    assert store.studies(State.PARKED) == []


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "node.sqlite")
    with monkeypatch.context() as patched:
        patched.setattr(tables, "VERSION", 7)
        open_database(url).dispose()

    with pytest.raises(SettingsError, match="is of version 7, expected 1 at most"):
        open_database(url)


def test_an_older_database_gets_the_indexes_that_it_lacks(tmp_path: Path) -> None:
    url = str(tmp_path / "node.sqlite")
    name = "medmllm_deliveries_by_state"
    before = open_database(url)
    with before.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {name}")
    before.dispose()

    after = open_database(url)

    assert name in {one["name"] for one in inspect(after).get_indexes("medmllm_deliveries")}
    after.dispose()


def test_a_database_that_can_not_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"node.database: .*can't be opened"):
        open_database(str(tmp_path / "no" / "folder" / "node.sqlite"))


def a_file(study: str = "1.2.3", number: int = 1, series: str = "1.2.3.4") -> bytes:
    """A small PS3.10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPInstanceUID, dataset.Modality = f"1.2.3.{number}", "OT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    written = io.BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


def facts(number: int = 1) -> Facts:
    return Facts(
        sop_class_uid=SecondaryCaptureImageStorage,
        sop_instance_uid=f"1.2.3.{number}",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        calling_ae="CT1",
        called_ae="US",
        received=50.0,
    )


def test_an_instance_says_its_study(tmp_path: Path) -> None:
    spool = Spool(tmp_path, durability=Durability.PROCESS)
    first, again = (spool.put(facts(), [a_file()]) for _ in range(2))

    one, other = (instance_of(record, tmp_path, node="one") for record in (first, again))

    assert (one.study_uid, one.series_uid, one.modality) == ("1.2.3", "1.2.3.4", "OT")
    assert one.dataset_crc32 == other.dataset_crc32
    assert one.offset != other.offset


ODD = a_file(study="1.2.3.4.5.6.7")
"""To be made odd, byte for byte."""


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"no DICOM", bytes(132), a_file()[:200], a_file(study="")),
        *(ODD.replace(b"1.2.3.4.5.6.7", odd) for odd in (b"1.2.3\x004.5.6.7", b"1.2.3.4\n5.6.7")),
        ODD.replace(b"UI\x0e\x001.2.3.4.5.6.7\0", b"UI\x42\x00" + b"1." + b"2" * 64),
    ],
)
def test_an_instance_that_does_not_say_its_study_is_kept(content: bytes, tmp_path: Path) -> None:
    record = Spool(tmp_path, durability=Durability.PROCESS).put(facts(), [content])

    one = instance_of(record, tmp_path, node="one")

    assert one.study_uid == UNREADABLE


def test_what_was_received_is_indexed_also_after_a_stop(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, durability=Durability.PROCESS)
    told: list[str] = []
    before = [spool.put(facts(k), [a_file(number=k)]) for k in range(3)]

    indexer = Indexer(store, folder, node="one", changed=told.extend)
    left = store.indexed("one")
    for k in range(3, 9):
        indexer(spool.put(facts(k), [a_file(number=k, study="1.2.9")]))
    indexer.close()

    assert left == {before[0].segment: {one.offset: one.length for one in before}}
    assert len(store.instances("1.2.3")) == 3
    assert len(store.instances("1.2.9")) == 6
    assert set(told) == {"1.2.3", "1.2.9"}


@pytest.mark.skipif(BINARIES is None, reason="Postgres is not installed")
def test_what_no_database_takes_keeps_back_none_of_the_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", durability=Durability.PROCESS)
    odd = replace(facts(7), calling_ae="X" * 99)
    for number, said in enumerate((facts(1), odd, facts(2))):
        spool.put(said, [a_file(number=number, study=f"1.2.{number + 1}")])

    with postgres(tmp_path) as url:
        engine = open_database(url)
        store = Store(engine, salt=b"a salt of tests only")
        Indexer(store, tmp_path / "spool", node="one").close()
        found = [one.study_uid for one in store.studies()]
        engine.dispose()

    assert sorted(found) == ["1.2.1", "1.2.3"]
