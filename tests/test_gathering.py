"""Threads that ask at the same time are answered together, and each as if alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin import registry
from medmllm_plugin.dicom_bridge.node import Node
from medmllm_plugin.dicom_bridge.states import State
from medmllm_plugin.errors import CancelledError, ModelError
from medmllm_plugin.models import Ask, Cancel, Progress, Reply
from medmllm_plugin.models.gathering import Gathering, gathered
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.models.transformers import TransformersModel, open_model
from medmllm_plugin.prompts import Prompt, TextPart
from medmllm_plugin.report import Report
from tests.node_runner import SENDER, a_study, send, settings_for, wait_for
from tests.tiny_model import tiny_folder


class Gate(ScriptedModel):
    """Says each prompt's own words, once it is let; a prompt that says `bad` fails its whole call."""

    def __init__(self) -> None:
        super().__init__([])
        self.open = threading.Event()
        self.entered = threading.Event()
        self.calls: list[list[str]] = []

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        said = [one.prompt.system for one in asks]
        self.calls.append(said)
        self.entered.set()
        while not self.open.wait(0.01):
            if cancel is not None and cancel():
                raise CancelledError("stopped")
        if "bad" in said:
            raise ModelError("a bad prompt")
        if progress is not None:
            progress(1, 1)
        return [Reply(text=one, seconds=0.0) for one in said]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def an_ask(words: str) -> Ask:
    return Ask(prompt=Prompt(system=words, parts=(TextPart(text=words),)), schema=None, max_tokens=8)


def queued(model: Gathering, count: int) -> None:
    wait_for(lambda: len(model._waiting) == count)


def test_those_who_ask_while_the_model_is_busy_are_put_together(
    gate: Gate, threads: ThreadPoolExecutor
) -> None:
    model = Gathering(gate)

    first = threads.submit(model.replies, [an_ask("one")])
    gate.entered.wait(10)
    others = [
        threads.submit(model.replies, [an_ask(one), an_ask(f"{one} again")]) for one in ("two", "three")
    ]
    queued(model, 2)
    gate.open.set()

    assert [one.text for one in first.result()] == ["one"]
    assert [[one.text for one in other.result()] for other in others] == [
        ["two", "two again"],
        ["three", "three again"],
    ]
    assert gate.calls[0] == ["one"]
    assert sorted(gate.calls[1]) == ["three", "three again", "two", "two again"]
    assert len(gate.calls) == 2


def test_one_that_fails_fails_alone(gate: Gate, threads: ThreadPoolExecutor) -> None:
    model = Gathering(gate)

    first = threads.submit(model.replies, [an_ask("one")])
    gate.entered.wait(10)
    bad = threads.submit(model.replies, [an_ask("bad")])
    queued(model, 1)
    good = threads.submit(model.replies, [an_ask("good")])
    queued(model, 2)
    gate.open.set()

    assert [one.text for one in good.result()] == ["good"]
    with pytest.raises(ModelError, match="a bad prompt"):
        bad.result()
    assert first.result()
    assert gate.calls[1:] == [["bad", "good"], ["bad"], ["good"]]


def test_one_who_stops_leaves_at_once_and_the_others_are_answered(
    gate: Gate, threads: ThreadPoolExecutor
) -> None:
    model, stop = Gathering(gate), threading.Event()

    first = threads.submit(model.replies, [an_ask("one")])
    gate.entered.wait(10)
    waiting = threads.submit(model.replies, [an_ask("two")], cancel=stop.is_set)
    queued(model, 1)
    stop.set()
    with pytest.raises(CancelledError):
        waiting.result(10)
    gate.open.set()

    assert [one.text for one in first.result()] == ["one"]


def test_a_call_that_nobody_waits_for_any_more_is_stopped(gate: Gate, threads: ThreadPoolExecutor) -> None:
    model, stop = Gathering(gate), threading.Event()

    only = threads.submit(model.replies, [an_ask("one")], cancel=stop.is_set)
    gate.entered.wait(10)
    stop.set()
    with pytest.raises(CancelledError):
        only.result(10)
    gate.open.set()
    after = model.replies([an_ask("two")])

    assert [one.text for one in after] == ["two"]


def test_one_stopped_by_its_progress_stops_nobody_else(gate: Gate, threads: ThreadPoolExecutor) -> None:
    model = Gathering(gate)

    def stop(done: int, most: int) -> None:
        raise CancelledError("stopped")

    first = threads.submit(model.replies, [an_ask("one")])
    gate.entered.wait(10)
    told: list[int] = []
    other = threads.submit(model.replies, [an_ask("two")], progress=lambda done, most: told.append(done))
    stopping = threads.submit(model.replies, [an_ask("three")], progress=stop)
    queued(model, 2)
    gate.open.set()

    assert [one.text for one in other.result()] == ["two"]
    assert told == [1]
    assert first.result()
    assert stopping.result() == [Reply(text="three", seconds=0.0)]


