"""Who works on which study, by one row: no two nodes at the same, nothing that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from medmllm_plugin.dicom_bridge.jobs import AGED_S, Jobs, Object, ReportRow
from medmllm_plugin.dicom_bridge.states import Sent, State
from medmllm_plugin.dicom_bridge.store import Store, StudyRow, digest_of
from tests.databases import KINDS, empty_database
from tests.postgres import postgres
from tests.test_store import an_instance


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A database of each kind, empty."""
    where = str(tmp_path / "node.sqlite") if request.param == "sqlite" else request.getfixturevalue("server")
    with empty_database(where) as opened:
        yield opened


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 10_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(engine: Engine, clock: Clock) -> Store:
    return Store(engine, salt=b"a salt", clock=clock)


@pytest.fixture
def jobs(store: Store) -> Callable[[str], Jobs]:
    """The work of a node by its name; all see the spools of `one` and `two`."""
    return lambda node: Jobs(store, node=node, reachable=lambda: ("one", "two"))


def complete(store: Store, uid: str, *, node: str = "one", priority: int = 1) -> None:
    """A study that waits to be read."""
    number = abs(hash(uid)) % 10_000
    store.add([an_instance(number, study_uid=uid, sop_instance_uid=f"{uid}.1", node=node)])
    assert store.move(uid, State.COMPLETE, "all there", owner="", priority=priority)


def a_report(study: StudyRow, *, version: int = 1) -> ReportRow:
    made = Object(
        key="findings_sr", file="findings.dcm", sop_class_uid="1.2", sop_instance_uid=f"9.{version}"
    )
    return ReportRow(
        study_uid=study.study_uid, version=version, digest="d", folder=f"reports/{version}", objects=(made,)
    )


def taken(jobs: Jobs) -> StudyRow:
    study = jobs.next_study(most_attempts=9)
    assert study is not None
    return study


def test_a_study_is_taken_by_one_node_only(store: Store, jobs: Callable[[str], Jobs]) -> None:
    complete(store, "1.1")

    first, second = jobs("one").next_study(most_attempts=9), jobs("two").next_study(most_attempts=9)

    assert first is not None
    assert (first.study_uid, first.state, first.owner, first.attempts) == ("1.1", State.READING, "one", 1)
    assert second is None


def test_urgent_studies_go_first_until_others_have_waited_long(
    store: Store, jobs: Callable[[str], Jobs], clock: Clock
) -> None:
    for uid, priority, at in (("1.1", 1, 0), ("1.2", 1, 100), ("1.3", 0, 200), ("1.4", 0, AGED_S + 50)):
        clock.now = 10_000.0 + at
        complete(store, uid, priority=priority)

    order = [taken(jobs("one")).study_uid for _ in range(4)]

    assert order == ["1.1", "1.3", "1.4", "1.2"]


def test_a_study_in_a_spool_that_is_not_seen_is_left(store: Store, jobs: Callable[[str], Jobs]) -> None:
    complete(store, "1.1", node="far away")

    assert jobs("one").next_study(most_attempts=9) is None


def test_what_is_given_back_waits_and_is_taken_again(
    store: Store, jobs: Callable[[str], Jobs], clock: Clock
) -> None:
    complete(store, "1.1")
    one = jobs("one")

    one.give_back(taken(one), "the model is down", wait_s=30)
    at_once = one.next_study(most_attempts=9)
    clock.now += 31
    later = jobs("two").next_study(most_attempts=9)

    assert at_once is None
    assert later is not None
    assert (later.owner, later.attempts) == ("two", 2)


def test_a_clock_set_back_keeps_nothing_waiting(
    store: Store, jobs: Callable[[str], Jobs], clock: Clock
) -> None:
    complete(store, "1.1")
    one = jobs("one")
    one.give_back(taken(one), "the model is down", wait_s=30)

    clock.now -= 86_400

    assert one.next_study(most_attempts=9) is not None


def test_a_study_that_ends_every_node_is_parked(
    store: Store, jobs: Callable[[str], Jobs], clock: Clock
) -> None:
    complete(store, "1.1")
    one = jobs("one")
    for _ in range(3):
        taken(one)
        one.take_over("one")
        clock.now += 100

    assert one.next_study(most_attempts=3) is None
    (parked,) = store.studies(State.PARKED)
    assert parked.reason.startswith("it was begun 3 times and never ended")


def test_the_work_of_a_dead_node_is_taken_over(store: Store, jobs: Callable[[str], Jobs]) -> None:
    for uid in ("1.1", "1.2"):
        complete(store, uid)
    one, two = jobs("one"), jobs("two")
    reading, delivering = taken(one), taken(one)
    one.reported(delivering, a_report(delivering))
    one.begin_deliveries(delivering, ["pacs"])

    assert two.next_delivery("pacs") is None
    assert two.take_over("one") == 2
    assert taken(two).study_uid == reading.study_uid
    delivery = two.next_delivery("pacs")
    assert delivery is not None
    assert delivery.report == a_report(delivering)


def test_the_spool_of_a_node_that_cannot_be_seen_is_not_taken_over(store: Store) -> None:
    complete(store, "1.1")
    far, near = (Jobs(store, node=name, reachable=lambda name=name: (name,)) for name in ("one", "two"))  # type: ignore[misc]
    taken(far)

    assert near.take_over("one") == 0
    assert store.studies(State.READING)[0].owner == "one"


