"""Receivers to be timed, each a process of its own. Run as a module, this is one of those in Python."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
ENV = {**os.environ, "TCP_NODELAY": "1"}
"""dcmtk, and Orthanc which is built on it, wait 40 ms for each instance without that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Receiver:
    """Somebody who receives."""

    name: str
    durable: str
    """What an instance outlives once it is acknowledged."""
    command: Callable[[int, Path], list[str]]
    """Given a port and an empty folder."""
    there: bool = True
    """Whether it is installed."""
    slow: int = 0
    """1: timed once with four associations; 2: once, with one association only."""


def receivers(router: str | None) -> list[Receiver]:
    """All of them.

    Args:
        router: A Python that has dicom-ai-router 0.3.0, with its own dependencies; None to leave it out.
    """
    orthanc = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    storescp = shutil.which("storescp")
    process, power = "its process", "power cut"
    return [
        Receiver(name=OURS, durable=power, command=_python("ours", "power", "plain")),
        Receiver(name=QUICK, durable=process, command=_python("ours", "process", "plain")),
        Receiver(name=STORESCP, durable=process, command=_storescp(storescp), there=storescp is not None),
        Receiver(name=NODE, durable=power, command=_python("ours", "power", "indexed"), slow=1),
        Receiver(name=ORTHANC, durable=process, command=_orthanc(orthanc), there=orthanc is not None, slow=1),
        Receiver(name=RAW, durable=process, command=_python("pynetdicom", "raw"), slow=1),
        Receiver(name=NAIVE, durable=process, command=_python("pynetdicom", "naive"), slow=2),
        Receiver(name=ROUTER, durable=process, command=_router(router), there=router is not None, slow=2),
    ]


OURS, QUICK = "ours", "ours, durability = process"
NODE = "ours, with the node's index"
STORESCP, ORTHANC = "dcmtk storescp", "Orthanc"
RAW, NAIVE = "pynetdicom, bytes as they came", "pynetdicom, as its documentation shows"
ROUTER = "dicom-ai-router 0.3.0"


@contextmanager
def running(receiver: Receiver, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Its port and process, while it runs in an empty folder, which is removed afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        port = int(found.getsockname()[1])
    with (folder.parent / "receiver.log").open("wb") as log:
        process = subprocess.Popen(
            receiver.command(port, folder),
            env=ENV,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        _wait_for(port, process)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and all that it began."""
    times = [process.cpu_times(), *(one.cpu_times() for one in process.children(recursive=True))]
    own = sum(one.user + one.system for one in times)
    return float(own + times[0].children_user + times[0].children_system)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"it never listened: {process.args}") from None
            time.sleep(0.02)
    time.sleep(0.3)


def _python(*arguments: str) -> Callable[[int, Path], list[str]]:
    return lambda port, folder: [
        sys.executable, "-m", "benchmarks.receivers", str(port), str(folder), *arguments,
    ]  # fmt: skip


def _storescp(program: str | None) -> Callable[[int, Path], list[str]]:
    return lambda port, folder: [
        str(program),
        "--fork",
        "-pdu",
        "131072",
        "+B",
        "-od",
        str(folder),
        str(port),
    ]


def _orthanc(program: str | None) -> Callable[[int, Path], list[str]]:
    def command(port: int, folder: Path) -> list[str]:
        settings = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpServerEnabled": False,
            "DicomPort": port,
            "DicomCheckCalledAet": False,
            "DicomAlwaysAllowStore": True,
            "OverwriteInstances": True,
            "Plugins": [],
        }
        path = folder / "orthanc.json"
        path.write_text(json.dumps(settings))
        return [str(program), str(path)]

    return command


def _router(python: str | None) -> Callable[[int, Path], list[str]]:
    def command(port: int, folder: Path) -> list[str]:
        settings = {
            "router": {
                "ae_title": "ANY", "port": port, "study_quiet_seconds": 3600, "workers": 1,
                "workdir": str(folder), "bind_address": "127.0.0.1",
            },
            "pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 1},
            "ai_endpoints": {}, "rules": [], "deid": {"salt": os.urandom(32).hex()},
        }  # fmt: skip
        path = folder / "router.yaml"
        path.write_text(json.dumps(settings))  # JSON is YAML
        return [str(python), "-m", "airouter", "serve", "--config", str(path)]

    return command


def _ours(port: int, folder: Path, durability: str, how: str) -> None:
    from medmllm_plugin.dicom_bridge.indexing import Indexer
    from medmllm_plugin.dicom_bridge.listener import Listener, Port
    from medmllm_plugin.dicom_bridge.negotiation import Admission
    from medmllm_plugin.dicom_bridge.spool import Durability, Spool
    from medmllm_plugin.dicom_bridge.store import Store
    from medmllm_plugin.dicom_bridge.tables import open_database

    spool = Spool(folder / "spool", durability=Durability(durability))
    indexer = None
    if how == "indexed":
        store = Store(open_database(str(folder / "node.sqlite")), salt=bytes(16))
        indexer = Indexer(store, folder / "spool", node="n")
    Listener(Port(port=port), Admission(ae_title="ANY"), spool, received=indexer or (lambda record: None))


def _pynetdicom(port: int, folder: Path, how: str) -> None:
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    def naive(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0

    def raw(event: evt.Event) -> int:
        (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        return 0

    ae = AE(ae_title="ANY")
    ae.supported_contexts = AllStoragePresentationContexts
    ae.maximum_pdu_size = 0
    handlers = [(evt.EVT_C_STORE, naive if how == "naive" else raw)]
    ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)


def main() -> None:
    """Be one receiver until the end."""
    port, folder, kind, *how = sys.argv[1:]
    {"ours": _ours, "pynetdicom": _pynetdicom}[kind](int(port), Path(folder), *how)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
