"""Old segments go when nobody needs anything in them, and no sooner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge.cleaning import clean, forget
from medmllm_plugin.dicom_bridge.jobs import Jobs, ReportRow
from medmllm_plugin.dicom_bridge.made_reports import PASSED_ON
from medmllm_plugin.dicom_bridge.segments import SUFFIX, Facts, segment_head
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.states import Sent, State
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import open_database
from medmllm_plugin.dicom_bridge.watching import REMOVED, Watch
from tests.node_runner import settings_for
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


def test_images_that_are_still_to_be_passed_on_stay(spool: Spool, store: Store, now: list[float]) -> None:
    names = receive(spool, store, "1.1", 6)
    jobs = Jobs(store, node="one", reachable=lambda: ("one",))
    (study,) = store.studies()
    jobs.forward(study, ["a"], "all is there", plan={PASSED_ON: ["a"]}, to=State.COMPLETE, owner="")
    store.move("1.1", State.KEPT, "a person holds it")
    now[0] += 8 * DAY
    before = cleaned(store, spool)
    images = jobs.next_delivery("a")
    assert images is not None
    jobs.sent(images, Sent.SENT, "taken")

    assert before == []
    assert cleaned(store, spool) == sorted(set(names[:4]))


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


def test_an_empty_segment_that_a_killed_node_left_goes_when_it_is_old(
    spool: Spool, store: Store, now: list[float]
) -> None:
    left = spool.folder / f"77{SUFFIX}"
    left.write_bytes(segment_head(7) + bytes(10_000))
    now[0] = left.stat().st_mtime + 1

    early = cleaned(store, spool)
    now[0] += 8 * DAY
    late = cleaned(store, spool)

    assert (early, late) == ([], [left.name])
    assert all((spool.folder / name).exists() for name in spool.in_use)


def a_report(store: Store, folder: Path) -> Path:
    """A study that is delivered, and whose images are gone; the folder of its report."""
    store.add([an_instance(1), an_instance(2)])
    jobs = Jobs(store, node="one", reachable=lambda: ["one"])
    store.move("1.2.3", State.COMPLETE, "all here", plan={"task": "report"}, owner="")
    study = jobs.next_study(most_attempts=3)
    assert study is not None
    place = Path("reports") / study.key / "1-aa"
    (folder / place).mkdir(parents=True)
    (folder / place / "report.json").write_text("{}")
    (folder / "spool" / "one").mkdir(parents=True, exist_ok=True)
    row = ReportRow(study_uid="1.2.3", version=1, digest="d", folder=str(place), objects=())
    assert jobs.reported(study, row)
    made = store.study("1.2.3")
    assert made is not None
    jobs.begin_deliveries(made, [])
    jobs.close_deliveries("1.2.3")
    return folder / place


def test_reports_and_events_of_studies_long_done_go_and_the_study_stays_known(
    store: Store, now: list[float], tmp_path: Path
) -> None:
    place = a_report(store, tmp_path)

    early = forget(store, tmp_path, keep_s=30 * DAY)
    now[0] += 31 * DAY
    late = forget(store, tmp_path, keep_s=30 * DAY)
    again = forget(store, tmp_path, keep_s=30 * DAY)

    study = store.study("1.2.3")
    assert study is not None
    assert (early, late, again) == (0, 1, 0)
    assert not place.parent.exists()
    assert (study.state, study.version, study.plan) == (
        State.DELIVERED,
        1,
        {"task": "report", "forgotten": True},
    )
    assert store.instances("1.2.3") == []
    assert store.events("1.2.3")[-1]["event"] == "forgotten"
    assert len(store.events("1.2.3")) == 2


def test_reports_stay_while_an_image_does(store: Store, now: list[float], tmp_path: Path) -> None:
    place = a_report(store, tmp_path)
    (tmp_path / "spool" / "one" / "00000001.segment").touch()
    now[0] += 31 * DAY

    removed = forget(store, tmp_path, keep_s=30 * DAY)

    assert removed == 0
    assert place.exists()


def test_reports_of_a_study_that_lies_with_another_node_stay(
    store: Store, now: list[float], tmp_path: Path
) -> None:
    place = a_report(store, tmp_path)
    (tmp_path / "spool" / "one").rmdir()
    now[0] += 31 * DAY

    assert forget(store, tmp_path, keep_s=30 * DAY) == 0
    assert place.exists()


def test_more_of_a_study_that_was_forgotten_is_left_to_a_person(
    store: Store, now: list[float], tmp_path: Path
) -> None:
    a_report(store, tmp_path)
    now[0] += 31 * DAY
    forget(store, tmp_path, keep_s=30 * DAY)
    clock = [0.0]
    jobs = Jobs(store, node="one", reachable=lambda: ["one"])
    watch = Watch(store, jobs, settings_for(tmp_path), clock=lambda: clock[0])

    store.add([an_instance(3)])
    watch.look()
    clock[0] += 60
    watch.look()

    parked = store.study("1.2.3")
    assert parked is not None
    assert (parked.state, parked.reason) == (State.PARKED, REMOVED)
    assert jobs.retry(parked) == "it is read again"
    asked = store.study("1.2.3")
    assert asked is not None
    assert (asked.state, asked.plan) == (State.COMPLETE, {"task": "report"})
