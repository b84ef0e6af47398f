"""STOW-RS: what is answered with success is in the spool, byte for byte; what else comes harms nothing."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from medmllm_plugin.dicom_bridge.part10 import Part10Error, read_head
from medmllm_plugin.dicom_bridge.segments import SUFFIX, read_record, records
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.dicom_bridge.stowing import OTHER_STUDY
from tests.http_node import MULTIPART, HttpNode, http_node, multipart
from tests.node_runner import a_study

KEEPS = {"rules": (), "quiet_s": 60.0, "evidence_quiet_s": 60.0}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[HttpNode]:
    with http_node(tmp_path, **KEEPS) as one:
        yield one


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return [path.read_bytes() for path in a_study(tmp_path_factory.mktemp("ct"))][:6]


def kept(node: HttpNode) -> list[bytes]:
    """The files in the spool."""
    folder = node.node.settings.spool
    return [read_record(folder, one) for path in sorted(folder.glob(f"*{SUFFIX}")) for one in records(path)]


def data_set(content: bytes) -> bytes:
    return content[read_head(content).data_set :]


def failures(said: dict[str, Any], tag: str) -> list[int]:
    return [one["00081197"]["Value"][0] for one in said[tag]["Value"]]


def test_instances_are_kept_byte_for_byte_and_known_when_it_is_answered(
    running: HttpNode, files: list[bytes]
) -> None:
    answer = running.stow(files)
    listed = running.only_study()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    uids = {one["00081155"]["Value"][0] for one in answer.json()["00081199"]["Value"]}
    assert uids == {str(dcmread(io.BytesIO(one)).SOPInstanceUID) for one in files}
    assert sorted(map(data_set, kept(running))) == sorted(map(data_set, files))
    assert (listed["state"], listed["modalities"]) == (State.ARRIVING, {"CT": 6})


def test_a_stranger_file_meta_is_written_anew_so_that_it_can_be_read(
    running: HttpNode, files: list[bytes]
) -> None:
    whole = read_head(files[0])
    meta = files[0][132 + 12 : whole.data_set]
    without_length = files[0][:132] + meta + files[0][whole.data_set :]

    answer = running.stow([without_length])
    (found,) = kept(running)

    assert answer.status_code == 200
    assert dcmread(io.BytesIO(found)) == dcmread(io.BytesIO(files[0]))
    assert running.only_study()["instances"] == 1


def test_what_is_no_dicom_is_told_and_the_rest_is_kept(running: HttpNode, files: list[bytes]) -> None:
    answer = running.stow([files[0], b"no DICOM", files[1][:200], files[2]])

    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 2
    assert failures(answer.json(), "0008119A") == [0xC000, 0xC000]
    assert len(kept(running)) == 2


def test_an_instance_of_another_study_than_the_address_names_is_refused(
    running: HttpNode, files: list[bytes]
) -> None:
    wrong = running.stow(files[:2], study="1.2.3")
    right = running.stow(files[:2], study=read_head(files[0]).study_uid)

    assert (wrong.status_code, right.status_code) == (409, 200)
    assert failures(wrong.json(), "00081198") == [OTHER_STUDY, OTHER_STUDY]
    assert len(kept(running)) == 2


@pytest.mark.parametrize("study", ["..%2f..%2fetc", "1.2.x", "1" * 65])
def test_an_address_that_names_no_study_is_refused(running: HttpNode, files: list[bytes], study: str) -> None:
    answer = running.stow(files[:1], study=study)

    assert answer.status_code in (400, 404)
    assert kept(running) == []


def test_without_room_nothing_is_taken_and_the_sender_is_told_to_come_again(
    tmp_path: Path, files: list[bytes]
) -> None:
    with http_node(tmp_path, low_disk_bytes=1 << 60, **KEEPS) as full:
        answer = full.stow(files[:2])

        assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
        assert failures(answer.json(), "00081198") == [0xA700, 0xA700]
        assert kept(full) == []


def test_an_instance_that_is_too_large_is_refused_and_the_next_is_kept(
    tmp_path: Path, files: list[bytes]
) -> None:
    long = files[0] + bytes(100_000)

    with http_node(tmp_path, instance_bytes=50_000, **KEEPS) as small:
        answer = small.stow([long, files[1]])

        assert answer.status_code == 202
        assert [data_set(one) for one in kept(small)] == [data_set(files[1])]


def test_a_large_instance_goes_to_the_disk_as_it_comes(running: HttpNode, files: list[bytes]) -> None:
    large = files[0] + bytes(20 << 20)

    answer = running.stow([large, files[1]])

    assert answer.status_code == 200
    assert sorted(map(len, map(data_set, kept(running)))) == sorted(
        map(len, map(data_set, [large, files[1]]))
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/dicom"}, 415),
        ({"Content-Type": "multipart/related"}, 415),
        ({"Content-Type": MULTIPART, "Accept": "text/html"}, 406),
    ],
)
def test_a_request_of_another_kind_is_refused(
    running: HttpNode, files: list[bytes], headers: dict[str, str], status: int
) -> None:
    answer = running.client.post("/dicom-web/studies", content=multipart(files[:1]), headers=headers)

    assert answer.status_code == status
    assert "expected" in answer.json()["error"]


def test_a_body_cut_short_keeps_what_was_whole_and_is_no_success(
    running: HttpNode, files: list[bytes]
) -> None:
    body = multipart(files[:2])[:-2000]

    answer = running.client.post("/dicom-web/studies", content=body, headers={"Content-Type": MULTIPART})

    assert answer.status_code == 400
    assert [data_set(one) for one in kept(running)] == [data_set(files[0])]


def test_a_sender_that_vanishes_leaves_nothing_half(running: HttpNode, files: list[bytes]) -> None:
    body = multipart(files[:2])
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MULTIPART}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"

    with socket.create_connection(("127.0.0.1", running.server.port)) as sender:
        sender.sendall(head.encode() + body[:-3000])
    answer = running.stow(files[2:3])

    assert answer.status_code == 200
    assert {data_set(one) for one in kept(running)} <= {data_set(one) for one in (files[0], files[2])}


@settings(max_examples=200, deadline=None)
@given(tail=st.binary(max_size=300))
def test_any_bytes_behind_dicm_are_read_or_refused(tail: bytes) -> None:
    try:
        head = read_head(bytes(128) + b"DICM" + tail)
    except Part10Error:
        return

    assert head.study_uid
