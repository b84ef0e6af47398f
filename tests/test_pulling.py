"""A node fetches studies by itself, each once, whole, and again when there is more of it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pydicom
import pytest

from medmllm_plugin.config import parse
from medmllm_plugin.dicom_bridge import pulling
from medmllm_plugin.dicom_bridge.checking import Verdict, check
from medmllm_plugin.dicom_bridge.cleaning import FORGOTTEN
from medmllm_plugin.dicom_bridge.delivery.dimse import DimseDestination
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Output, Peer, Pull, node_settings
from medmllm_plugin.dicom_bridge.pulling import Puller
from medmllm_plugin.dicom_bridge.retrieve import FoundStudy
from medmllm_plugin.dicom_bridge.rules import parse_rules
from medmllm_plugin.dicom_bridge.spool import Spool
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.store import Store
from medmllm_plugin.dicom_bridge.tables import open_database
from medmllm_plugin.errors import RetrieveError, SettingsError
from tests.chat_server import serving
from tests.node_runner import a_study, one_in, reports_among, settings_for, wait_for
from tests.orthanc import Orthanc, free_port, needs_dicomweb, orthanc

UID = "2.25.1"
KEPT = parse_rules([{"name": "all", "when": {}, "action": "keep"}], where="rules")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A study of today."""
    found = a_study(tmp_path_factory.mktemp("study"))
    for path in found:
        dataset = pydicom.dcmread(path)
        dataset.StudyInstanceUID, dataset.StudyDate = UID, f"{date.today():%Y%m%d}"
        dataset.save_as(path)
    return found


@dataclass
class Pacs:
    """Counts, and gives, what it is told."""

    files: Sequence[Path]
    counts: list[int | None]
    """What it says, look by look; the last from then on."""
    uid: str = UID
    wrong: list[RetrieveError] = field(default_factory=list)
    asked: list[Mapping[str, str]] = field(default_factory=list)
    given: int = 0
    name: str = "pacs"

    def find(self, keys: Mapping[str, str]) -> list[FoundStudy]:
        self.asked.append(keys)
        count = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        said: dict[str, Any] = {"patient_id": "", "issuer": "", "date": "", "modalities": ("CT",)}
        return [FoundStudy(study_uid=self.uid, instances=count, **said)]

    def fetch(self, study_uid: str, folder: Path, *, came: Any = None) -> list[Path]:
        self.given += 1
        if self.wrong:
            raise self.wrong.pop(0)
        paths = [folder / path.name for path in self.files]
        for path, source in zip(paths, self.files, strict=True):
            path.write_bytes(source.read_bytes())
        return paths

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class Fetching:
    """A puller of a node that doesn't run, with a clock of its own."""

    puller: Puller
    store: Store
    folder: Path
    now: list[float]
    ended: list[tuple[str, int]]
    room: list[bool]

    def look(self, *, times: int = 1) -> list[float]:
        """Look so often, each time when it is due."""
        waits = []
        for _ in range(times):
            waits.append(self.puller.look())
            self.now[0] += waits[-1]
        return waits

    @property
    def came(self) -> int:
        return len(self.store.instances(UID))


