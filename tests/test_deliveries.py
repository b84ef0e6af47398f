"""What is to be delivered, on either database: studies passed on, destinations gone, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from medmllm_plugin.dicom_bridge import steps
from medmllm_plugin.dicom_bridge.cleaning import forget
from medmllm_plugin.dicom_bridge.deliveries import Deliveries
from medmllm_plugin.dicom_bridge.jobs import Jobs, ReportRow
from medmllm_plugin.dicom_bridge.made_reports import AS_IT_CAME, PASSED_ON
from medmllm_plugin.dicom_bridge.states import Sent, State
from medmllm_plugin.dicom_bridge.steps import Step, StepState
from medmllm_plugin.dicom_bridge.store import Store, StudyRow, digest_of
from tests.databases import KINDS, empty_database
from tests.postgres import postgres
from tests.test_store import an_instance

UID = "1.2.3"


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


@pytest.fixture
def now() -> list[float]:
    return [10_000.0]


@pytest.fixture
def store(engine: Engine, now: list[float]) -> Store:
    made = Store(engine, salt=b"a salt", clock=lambda: now[0])
    made.add([an_instance(1), an_instance(2)])
    return made


@pytest.fixture
def jobs(store: Store) -> Jobs:
    return Jobs(store, node="one", reachable=lambda: ("one",))


def found(store: Store) -> StudyRow:
    row = store.study(UID)
    assert row is not None
    return row


def test_a_study_goes_to_each_destination_as_it_came(jobs: Jobs, store: Store) -> None:
    moved = jobs.forward(found(store), ["a", "b"], "no rule fits", plan={"forward": True})
    again = jobs.forward(found(store), ["a"], "no rule fits", plan={})
    first, second = jobs.next_delivery("a"), jobs.next_delivery("b")

    assert (moved, again) == (True, False)
    assert first is not None
    assert second is not None
    assert (first.report.version, first.report.objects) == (AS_IT_CAME, ())
    assert first.report.digest == digest_of(store.instances(UID))
    jobs.sent(first, Sent.SENT, "taken")
    assert found(store).state is State.DELIVERING
    jobs.sent(second, Sent.COMMITTED, "kept")
    assert (found(store).state, found(store).version) == (State.DELIVERED, 0)


def test_what_is_passed_on_is_not_superseded_by_a_report(jobs: Jobs, store: Store) -> None:
    jobs.forward(found(store), ["a"], "no rule fits", plan={})
    store.add([an_instance(3)])
    store.move(UID, State.COMPLETE, "a rule fits now", owner="")
    study = jobs.next_study(most_attempts=3)
    assert study is not None
    jobs.reported(study, ReportRow(study_uid=UID, version=1, digest="d", folder="r", objects=()))
    jobs.begin_deliveries(found(store), ["a"])

    versions = set()
    while (one := jobs.next_delivery("a")) is not None:
        versions.add(one.report.version)
        jobs.sent(one, Sent.SENT, "taken")

    assert versions == {AS_IT_CAME, 1}
    assert found(store).state is State.DELIVERED


def both(jobs: Jobs, store: Store) -> None:
    """Have the study read, and passed on beside that."""
    plan = {"task": "report", PASSED_ON: ["a"]}
    assert jobs.forward(
        found(store), ["a"], "all is there", plan=plan, to=State.COMPLETE, owner="", digest="d"
    )


def test_a_study_that_is_read_and_passed_on_waits_for_neither(jobs: Jobs, store: Store) -> None:
    both(jobs, store)
    other = Jobs(store, node="two", reachable=lambda: ("one", "two"))

    assert other.next_delivery("a") is None, "it lies in the spool of another"
    images = jobs.next_delivery("a")
    assert images is not None
    jobs.sent(images, Sent.SENT, "taken")
    before = found(store).state
    study = jobs.next_study(most_attempts=3)
    assert study is not None
    jobs.reported(study, ReportRow(study_uid=UID, version=1, digest="d", folder="r", objects=()))
    jobs.begin_deliveries(found(store), ["a"])
    report = jobs.next_delivery("a")
    assert report is not None
    jobs.sent(report, Sent.SENT, "taken")

    assert before is State.COMPLETE
    assert (images.report.version, report.report.version) == (AS_IT_CAME, 1)
    assert found(store).state is State.DELIVERED


def test_a_study_that_cant_be_read_is_passed_on_all_the_same(jobs: Jobs, store: Store) -> None:
    both(jobs, store)
    study = jobs.next_study(most_attempts=3)
    assert study is not None
    jobs.park(study, "it can't be read")

    images = jobs.next_delivery("a")
    assert images is not None
    jobs.sent(images, Sent.REFUSED, "no room")
    refused = jobs.next_delivery("a")
    said = jobs.retry(found(store))

    assert refused is None
    assert said == "it is read again"
    assert found(store).state is State.COMPLETE
    assert jobs.next_delivery("a") is not None, "and its images are sent again, too"


def test_what_waits_for_a_destination_that_is_gone_is_refused(jobs: Jobs, store: Store) -> None:
    jobs.forward(found(store), ["a", "gone"], "no rule fits", plan={})
    other: Deliveries = Jobs(store, node="two", reachable=lambda: ("two",))

    other.refuse_others(["a"])
    before = found(store).state
    jobs.refuse_others(["a"])
    one = jobs.next_delivery("a")
    assert one is not None
    jobs.sent(one, Sent.SENT, "taken")

    assert before is State.DELIVERING
    assert jobs.next_delivery("gone") is None
    assert found(store).state is State.PARKED
    assert found(store).reason == "gone refuses it: the settings name no such destination any more"


def test_a_study_is_forgotten_but_for_its_row(
    jobs: Jobs, store: Store, now: list[float], tmp_path: Path
) -> None:
    (tmp_path / "spool" / "one").mkdir(parents=True)
    jobs.forward(found(store), [], "no rule fits", plan={})
    jobs.close_deliveries(UID)
    now[0] += 100

    removed = forget(store, tmp_path, keep_s=50)
    store.note_node("settings", {"taken": True})

    assert removed == 1
    assert found(store).plan == {"forgotten": True}
    assert jobs.report(UID, AS_IT_CAME) is None
    assert [one["event"] for one in store.events(UID)][-1] == "forgotten"


def test_steps_are_kept_and_dropped(store: Store, now: list[float]) -> None:
    first = Step(uid="9.1", study_uid=UID, state=StepState.IN_PROGRESS, instances=frozenset())
    done = Step(uid="9.1", study_uid=UID, state=StepState.COMPLETED, instances=frozenset({"1.2.3.1"}))

    steps.keep(store, [first])
    steps.keep(store, [done])
    kept = steps.steps_of(store, UID)
    now[0] += 100
    steps.drop(store, keep_s=50)

    assert kept == [done]
    assert steps.step(store, "9.1") == []
