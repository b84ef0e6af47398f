"""A study from a PACS that gives by C-MOVE only: it sends to a port that we listen on for so long."""

from __future__ import annotations

import tempfile
from pathlib import Path

from medmllm_plugin.dicom_bridge.listener import Listener, Port
from medmllm_plugin.dicom_bridge.negotiation import Admission
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.dicom_bridge.retrieve.dimse import DimseArchive
from medmllm_plugin.dicom_bridge.retrieve.values import Came, file_in, require_whole
from medmllm_plugin.dicom_bridge.segments import Record, read_record
from medmllm_plugin.dicom_bridge.spool import Durability, Spool
from medmllm_plugin.errors import RetrieveError


def fetch_by_move(
    archive: DimseArchive, study_uid: str, folder: Path, *, listen: Peer, came: Came | None = None
) -> list[Path]:
    """Write a study into a folder that is there; see `Archive.fetch`.

    Args:
        archive: The PACS.
        study_uid: What to fetch.
        folder: Where to.
        listen: Our title, and where we listen; the PACS must know both.
        came: Told how many instances have come.

    Raises:
        RetrieveError: If it doesn't send all of it.
        SettingsError: If that port can't be listened on.
        OutputError: If it can't be written.
    """
    counted = archive.instance_count(study_uid)
    if counted == 0:
        raise RetrieveError(f"{archive.name}: found no such study; see its UID", retry=True)
    records: dict[str, Record] = {}

    def received(record: Record) -> None:
        records[record.facts.sop_instance_uid] = record
        if came is not None:
            came(len(records), counted)

    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as below:
        spool = Spool(Path(below), durability=Durability.PROCESS)
        port = Port(host=listen.host, port=listen.port)
        try:
            admission = Admission(ae_title=listen.ae_title, check_called_ae=True)
            listener = Listener(port, admission, spool, received=received)
            try:
                archive.move(study_uid, listen.ae_title)
            finally:
                listener.close()
        finally:
            spool.close()
        files = []
        for number, record in enumerate(records.values(), start=1):
            files.append(file_in(folder, number))
            files[-1].write_bytes(read_record(Path(below), record))
    require_whole(archive.name, study_uid, files, counted=counted)
    return files
