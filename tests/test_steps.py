"""What modalities and archives say of a study is kept, and decides when it is complete."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.association import Association

from medmllm_plugin.dicom_bridge import steps
from medmllm_plugin.dicom_bridge.completion import Evidence, judge
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.steps import StepState
from medmllm_plugin.dicom_bridge.steps_scp import (
    AVAILABILITY,
    DUPLICATE,
    INVALID_VALUE,
    MISSING,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    STEP,
    SUCCESS,
)
from tests.chat_server import serving
from tests.http_node import MULTIPART, http_node, multipart
from tests.node_runner import SENDER, a_study, one_in, send, settings_for, wait_for

needs_a_sender = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return a_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One on which silence alone ends nothing soon."""
    with (
        serving(pictures=64) as server,
        Node(settings_for(tmp_path, model=f"chat:{server.url}", quiet_s=30.0)) as running,
    ):
        yield running


@contextmanager
def modality(node: Node, *classes: str) -> Iterator[Association]:
    """A modality, or an archive, that speaks to a node."""
    ae = AE(ae_title="CT1")
    for one in classes or (STEP,):
        ae.add_requested_context(one)
    association = ae.associate("127.0.0.1", node.port, ae_title="MEDMLLM")
    assert association.is_established
    yield association
    association.release()


def begun(study_uid: str, **changes: Any) -> Dataset:
    item, said = Dataset(), Dataset()
    item.add(DataElement(0x0020000D, "UI", study_uid, validation_mode=IGNORE))
    said.ScheduledStepAttributesSequence = [item]
    said.PerformedProcedureStepStatus = "IN PROGRESS"
    for keyword, value in changes.items():
        setattr(said, keyword, value)
    return said


def ended(uids: Iterable[str], *, status: str = "COMPLETED") -> Dataset:
    said, series = Dataset(), Dataset()
    series.SeriesInstanceUID = "1.2.3"
    series.ReferencedImageSequence = [reference(uid) for uid in uids]
    said.PerformedProcedureStepStatus = status
    said.PerformedSeriesSequence = [series]
    return said


def reference(uid: str, **more: str) -> Dataset:
    one = Dataset()
    one.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    one.add(DataElement(0x00081155, "UI", uid, validation_mode=IGNORE))
    for keyword, value in more.items():
        setattr(one, keyword, value)
    return one


def uids_of(paths: Iterable[Path]) -> tuple[str, list[str]]:
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    return str(headers[0].StudyInstanceUID), [str(one.SOPInstanceUID) for one in headers]


def created(association: Association, said: Dataset, uid: str | None, *, kind: str = STEP) -> int:
    return int(association.send_n_create(said, kind, uid)[0].Status)


def changed(association: Association, said: Dataset, uid: str) -> int:
    return int(association.send_n_set(said, STEP, uid)[0].Status)


@needs_a_sender
@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_study_is_complete_when_all_that_its_step_lists_is_here(
    node: Node, study: list[Path], status: str
) -> None:
    study_uid, uids = uids_of(study)
    step = generate_uid()

    with modality(node) as association:
        first = created(association, begun(study_uid), step)
        send(node.port, study[:10])
        with pytest.raises(AssertionError):
            wait_for(lambda: one_in(node.store, State.DELIVERED), within_s=1.5)
        last = changed(association, ended(uids, status=status), step)
        send(node.port, study[10:])
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert (first, last) == (SUCCESS, SUCCESS)
    assert row.plan["completed"] == "all 16 instances that were listed as made are here"
    assert row.version == 1
    told = [one for one in node.store.events(study_uid) if one["event"] == "step"]
    assert [(one["state"], one["instances"]) for one in told] == [("IN PROGRESS", 0), (status, 16)]


@needs_a_sender
def test_an_archive_that_lists_what_it_has_is_believed_too(node: Node, study: list[Path]) -> None:
    study_uid, uids = uids_of(study)
    said, series = Dataset(), Dataset()
    said.StudyInstanceUID = study_uid
    series.SeriesInstanceUID = "1.2.3"
    series.ReferencedSOPSequence = [
        *(reference(uid, InstanceAvailability="ONLINE") for uid in uids),
        reference(generate_uid(), InstanceAvailability="UNAVAILABLE"),
    ]
    said.ReferencedSeriesSequence = [series]

    send(node.port, study)
    with modality(node, AVAILABILITY) as association:
        answer = created(association, said, generate_uid(), kind=AVAILABILITY)
        row = wait_for(lambda: one_in(node.store, State.DELIVERED))

    assert answer == SUCCESS
    assert row.plan["completed"] == "all 16 instances that were listed as made are here"


