"""Studies and priors come from a real PACS, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner

from medmllm_plugin.cli import medmllm
from medmllm_plugin.dicom_bridge.delivery.dimse import DimseDestination
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.retrieve import Archive, archive, peer_named, priors_of
from medmllm_plugin.dicom_bridge.retrieve.dimse import DimseArchive
from medmllm_plugin.dicom_bridge.retrieve.moving import fetch_by_move
from medmllm_plugin.dicom_bridge.retrieve.values import require_whole
from medmllm_plugin.dicom_bridge.retrieve.web import WebArchive
from medmllm_plugin.errors import RetrieveError, SettingsError
from medmllm_plugin.phantoms import write_study
from tests.orthanc import Orthanc, free_port, needs_dicomweb, orthanc

OURS = Peer(ae_title="NODE", host="127.0.0.1", port=free_port())
CURRENT, PRIOR, OLDER, OTHERS = (f"1.2.826.0.1.3680043.8.498.{number}" for number in (1, 2, 3, 4))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A study, two earlier ones of its patient, and an earlier one of another patient."""
    folder = tmp_path_factory.mktemp("studies")
    write_study(folder / "made", kind="ct-chest", seed=7, slices=16, matrix=64)
    studies = {CURRENT: ("20260301", "A"), PRIOR: ("20260201", "A"), OLDER: ("20250101", "A")}
    found = []
    for study, (date, patient) in {**studies, OTHERS: ("20260220", "B")}.items():
        for number, path in enumerate(sorted((folder / "made").rglob("*.dcm")), start=1):
            dataset = pydicom.dcmread(path)
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.1"
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.1.{number}"
            dataset.StudyDate, dataset.PatientID = date, patient
            found.append(folder / f"{study}-{number}.dcm")
            dataset.save_as(found[-1])
    return found


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, files: list[Path]) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("pacs"), modalities={"node": OURS}) as running:
        DimseDestination(running.peer, calling_ae="NODE").deliver(files)
        yield running


@pytest.fixture(params=["dimse", "web"])
def asked(request: pytest.FixtureRequest, pacs: Orthanc) -> Iterator[Archive]:
    """The same PACS, asked both ways."""
    made: Archive = DimseArchive(pacs.peer, calling_ae="NODE")
    if request.param == "web":
        made = WebArchive(str(pacs.peer.web))
    yield made
    made.close()


@needs_dicomweb
def test_a_study_comes_as_it_is(asked: Archive, tmp_path: Path, files: list[Path]) -> None:
    told: list[tuple[int, int | None]] = []

    came = asked.fetch(CURRENT, tmp_path, came=lambda done, of: told.append((done, of)))

    found = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, came)}
    sent = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, files) if one.StudyInstanceUID == CURRENT}
    assert found.keys() == sent.keys()
    for uid, one in sent.items():
        np.testing.assert_array_equal(found[uid].pixel_array, one.pixel_array)
    assert told[-1] == (16, 16)


@needs_dicomweb
def test_instances_are_counted(asked: Archive) -> None:
    assert (asked.instance_count(CURRENT), asked.instance_count("1.2.3")) == (16, 0)


@needs_dicomweb
def test_priors_are_earlier_ones_of_the_same_patient_newest_first(asked: Archive) -> None:
    assert [one.study_uid for one in priors_of(asked, CURRENT, most=5)] == [PRIOR, OLDER]
    assert [one.study_uid for one in priors_of(asked, PRIOR)] == [OLDER]
    assert priors_of(asked, OTHERS) == []


@needs_dicomweb
def test_a_study_that_is_not_there_says_so(asked: Archive, tmp_path: Path) -> None:
    with pytest.raises(RetrieveError, match="found no such study") as caught:
        asked.fetch("1.2.3", tmp_path)

    assert caught.value.retry
    assert list(tmp_path.iterdir()) == []


@needs_dicomweb
def test_a_study_comes_by_move(pacs: Orthanc, tmp_path: Path) -> None:
    dimse = DimseArchive(pacs.peer, calling_ae="NODE")

    came = fetch_by_move(dimse, CURRENT, tmp_path, listen=OURS)

    assert sorted(tmp_path.iterdir()) == sorted(came)
    assert {pydicom.dcmread(path).StudyInstanceUID for path in came} == {CURRENT}
    assert len(came) == 16


@needs_dicomweb
def test_a_title_that_the_pacs_does_not_know_is_said(pacs: Orthanc) -> None:
    with pytest.raises(RetrieveError, match="C-MOVE ended with the status"):
        DimseArchive(pacs.peer, calling_ae="NODE").move(CURRENT, "NOBODY")


@needs_dicomweb
def test_the_command_fetches_a_study_with_its_prior(pacs: Orthanc, tmp_path: Path) -> None:
    source = f"PACS@127.0.0.1:{pacs.peer.port}"
    out = tmp_path / "out"

    done = CliRunner().invoke(medmllm, ["pull", CURRENT, "--from", source, "-o", str(out), "--priors", "1"])

    assert done.exit_code == 0, done.output
    assert "16 instances" in done.output
    assert len(list((out / "study").iterdir())) == 16
    first = pydicom.dcmread(next((out / "prior-1").iterdir()))
    assert first.StudyInstanceUID == PRIOR


@needs_dicomweb
def test_the_command_leaves_nothing_of_a_study_that_is_not_there(pacs: Orthanc, tmp_path: Path) -> None:
    arguments = ["pull", "1.2.3", "--from", str(pacs.peer.web), "-o", str(tmp_path / "out")]

    done = CliRunner().invoke(medmllm, arguments)

    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["pacs", "PACS@host", "PACS@host:99999", "@host:104", "A\\B@host:104"])
def test_a_source_that_is_none_says_what_is_one(text: str) -> None:
    with pytest.raises(SettingsError, match="AE@host:port"):
        archive(text)


def test_a_known_peer_goes_by_its_name() -> None:
    peers = {"pacs": Peer(ae_title="PACS", host="h", port=104)}
    web = {"pacs": Peer(ae_title="PACS", host="h", port=104, web="http://h/dicom-web")}

    assert archive("pacs", peers=peers).name == "PACS@h:104"
    opened = archive("pacs", peers=web)
    opened.close()
    assert opened.name == "http://h/dicom-web"
    assert peer_named("PACS@[fe80::1]:104").host == "fe80::1"


def test_too_few_instances_or_those_of_another_study_are_refused(tmp_path: Path, files: list[Path]) -> None:
    with pytest.raises(RetrieveError, match="gave 1 of 16 instances"):
        require_whole("PACS", CURRENT, files[:1], counted=16)
    with pytest.raises(RetrieveError, match="another study"):
        require_whole("PACS", CURRENT, files[-1:], counted=1)
    with pytest.raises(RetrieveError, match="no instance"):
        require_whole("PACS", CURRENT, [], counted=None)
