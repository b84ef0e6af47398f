"""C-FIND in the Study Root model: what is asked, and what comes back (PS3.4 C.6.2)."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
)

from medmllm_plugin.dicom_bridge.associating import Failure, named
from medmllm_plugin.dicom_bridge.node_settings import Peer
from medmllm_plugin.errors import DeliveryError, RetrieveError

MOST = 10_000
"""Results of one query; more are not waited for."""

_PENDING = (0xFF00, 0xFF01)


def query(level: str, keys: Mapping[str, str], returned: tuple[str, ...] = ()) -> Dataset:
    """An identifier.

    Args:
        level: Query/Retrieve Level (0008,0052), such as STUDY.
        keys: What it must match.
        returned: What is asked for besides.

    >>> query("STUDY", {"PatientID": "4711"}, ("StudyDate",)).QueryRetrieveLevel
    'STUDY'
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword in returned:
        setattr(identifier, keyword, None)
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def image_query(study_uid: str, series_uid: str, sop_instance_uid: str = "") -> Dataset:
    """The identifier that asks for one instance, or for all of a series."""
    keys = {
        "StudyInstanceUID": study_uid,
        "SeriesInstanceUID": series_uid,
        "SOPInstanceUID": sop_instance_uid,
    }
    return query("IMAGE", keys, ("SOPClassUID",))


def results(association: Association, identifier: Dataset, *, failure: Failure, peer: Peer) -> list[Dataset]:
    """All that a peer finds.

    Raises:
        DeliveryError, RetrieveError: Which of them `failure` says, if it can't be asked or breaks off.
    """
    found: list[Dataset] = []
    try:
        for status, one in association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind):
            code = status.get("Status")
            if code in _PENDING:
                if one is not None:
                    found.append(one)
                if len(found) > MOST:
                    raise failure(f"{named(peer)}: found more than {MOST} results; ask for less", retry=False)
            elif code != 0x0000:
                raise _failed(failure, peer, None if code is None else f"the status {code:#06x}")
    except (RuntimeError, OSError, ValueError) as error:
        raise _failed(failure, peer, None) from error
    return found


def _failed(failure: Failure, peer: Peer, found: str | None) -> DeliveryError | RetrieveError:
    return failure(
        f"{named(peer)}: the query failed, found {found or 'no answer'}; try again later", retry=True
    )