Start = Callable[..., Fetching]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A puller that asks a PACS of ours, every 300 s."""
    from medmllm_plugin.dicom_bridge.indexing import Indexer

    engine = open_database(str(tmp_path / "node.sqlite"))
    spool = Spool(tmp_path / "node" / "spool" / "one")
    store = Store(engine, salt=b"a salt")
    indexer = Indexer(store, spool.folder, node="one", changed=lambda studies: None)
    now, ended, room = [0.0], list[tuple[str, int]](), [True]

    def made(pacs: Pacs, **values: Any) -> Fetching:
        monkeypatch.setattr(pulling, "archive", lambda name, **_: pacs)
        puller = Puller(
            settings_of(tmp_path, **values),
            store,
            spool,
            received=indexer,
            settle=indexer.settle,
            admit=lambda: room[0],
            ended=lambda calling, count: ended.append((calling, count)),
            clock=lambda: now[0],
        )
        return Fetching(puller, store, tmp_path, now, ended, room)

    yield made
    indexer.close()
    spool.close()
    engine.dispose()


def settings_of(folder: Path, **values: Any) -> NodeSettings:
    pull = Pull(name="today's CT", peer="pacs", when={"ModalitiesInStudy": "CT"})
    peer = Peer(ae_title="ARCHIVE", host="127.0.0.1", port=104)
    given = {"pulls": (pull,), "peers": {"pacs": peer}, "rules": KEPT, **values}
    return settings_for(folder, **given)


def test_a_study_is_fetched_when_it_was_counted_the_same_twice_and_only_once(
    start: Start, files: list[Path]
) -> None:
    pacs = Pacs(files, [3, 9, 16])
    one = start(pacs)

    waits = one.look(times=6)

    assert waits[:3] == [pulling.AGAIN_S] * 3, "it grows: it is counted again soon"
    assert waits[3:] == [pulling._REST_S] * 3
    assert (pacs.given, one.came) == (1, 16)
    assert one.ended == [("ARCHIVE", 16)]
    assert {each.calling_ae for each in one.store.instances(UID)} == {"ARCHIVE"}
    assert one.store.events(UID)[-1]["event"] == "pulled"
    assert pacs.asked[0]["ModalitiesInStudy"] == "CT"
    assert pacs.asked[0]["StudyDate"].endswith("-")
    assert not list(one.folder.rglob("*-pulled"))


def test_what_comes_later_is_fetched_too(start: Start, files: list[Path]) -> None:
    pacs = Pacs(files[:10], [10])
    one = start(pacs)
    one.look(times=2)
    before = one.came
    pacs.files, pacs.counts = files, [16]

    one.now[0] += 300
    one.look(times=2)

    assert (before, one.came, pacs.given) == (10, 16, 2)


def test_an_archive_that_doesnt_count_gives_a_study_once(start: Start, files: list[Path]) -> None:
    pacs = Pacs(files, [None])
    one = start(pacs)

    for _ in range(4):
        one.look()
        one.now[0] += 300

    assert (pacs.given, one.came) == (1, 16)


def test_a_study_that_cant_be_fetched_is_tried_ever_more_rarely(
    start: Start, files: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    pacs = Pacs(files, [16], wrong=[RetrieveError("pacs: gave 3 of 16 instances", retry=True)] * 3)
    one = start(pacs)
    given = []

    for _ in range(12):
        one.puller.look()
        one.now[0] += 300
        given.append(pacs.given)

    assert pacs.given == 4
    assert given.index(2) - given.index(1) < given.index(4) - given.index(3)
    assert one.came == 16
    assert "was not fetched: pacs: gave 3 of 16 instances" in caplog.text
    assert UID not in caplog.text


def test_nothing_is_fetched_without_room(start: Start, files: list[Path]) -> None:
    pacs = Pacs(files, [16])
    one = start(pacs)
    one.room[0] = False

    one.look(times=3)

    assert (pacs.given, one.came) == (0, 0)


def test_a_study_that_is_forgotten_is_not_fetched_again(start: Start, files: list[Path]) -> None:
    pacs = Pacs(files, [16, 16, 17])
    one = start(pacs)
    one.look(times=2)
    one.store.move(UID, State.KEPT, "by a rule", plan={FORGOTTEN: True})

    for _ in range(3):
        one.now[0] += 300
        one.look()

    assert pacs.given == 1


def test_a_uid_that_is_none_is_never_a_path(start: Start, files: list[Path]) -> None:
    pacs = Pacs(files, [16], uid="../../x")

    start(pacs).look(times=3)

    assert pacs.given == 0


def test_who_cant_be_asked_is_asked_again_later(start: Start, files: list[Path]) -> None:
    one = start(Pacs(files, [16]))

    def down(keys: Mapping[str, str]) -> list[FoundStudy]:
        raise RetrieveError("pacs: it is down", retry=True)

    whole = Pacs(files, [16])
    whole.find = down  # type: ignore[method-assign]
    one = start(whole)

    assert one.look() == [pulling._REST_S]
    assert one.puller._looked["today's CT"].next_s == 300


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Orthanc]:
    us = Peer(ae_title="MEDMLLM", host="127.0.0.1", port=port)
    with orthanc(tmp_path_factory.mktemp("pacs"), modalities={"node": us}) as running:
        yield running


@needs_dicomweb
@pytest.mark.parametrize("way", ["dimse", "web"])
def test_a_real_archive_is_asked_and_gets_the_report(
    tmp_path: Path, pacs: Orthanc, port: int, files: list[Path], way: str
) -> None:
    pacs.clear()
    send_to = DimseDestination(pacs.peer, calling_ae="MEDMLLM")
    send_to.deliver(files[:12], ours=False)
    peer = pacs.peer if way == "web" else replace(pacs.peer, web=None)
    with serving(pictures=64) as server:
        settings = settings_for(
            tmp_path,
            port=port,
            model=f"chat:{server.url}",
            peers={"pacs": peer},
            outputs={"pacs": Output(peer="pacs", commitment=True)},
            pulls=(Pull(name="CT", peer="pacs", when={"ModalitiesInStudy": "CT"}, every_s=1.0),),
        )
        with Node(settings) as node:
            first = wait_for(lambda: one_in(node.store, State.DELIVERED))
            send_to.deliver(files[12:], ours=False)
            wait_for(lambda: [one for one in node.store.studies(State.DELIVERED) if one.version == 2])
            before = [one["event"] for one in node.store.events(UID)].count("pulled")
            looked = node.puller._looked["CT"].next_s
            wait_for(lambda: node.puller._looked["CT"].next_s > looked + 2)
            after = [one["event"] for one in node.store.events(UID)].count("pulled")

    reports = reports_among(pydicom.dcmread(io.BytesIO(one)) for one in pacs.instances().values())
    newest = [one for one in reports[UID] if one.predecessors]
    assert first.version == 1
    assert (before, after) == (2, 2), "its own reports there are nothing new"
    assert [len(one.evidence) for one in newest] == [16, 16]


@pytest.mark.parametrize(
    ("pulls", "wrong"),
    [
        ([{"name": "a", "peer": "nobody"}], r"pulls\[0\].peer: found 'nobody', expected one of pacs"),
        ([{"peer": "pacs"}], r"pulls\[0\].name: found nothing"),
        ([{"name": "a", "peer": "pacs"}] * 2, r"pulls\[1\].name: found 'a', expected a name that no other"),
        (
            [{"name": "a", "peer": "pacs", "often": 3}],
            r"pulls\[0\]: found 'often', expected one of name, peer",
        ),
        (
            [{"name": "a", "peer": "pacs", "every_s": 0.1}],
            r"pulls\[0\].every_s: found 0.1, expected 1 or more",
        ),
        ([{"name": "a", "peer": "pacs", "when": {"Modality": "CT"}}], r"pulls\[0\].when: found 'Modality'"),
        ([{"name": "a", "peer": "pacs", "when": {"StudyDate": "1"}}], r"pulls\[0\].when: found 'StudyDate'"),
        ([{"name": "a", "peer": "pacs", "when": {"PatientID": 7}}], r"pulls\[0\].when.PatientID: found 7"),
        ({"name": "a"}, r"pulls: found .*, expected a list of tables \[\[pulls\]\]"),
    ],
)
def test_a_pull_that_cant_be_names_its_field(tmp_path: Path, pulls: Any, wrong: str) -> None:
    content = {
        "node": {"folder": str(tmp_path)},
        "peers": {"pacs": {"ae_title": "PACS", "host": "h", "port": 104}},
        "pulls": pulls,
    }

    with pytest.raises(SettingsError, match=wrong):
        node_settings(parse(content, path=Path("medmllm.toml")))


def test_a_check_says_who_is_asked(tmp_path: Path) -> None:
    content = {
        "node": {"folder": str(tmp_path), "port": 0, "http_port": False},
        "peers": {"pacs": {"ae_title": "PACS", "host": "h", "port": 104}},
        "pulls": [{"name": "CT", "peer": "pacs", "when": {"ModalitiesInStudy": "CT"}, "days": 2}],
    }
    settings = parse(content, path=tmp_path / "medmllm.toml")

    (said,) = (
        one for one in check(settings, node_settings(settings), models=False) if one.what == "pulls[0]"
    )

    assert said.verdict is Verdict.OK
    assert said.found == "'CT' asks PACS@h:104 every 300 s for studies, 2 days back"