def test_only_models_that_are_quicker_together_are_gathered() -> None:
    scripted = ScriptedModel([])

    assert gathered(scripted) is scripted
    assert isinstance(gathered(open_model(str(tiny_folder()))), Gathering)


def together(monkeypatch: pytest.MonkeyPatch, studies: int) -> list[int]:
    """Has the model wait until so many studies are asked about; how many prompts each call has."""
    whole, sizes = TransformersModel.replies, list[int]()

    def replies(self: TransformersModel, asks: Sequence[Ask], **how: Any) -> list[Reply]:
        sizes.append(len(asks))
        if len(sizes) == 1:
            wait_for(lambda: len(gatherings[0]._waiting) == studies - 1)
        return whole(self, asks, **how)

    gatherings: list[Gathering] = []
    begun = Gathering.__init__

    def init(self: Gathering, model: Any) -> None:
        begun(self, model)
        gatherings.append(self)

    monkeypatch.setattr(TransformersModel, "replies", replies)
    monkeypatch.setattr(Gathering, "__init__", init)
    return sizes


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_studies_that_wait_are_read_in_one_call_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = (a_study(tmp_path / str(seed), seed=seed) for seed in (7, 8, 9))
    sizes = together(monkeypatch, 3)

    with Node(settings_for(tmp_path, reads_at_once=3)) as node:
        send(node.port, first)
        wait_for(lambda: sizes)  # the model is busy with it
        for study in others:
            send(node.port, study)
        done = wait_for(
            lambda: len(found := node.store.studies(State.DELIVERED, State.PARKED)) == 3 and found
        )

    assert [one.state for one in done] == [State.DELIVERED] * 3
    assert sizes == [1, 2]


Short = Callable[[int | None], list[int]]


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Short:
    """Has torch run out of memory on prompts of more than so many tokens, or on all."""
    import torch

    whole, lengths = TransformersModel._generated, list[int]()

    def most(tokens: int | None) -> list[int]:
        def generated(self: TransformersModel, rows: Sequence[Any], work: Any) -> list[Reply]:
            lengths.append(len(rows[0]))
            if tokens is None or len(rows[0]) > tokens:
                raise torch.OutOfMemoryError("no room on the device")
            return whole(self, rows, work)

        monkeypatch.setattr(TransformersModel, "_generated", generated)
        return lengths

    return most


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_a_study_too_large_for_the_memory_is_read_with_fewer_pictures(
    tmp_path: Path, short_of_memory: Short
) -> None:
    lengths = short_of_memory(200)

    with Node(settings_for(tmp_path)) as node:
        send(node.port, a_study(tmp_path / "study"))
        (study,) = wait_for(lambda: node.store.studies(State.DELIVERED, State.PARKED))
        row = node.jobs.report(study.study_uid, 1)

    assert study.state is State.DELIVERED, study.reason
    assert row is not None
    report = Report.from_json(json.loads((tmp_path / "node" / row.folder / "report.json").read_text("utf-8")))
    assert any("pictures were shown instead of" in note for note in report.notes), report.notes
    assert any("too little memory" in note for note in report.notes)
    assert min(lengths) < max(lengths)


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_a_study_that_no_memory_suffices_for_is_parked(tmp_path: Path, short_of_memory: Short) -> None:
    lengths = short_of_memory(None)

    with Node(settings_for(tmp_path, attempts=1)) as node:
        send(node.port, a_study(tmp_path / "study"))
        (study,) = wait_for(lambda: node.store.studies(State.DELIVERED, State.PARKED))

    assert study.state is State.PARKED
    assert "too little memory" in study.reason
    assert len(set(lengths)) == 3


@pytest.mark.skipif(SENDER is None, reason="storescu of dcmtk is not installed")
def test_a_device_that_failed_is_opened_again_and_the_study_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    whole, opened, failures = registry.open_model, list[str](), [torch.AcceleratorError("CUDA error: lost")]
    generated = TransformersModel._generated

    def failing(self: TransformersModel, rows: Sequence[Any], work: Any) -> list[Reply]:
        if failures:
            raise failures.pop()
        return generated(self, rows, work)

    def opening(name: str, **how: Any) -> Any:
        opened.append(name)
        return whole(name, **how)

    monkeypatch.setattr(TransformersModel, "_generated", failing)
    monkeypatch.setattr(registry, "open_model", opening)

    with Node(settings_for(tmp_path)) as node:
        send(node.port, a_study(tmp_path / "study"))
        (study,) = wait_for(lambda: node.store.studies(State.DELIVERED, State.PARKED))
        reasons = [one.get("reason", "") for one in node.store.events(study.study_uid)]

    assert study.state is State.DELIVERED, study.reason
    assert opened == ["embedded", "embedded"]
    assert any("the device cpu failed (CUDA error: lost)" in one for one in reasons)
