"""An engine that is down is waited for; a study with which it alone fails is left to a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from medmllm_plugin.dicom_bridge import worker
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.prompts import Prompt
from tests.battlefield import Senders
from tests.chat_server import NOTHING_FOUND, serving
from tests.node_runner import SENDER, one_in, send, settings_for, wait_for

pytestmark = pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")

QUICK = "?retries=0&backoff=0.01"


def times_begun(node: Node) -> int:
    """How often the one study of a node was begun."""
    (row,) = node.store.studies() or [None]
    return 0 if row is None else sum(one.get("to") == "reading" for one in node.store.events(row.study_uid))


def test_no_study_is_parked_by_an_engine_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_BEGUN", 4)
    with serving(pictures=64) as gone:
        port = int(gone.url.rpartition(":")[2])
    settings = settings_for(tmp_path, model=f"chat:{gone.url}{QUICK}", retry_max_s=0.01)

    with Node(settings) as node:
        send(node.port, Senders(tmp_path, []).made())
        wait_for(lambda: times_begun(node) > 6)
        with serving(pictures=64, port=port):
            row = wait_for(lambda: one_in(node.store, State.DELIVERED, State.PARKED))

    assert row.state is State.DELIVERED
    assert row.version == 1


def test_a_study_with_which_the_engine_breaks_off_is_parked_and_the_others_are_read(tmp_path: Path) -> None:
    senders, running = Senders(tmp_path, []), list[Node]()
    bad = senders.made()
    uid = next(iter(senders.content))

    def say(prompt: Prompt) -> str:
        if any(one.study_uid == uid for one in running[0].store.studies(State.READING)):
            raise ConnectionError("it breaks off")
        return NOTHING_FOUND

    with serving(pictures=64, say=say) as server:
        settings = settings_for(tmp_path, model=f"chat:{server.url}{QUICK}", retry_max_s=0.3)
        with Node(settings) as node:
            running.append(node)
            send(node.port, bad)
            wait_for(lambda: times_begun(node) > 4)
            waiting = one_in(node.store, State.COMPLETE, State.READING)
            for number in range(12):
                send(node.port, senders.made())
                wait_for(lambda read=number: len(node.store.studies(State.DELIVERED)) > read)
                if node.store.studies(State.PARKED):
                    break
            parked = node.store.studies(State.PARKED)

    assert waiting is not None
    assert [one.study_uid for one in parked] == [uid]
    assert "closed the connection" in parked[0].reason
