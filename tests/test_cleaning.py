"""Old segments go when nobody needs anything in them, and no sooner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge.cleaning import clean
from medmllm_plugin.dicom_bridge.segments import Facts
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import open_database
from tests.test_store import an_instance

DAY = 86_400.0


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """Segments that hold two instances each."""
    opened = Spool(tmp_path / "spool", segment_bytes=2560)
    yield opened
    opened.close()


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def store(tmp_path: Path, now: list[float]) -> Iterator[Store]:
    engine = open_database(str(tmp_path / "node.sqlite"))
    yield Store(engine, salt=b"a salt", clock=lambda: now[0])
    engine.dispose()


def receive(spool: Spool, store: Store | None, study: str, count: int) -> list[str]:
    """Keep instances of a study, and index them if there is a store; names of their segments."""
    names = []
    for number in range(count):
        facts = Facts(
            sop_class_uid="1.2",
            sop_instance_uid=f"{study}.{number}",
            transfer_syntax_uid="1.2",
            calling_ae="CT1",
            called_ae="US",
            received=1.0,
        )
        record = spool.put(facts, [bytes(100)])
        names.append(record.segment)
        if store is not None:
            values = {"segment": record.segment, "offset": record.offset, "study_uid": study}
            store.add([an_instance(number, sop_instance_uid=f"{study}.{number}", **values)])
    return names


def cleaned(store: Store, spool: Spool) -> list[str]:
    return clean(store, spool.folder, node="one", keep_s=7 * DAY, in_use=lambda: spool.in_use)


def test_segments_of_studies_long_done_go(spool: Spool, store: Store, now: list[float]) -> None:
    names = receive(spool, store, "1.1", 6)
    store.move("1.1", State.KEPT, "no rule")

    early = cleaned(store, spool)
    now[0] += 8 * DAY
    late = cleaned(store, spool)

    assert early == []
    assert set(late) == set(names) - spool.in_use
    assert late
    assert not any((spool.folder / name).exists() for name in late)
    assert len(store.instances("1.1")) == 6


def test_a_segment_that_another_study_needs_stays(spool: Spool, store: Store, now: list[float]) -> None:
    old = receive(spool, store, "1.1", 3)
    needed = receive(spool, store, "1.2", 3)
    store.move("1.1", State.KEPT, "no rule")
    now[0] += 8 * DAY

    removed = cleaned(store, spool)

    assert set(removed) == set(old) - set(needed)


def test_an_instance_that_was_never_indexed_is_never_removed(
    spool: Spool, store: Store, now: list[float]
) -> None:
    receive(spool, store, "1.1", 1)
    (unknown,) = receive(spool, None, "1.1", 1)
    receive(spool, store, "1.1", 8)
    store.move("1.1", State.KEPT, "no rule")
    now[0] += 8 * DAY

    removed = cleaned(store, spool)

    assert removed
    assert unknown not in removed
