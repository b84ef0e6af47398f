"""A real PACS for tests: Orthanc in a process of its own, on loopback only."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from medmllm_plugin.dicom_bridge.node_settings import Peer

PROGRAM = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
COMPILER = shutil.which("cc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

needs_orthanc = pytest.mark.skipif(
    PROGRAM is None or COMPILER is None,
    reason="Orthanc, or a C compiler to hold it to loopback, is not installed",
)
needs_dicomweb = pytest.mark.skipif(
    PROGRAM is None or COMPILER is None or not PLUGIN.exists(),
    reason="Orthanc with its DICOMweb plugin, or a C compiler to hold it to loopback, is not installed",
)

_LOOPBACK = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* Orthanc binds to every address and can't be told otherwise; with this preloaded it binds to loopback. */
int bind(int fd, const struct sockaddr *address, socklen_t length) {
  int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
  struct sockaddr_in own;
  if (address == NULL || address->sa_family != AF_INET || length < sizeof own)
    return real(fd, address, length);
  memcpy(&own, address, sizeof own);
  if (own.sin_addr.s_addr == INADDR_ANY)
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return real(fd, (struct sockaddr *)&own, sizeof own);
}
"""


@dataclass
class Orthanc:
    """A running Orthanc."""

    folder: Path
    settings: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    @property
    def peer(self) -> Peer:
        return Peer(
            ae_title="PACS",
            host="127.0.0.1",
            port=self.settings["DicomPort"],
            commitment=True,
            web=f"{self.url}/dicom-web",
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['HttpPort']}"

    def instances(self) -> dict[str, bytes]:
        """All that it holds: files by SOP Instance UID."""
        found = {}
        with httpx2.Client(base_url=self.url, timeout=60.0) as client:
            for one in client.get("/instances").json():
                uid = client.get(f"/instances/{one}/content/0008,0018").text.rstrip("\0 ")
                found[uid] = client.get(f"/instances/{one}/file").content
        return found

    def clear(self) -> None:
        for one in httpx2.get(f"{self.url}/patients").json():
            httpx2.delete(f"{self.url}/patients/{one}")

    def start(self) -> None:
        (self.folder / "orthanc.json").write_text(json.dumps(self.settings), "utf-8")
        library = self.folder / "loopback.so"
        if not library.exists():
            source = self.folder / "loopback.c"
            source.write_text(_LOOPBACK, "utf-8")
            subprocess.run(
                [str(COMPILER), "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
            )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(PROGRAM), str(self.folder / "orthanc.json")],
                env={**os.environ, "LD_PRELOAD": str(library), "TCP_NODELAY": "1"},
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                if httpx2.get(f"{self.url}/system", timeout=1).status_code == 200:
                    return
            except httpx2.HTTPError:
                time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text("utf-8", "replace")[-2000:])

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)


@contextmanager
def orthanc(folder: Path, *, modalities: Mapping[str, Peer] | None = None) -> Iterator[Orthanc]:
    """An Orthanc with an empty database in the folder.

    Args:
        folder: Its own.
        modalities: Whom it knows, as it must for C-MOVE and for answers to storage commitment.
    """
    database = str(folder / "database")
    known = {
        name: {"AET": one.ae_title, "Host": one.host, "Port": one.port, "AllowStorageCommitment": True}
        for name, one in (modalities or {}).items()
    }
    settings = {
        "Name": "TestPACS",
        "StorageDirectory": database,
        "IndexDirectory": database,
        "Plugins": [str(PLUGIN)] if PLUGIN.exists() else [],
        "HttpServerEnabled": True,
        "HttpPort": free_port(),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "TcpNoDelay": True,
        "DicomServerEnabled": True,
        "DicomAet": "PACS",
        "DicomPort": free_port(),
        "DicomCheckCalledAet": True,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": True,
        "StableAge": 1,
        "DicomModalities": known,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    running = Orthanc(folder=folder, settings=settings)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