def test_a_node_thought_dead_can_give_no_result(store: Store, jobs: Callable[[str], Jobs]) -> None:
    complete(store, "1.1")
    one, two = jobs("one"), jobs("two")
    frozen = taken(one)
    two.take_over("one")
    again = taken(two)

    assert not one.reported(frozen, a_report(frozen))
    assert not one.give_back(frozen, "late")
    assert not one.park(frozen, "late")
    assert two.reported(again, a_report(again))


def test_more_that_comes_makes_a_result_void(store: Store, jobs: Callable[[str], Jobs]) -> None:
    complete(store, "1.1")
    one = jobs("one")
    study = taken(one)

    store.add([an_instance(77, study_uid="1.1", sop_instance_uid="1.1.77")])

    assert not one.reported(study, a_report(study))
    assert store.studies(State.ARRIVING)[0].attempts == 0


def test_a_node_that_beats_is_alive_and_one_that_stops_is_not(
    jobs: Callable[[str], Jobs], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, now = jobs("one"), jobs("two"), [0.0]
    monkeypatch.setattr("medmllm_plugin.dicom_bridge.jobs.time.monotonic", lambda: now[0])
    two.beat()
    found = []

    for at, beats in ((0, True), (4, True), (8, False), (12, False)):
        now[0] = at
        clock.now += 4 if beats else 0
        if beats:
            two.beat()
        found.append(one.dead(5))

    assert found == [[], [], [], ["two"]]


def test_a_study_is_delivered_when_all_destinations_have_it(
    store: Store, jobs: Callable[[str], Jobs]
) -> None:
    complete(store, "1.1")
    one = jobs("one")
    study = taken(one)
    one.reported(study, a_report(study))
    one.begin_deliveries(study, ["a", "b"])
    first, second = one.next_delivery("a"), one.next_delivery("b")
    assert first is not None
    assert second is not None

    one.sent(first, Sent.COMMITTED, "kept")
    before = store.study("1.1")
    one.sent(second, Sent.ASKED, "asked", wait_s=0)
    asked = one.next_delivery("b")
    one.sent(replace(second, state=Sent.ASKED, attempts=1), Sent.COMMITTED, "kept")
    after = store.study("1.1")

    assert before is not None
    assert after is not None
    assert before.state is State.DELIVERING
    assert asked is not None
    assert (asked.state, asked.attempts) == (Sent.ASKED, 1)
    assert (after.state, after.version, after.predecessor) == (State.DELIVERED, 1, "9.1")


def test_an_amended_report_takes_the_place_of_one_still_waiting(
    store: Store, jobs: Callable[[str], Jobs]
) -> None:
    complete(store, "1.1")
    one = jobs("one")
    study = taken(one)
    one.reported(study, a_report(study))
    one.begin_deliveries(study, ["pacs"])
    store.add([an_instance(78, study_uid="1.1", sop_instance_uid="1.1.78")])
    store.move("1.1", State.COMPLETE, "all there", owner="")

    study = taken(one)
    one.reported(study, a_report(study, version=2))
    one.begin_deliveries(study, ["pacs"])

    delivery = one.next_delivery("pacs")
    assert delivery is not None
    assert delivery.report.version == 2
    one.sent(delivery, Sent.COMMITTED, "kept")
    assert one.next_delivery("pacs") is None
    assert store.studies(State.DELIVERED)[0].version == 2


def test_a_retry_reads_what_came_after_a_report_that_was_refused(
    store: Store, jobs: Callable[[str], Jobs]
) -> None:
    complete(store, "1.1")
    one = jobs("one")
    study = taken(one)
    one.reported(study, replace(a_report(study), digest=digest_of(store.instances("1.1"))))
    one.begin_deliveries(study, ["pacs"])
    delivery = one.next_delivery("pacs")
    assert delivery is not None
    one.sent(delivery, Sent.REFUSED, "no such SOP class here")

    refused = one.retry(store.studies(State.PARKED)[0])
    again = one.next_delivery("pacs")
    assert again is not None
    one.sent(again, Sent.REFUSED, "no such SOP class here")
    store.add([an_instance(79, study_uid="1.1", sop_instance_uid="1.1.79")])
    store.move("1.1", State.PARKED, "can't be read")
    more_came = one.retry(store.studies(State.PARKED)[0])

    assert refused == "it is delivered again"
    assert more_came == "it is read again"


def test_a_study_without_a_destination_is_delivered_at_once(
    store: Store, jobs: Callable[[str], Jobs]
) -> None:
    complete(store, "1.1")
    one = jobs("one")
    study = taken(one)
    one.reported(study, a_report(study))

    one.begin_deliveries(study, [])
    one.close_deliveries("1.1")

    assert store.studies(State.DELIVERED)[0].reason == "kept here alone"


def test_a_destination_that_is_back_gets_what_waits_at_once(
    store: Store, jobs: Callable[[str], Jobs]
) -> None:
    complete(store, "1.1")
    one = jobs("one")
    study = taken(one)
    one.reported(study, a_report(study))
    one.begin_deliveries(study, ["pacs"])
    delivery = one.next_delivery("pacs")
    assert delivery is not None
    one.sent(delivery, Sent.WAITING, "down", wait_s=300)

    waiting = one.next_delivery("pacs")
    one.hurry("pacs")

    assert waiting is None
    assert one.next_delivery("pacs") is not None
