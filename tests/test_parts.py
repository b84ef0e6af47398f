"""The threads of a node take their turns, rest, wake, and end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.parts import Parts
from tests.chat_server import serving
from tests.node_runner import settings_for, wait_for


@pytest.fixture
def parts() -> Iterator[Parts]:
    made = Parts()
    yield made
    made.end()
    made.join()


def test_a_part_rests_until_it_is_woken(parts: Parts) -> None:
    turns: list[int] = []

    parts.begin("read", lambda: turns.append(1) or 60.0)
    parts.begin("send", lambda: turns.append(2) or 60.0)
    wait_for(lambda: sorted(turns) == [1, 2])
    parts.wake("read")
    wait_for(lambda: turns.count(1) == 2)
    parts.wake()
    wait_for(lambda: (turns.count(1), turns.count(2)) == (3, 2))


def test_a_turn_that_fails_is_followed_by_others(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = [OperationalError("select", {}, Exception("gone")), ValueError("a defect")]
    done = threading.Event()

    def turn() -> float:
        if errors:
            raise errors.pop(0)
        done.set()
        return 60.0

    part = parts.begin("read", turn)
    while not done.wait(0.02):
        part.woken.set()

    assert "the database can't be used now (OperationalError)" in caplog.text
    assert "a defect of ours" in caplog.text


def test_a_part_that_follows_another_waits_for_its_turn_to_end(parts: Parts) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def slow() -> float:
        begun.set()
        go_on.wait(10)
        return 0.0

    first = parts.begin("send", slow, at_end=lambda: order.append("first ended"))
    begun.wait(10)
    first.end()
    parts.begin("send", lambda: order.append("second") or 60.0, after=first)
    go_on.set()
    wait_for(lambda: len(order) == 2)

    assert order == ["first ended", "second"]


def test_a_part_begun_after_the_end_takes_no_turn() -> None:
    parts, turns = Parts(), list[int]()
    parts.end()

    parts.begin("read", lambda: turns.append(1) or 60.0)
    parts.join()

    assert turns == []


def test_an_idle_node_rests(tmp_path: Path) -> None:
    with serving(pictures=64) as server, Node(settings_for(tmp_path, model=f"chat:{server.url}")) as node:
        beats = [one for one in node._parts._parts if one.kind == "beat"]
        wait_for(lambda: not any(one.woken.is_set() for one in beats))
        node._regain()

        assert len(beats) == 3
        assert not any(one.woken.is_set() for one in beats)