def test_what_is_wrong_is_refused_and_changes_nothing(node: Node) -> None:
    step, other = generate_uid(), generate_uid()
    listed = ended(["1.2.3.4"])

    with modality(node, STEP, AVAILABILITY) as association:
        answers = [
            created(association, begun("1.2.3"), step),
            created(association, begun("1.2.3"), step),
            created(association, begun("1.2.3", PerformedProcedureStepStatus="COMPLETED"), other),
            created(association, begun("1.2.3", ScheduledStepAttributesSequence=[]), other),
            created(association, begun("../../x"), other),
            created(association, begun("1.2.3"), other, kind=AVAILABILITY),
            changed(association, listed, other),
            changed(association, ended(["../../x"]), step),
            changed(association, begun("1.2.3", PerformedProcedureStepStatus="PAUSED"), step),
            changed(association, listed, step),
            changed(association, ended([]), step),
        ]

    assert answers == [
        *(SUCCESS, DUPLICATE, INVALID_VALUE, MISSING, INVALID_VALUE, MISSING),
        *(NO_SUCH_INSTANCE, INVALID_VALUE, INVALID_VALUE, SUCCESS, PROCESSING_FAILURE),
    ]
    (kept,) = steps.steps_of(node.store, "1.2.3")
    assert (kept.uid, kept.state, kept.instances) == (step, StepState.COMPLETED, {"1.2.3.4"})


def test_what_is_said_outlives_the_node(tmp_path: Path) -> None:
    step = generate_uid()
    with serving(pictures=64) as server:
        settings = settings_for(tmp_path, model=f"chat:{server.url}")
        with Node(settings) as node, modality(node) as association:
            created(association, begun("1.2.3"), step)
        with Node(settings) as node, modality(node) as association:
            answer = changed(association, ended(["1.2.3.4"]), step)
            (kept,) = steps.steps_of(node.store, "1.2.3")
            steps.drop(node.store, keep_s=-1)
            left = steps.steps_of(node.store, "1.2.3")

    assert answer == SUCCESS
    assert kept.state is StepState.COMPLETED
    assert left == []


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        ({"in_progress": True, "counted": 5}, "nothing came for 60 s, though a modality says that it isn't"),
        ({"listed": 7, "lacking": 2}, "nothing came for 60 s, without 2 of 7 instances that were listed"),
        ({"listed": 5}, "all 5 instances that were listed as made are here"),
        ({"listed": 5, "counted": 6}, "nothing came for 60 s, with 5 of 6 instances that were counted"),
    ],
)
def test_steps_are_weighed_with_other_evidence(evidence: dict[str, Any], reason: str) -> None:
    verdict = judge(Evidence(instances=5, silent_s=60.0, **evidence), quiet_s=60, evidence_quiet_s=3)

    assert verdict.reason is not None
    assert verdict.reason.startswith(reason)


def test_the_end_of_a_web_request_speaks_for_a_study(tmp_path: Path, study: list[Path]) -> None:
    parts = [path.read_bytes() for path in study]
    with (
        serving(pictures=64) as server,
        http_node(tmp_path, model=f"chat:{server.url}", quiet_s=30.0) as running,
    ):
        watch = running.node.watch
        watch.sending(uids_of(study)[0])
        running.stow(parts)
        with pytest.raises(AssertionError):
            wait_for(lambda: one_in(running.node.store, State.DELIVERED), within_s=1.5)
        watch.sent([uids_of(study)[0]], whole=True)
        row = wait_for(lambda: one_in(running.node.store, State.DELIVERED))

    assert row.plan["completed"] == "its senders are done and no slice is missing between others"


def test_a_web_request_that_broke_off_speaks_for_nothing(tmp_path: Path, study: list[Path]) -> None:
    body = multipart([path.read_bytes() for path in study])
    with (
        serving(pictures=64) as server,
        http_node(tmp_path, model=f"chat:{server.url}", quiet_s=2.5) as running,
    ):
        cut = running.client.post(
            "/dicom-web/studies", content=body[: len(body) - 2000], headers={"Content-Type": MULTIPART}
        )
        row = wait_for(lambda: one_in(running.node.store, State.DELIVERED))

    assert cut.status_code == 400
    assert row.plan["completed"].startswith("nothing came for 2.5 s")
