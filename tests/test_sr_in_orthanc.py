"""Structured reports stored in and served by a real Orthanc."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, text_sr
from tests.sr_in_viewers import (
    CASES,
)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """An Orthanc on the loopback interface only; its DICOM and its HTTP port."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None:
        pytest.skip("Orthanc is not installed (Debian orthanc)")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, without which Orthanc would listen to the network")
    folder = tmp_path_factory.mktemp("orthanc")
    _build_loopback(compiler, folder)
    dicom, http = _free_port(), _free_port()
    settings = {
        "Name": "Test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "HttpPort": http, "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "TcpNoDelay": True,
        "DicomAet": "PACS", "DicomPort": dicom, "DicomCheckCalledAet": False, "DicomAlwaysAllowStore": True,
        "Plugins": [],
    }  # fmt: skip
    (folder / "db").mkdir()
    (folder / "orthanc.json").write_text(json.dumps(settings))
    environment = {**os.environ, "LD_PRELOAD": str(folder / "loopback.so"), "TCP_NODELAY": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(folder / "orthanc.json")], env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(http, process)
            yield dicom, http
        finally:
            process.terminate()
            process.wait(20)


def _build_loopback(compiler: str, folder: Path) -> None:
    """A library that lets a program bind to the loopback address where it asks for all addresses."""
    source = folder / "loopback.c"
    source.write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <netinet/in.h>\n#include <sys/socket.h>\n"
        "int bind(int fd, const struct sockaddr *address, socklen_t size) {\n"
        '  int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");\n'
        "  struct sockaddr_in local;\n"
        "  if (address == 0 || address->sa_family != AF_INET) return real(fd, address, size);\n"
        "  local = *(const struct sockaddr_in *)address;\n"
        "  if (local.sin_addr.s_addr == INADDR_ANY) local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);\n"
        "  return real(fd, (struct sockaddr *)&local, sizeof local);\n}\n"
    )
    library = folder / "loopback.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            _get(port, "/system")
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("Orthanc did not start")


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return bytes(answer.read())


def test_orthanc_stores_our_srs_and_gives_them_back_whole(orthanc: tuple[int, int]) -> None:
    from pynetdicom import AE

    dicom, http = orthanc
    case = CASES["three findings"]
    srs = [findings_sr(case.report, case.headers), text_sr(case.report, case.headers)]
    client = AE("TEST")
    for sr in srs:
        client.add_requested_context(sr.SOPClassUID)

    association = client.associate("127.0.0.1", dicom, ae_title="PACS")
    statuses = [association.send_c_store(sr).Status for sr in srs]
    association.release()

    assert statuses == [0x0000, 0x0000]
    for sr in srs:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{http}/tools/lookup", data=sr.SOPInstanceUID.encode(), method="POST"
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            (found,) = json.loads(answer.read())
        back = pydicom.dcmread(pydicom.filebase.DicomBytesIO(_get(http, f"{found['Path']}/file")))
        assert back == sr
        assert json.loads(_get(http, f"{found['Path']}/simplified-tags"))["VerificationFlag"] == "UNVERIFIED"
    series = [json.loads(_get(http, f"/series/{one}")) for one in json.loads(_get(http, "/series"))]
    assert sorted(one["MainDicomTags"]["SeriesNumber"] for one in series) == ["9001", "9002"]
