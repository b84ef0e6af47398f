"""What we put in the place of pynetdicom's own, and what we use of it undocumented, is as we know it.

A newer pynetdicom fails here first. Then see what changed, whether the mend is still needed and still fits,
and write the new digest down.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from types import ModuleType

import pynetdicom
import pytest
from pynetdicom import _config, association, dimse, dul, timer, transport
from pynetdicom.transport import ThreadedAssociationServer

from medmllm_plugin.dicom_bridge import associating, mends

MENDED = {
    (association, "Association", "run_reactor"): "dd6a6e925ce80511",
    (transport, "AssociationSocket", "_shutdown_socket"): "2fa75523096901cf",
    (transport, "AssociationSocket", "recv"): "cad35d2f220613a5",
    (dimse, "DIMSEServiceProvider", "get_msg"): "1d0eb59a1b3d15d0",
    (dimse, "DIMSEServiceProvider", "receive_primitive"): "3753d6790c54425c",
    (dul, "DULServiceProvider", "run_reactor"): "7afc57a60113e791",
}
"""Methods that ours stand in the place of, with a digest of what pynetdicom 3.0.4 has there."""

USED = {
    (transport, "AssociationServer", "process_request"): "b93da56272d541b9",
    (timer, "Timer", "remaining"): "1f3d89e93441f634",
    (association, "Association", "send_c_store"): "d076e671fa48f44e",
}
"""Methods that we hand connections and files to, in ways that only their source shows."""


def digest(module: ModuleType, name: str, method: str) -> str:
    """Of what a method does: its source without comments, blank lines and docstrings."""
    tree = ast.parse(inspect.getsource(module))
    (found,) = [one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name]
    (body,) = [one for one in found.body if isinstance(one, ast.FunctionDef) and one.name == method]
    if ast.get_docstring(body) is not None:
        del body.body[0]
    return hashlib.sha256(ast.unparse(body).encode()).hexdigest()[:16]


@pytest.mark.parametrize(("place", "known"), [*MENDED.items(), *USED.items()], ids=lambda one: str(one)[-40:])
def test_their_methods_are_those_that_we_know(place: tuple[ModuleType, str, str], known: str) -> None:
    assert digest(*place) == known, f"{'.'.join(place[1:])} of pynetdicom {pynetdicom.__version__} is another"


def test_ours_stand_in_their_place() -> None:
    mends.mend()

    ours = [getattr(getattr(module, name), method) for module, name, method in MENDED]
    assert {one.__module__ for one in ours} == {mends.__name__}
    assert len(MENDED) + 1 == inspect.getsource(mends.mend).count(" = "), (
        "the clock of timers is the other one"
    )


def test_files_are_sent_in_pieces_and_servers_give_their_associations() -> None:
    assert associating._config.STORE_SEND_CHUNKED_DATASET is True
    assert "STORE_SEND_CHUNKED_DATASET" in inspect.getsource(_config)
    assert "STORE_SEND_CHUNKED_DATASET" in inspect.getsource(association)
    assert isinstance(ThreadedAssociationServer.active_associations, property)
