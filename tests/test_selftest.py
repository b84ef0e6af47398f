"""The self-test: a sound chain passes, and each planted fault is caught."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner

from medmllm_plugin import opening, pipeline, selftest, selftest_page
from medmllm_plugin.cli import medmllm
from medmllm_plugin.errors import SettingsError
from medmllm_plugin.geometry import RAS_FROM_LPS
from medmllm_plugin.models import Model, Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.phantoms import KINDS, Form
from medmllm_plugin.pipeline import Reading
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.verdicts import CHAIN
from medmllm_plugin.volume import Volume

SMALL: dict[str, Any] = {"slices": 16, "matrix": 96}


class SaysTheOtherSide:
    """A model whose left and right are exchanged on the way."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def replies(self, *arguments: Any, **named: Any) -> list[Reply]:
        return [self._swapped(reply) for reply in self._model.replies(*arguments, **named)]

    def _swapped(self, reply: Reply) -> Reply:
        swapped = reply.text.replace('"left"', '"?"').replace('"right"', '"left"').replace('"?"', '"right"')
        return replace(reply, text=swapped, token_texts=(), token_probabilities=(), token_alternatives=())


def a_silent_model(studies: int, **able: Any) -> ScriptedModel:
    """It sees nothing in so many studies."""
    reply = {"abnormal_pictures": [], "findings": [], "impression": ["Nothing."]}
    return ScriptedModel([reply] * studies, capabilities=replace(ANYTHING, plan={"size": 56}, **able))


def rows_flipped(volume: Volume) -> Volume:
    return replace(volume, read_plane=lambda k: volume.read_plane(k)[::-1], read_stored=lambda ks: None)


def columns_flipped(volume: Volume) -> Volume:
    return replace(volume, read_plane=lambda k: volume.read_plane(k)[:, ::-1], read_stored=lambda ks: None)


def order_reversed(volume: Volume) -> Volume:
    last = len(volume) - 1
    return replace(volume, read_plane=lambda k: volume.read_plane(last - k), read_stored=lambda ks: None)


def shifted_by_one_slice(volume: Volume) -> Volume:
    return replace(volume, read_plane=lambda k: volume.read_plane(max(k - 1, 0)), read_stored=lambda ks: None)


def in_ras(volume: Volume) -> Volume:
    planes = [
        one if one.to_patient is None else replace(one, to_patient=RAS_FROM_LPS @ one.to_patient)
        for one in volume.planes
    ]
    return replace(volume, planes=planes)


def noise_only(volume: Volume) -> Volume:
    shape = (volume.planes[0].rows, volume.planes[0].columns)
    noise = np.random.default_rng(0).normal(0, 300, shape).astype(np.float32)
    return replace(volume, read_plane=lambda k: noise, read_stored=lambda ks: None)


def chain_with(fault: Callable[[Volume], Volume]) -> selftest.Read:
    """The real chain, but what it reads has the fault."""

    def read(folder: Path, model: Model) -> Reading:
        def faulty(*arguments: Any, **named: Any) -> Volume:
            return fault(read_volume(*arguments, **named))

        with mock.patch.object(opening, "read_volume", faulty):
            return pipeline.read(folder, model=model)

    return read


def sides_swapped(folder: Path, model: Model) -> Reading:
    return pipeline.read(folder, model=SaysTheOtherSide(model))  # type: ignore[arg-type]


def below(result: selftest.SelfTest) -> set[str]:
    """Measures of the chain that are below their bars."""
    return {one.key for one in result.verdicts if one.reader == CHAIN and not one.passed}


FAULTS = {
    "rows flipped": (chain_with(rows_flipped), {"edge", "place"}),
    "columns flipped": (chain_with(columns_flipped), {"side", "edge", "place"}),
    "slice order reversed": (chain_with(order_reversed), {"image", "place"}),
    "shifted by one slice": (chain_with(shifted_by_one_slice), {"image", "place"}),
    "RAS for LPS": (chain_with(in_ras), {"side", "differing"}),
    "side letters swapped": (sides_swapped, {"side"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_chain_passes_to_the_pixel(kind: str) -> None:
    result = selftest.run(model="truth", kinds=[kind], studies=2, **SMALL if kind != "xr-chest" else {})

    assert result.passed, list(result.lines())
    assert [one.failure for one in result.outcomes] == ["", ""]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_by_the_reader_that_knows(fault: str) -> None:
    read, expected = FAULTS[fault]

    result = selftest.run(model="truth", kinds=["ct-chest"], studies=4, read=read, **SMALL)

    assert not result.passed
    assert expected <= below(result)


@pytest.mark.parametrize("fault", ["columns flipped", "side letters swapped"])
def test_left_and_right_of_a_film_are_watched_too(fault: str) -> None:
    read, _ = FAULTS[fault]

    result = selftest.run(model="truth", kinds=["xr-chest"], studies=4, matrix=256, read=read)

    assert "side" in below(result)


def test_a_picture_that_shows_no_phantom_is_a_reading_that_failed() -> None:
    result = selftest.run(model="truth", kinds=["ct-chest"], studies=1, read=chain_with(noise_only), **SMALL)

    assert "failed" in below(result)
    assert "like no image of the phantom" in result.outcomes[0].failure
    assert result.to_json()["failures"][0]["why"] == result.outcomes[0].failure


def another_study(volume: Volume) -> Volume:
    headers = [copy(one) for one in volume.headers]
    for one in headers:
        one.StudyInstanceUID = "2.25.1"
    return replace(volume, headers=headers, study=replace(volume.study, study_instance_uid="2.25.1"))


def test_a_report_on_another_study_is_a_reading_that_failed() -> None:
    result = selftest.run(
        model="truth", kinds=["mr-brain"], studies=1, read=chain_with(another_study), **SMALL
    )

    assert "failed" in below(result)
    assert "mixes up studies" in result.outcomes[0].failure


def test_a_defect_of_the_chain_is_told_and_does_not_end_the_test() -> None:
    def broken(folder: Path, model: Model) -> Reading:
        raise KeyError("PixelData")

    result = selftest.run(model="truth", kinds=["mr-brain"], studies=2, read=broken, **SMALL)

    assert [one.failure for one in result.outcomes] == ["KeyError: 'PixelData'"] * 2


def test_both_readers_read_each_phantom_and_every_other_one_is_multi_frame() -> None:
    result = selftest.run(model=a_silent_model(3), kinds=["ct-head"], studies=3, **SMALL)

    assert [one.reader for one in result.outcomes] == ["truth", "scripted"] * 3
    assert [one.case.form for one in result.outcomes[::2]] == [Form.SERIES, Form.ENHANCED, Form.SERIES]
    assert [one.case.seed - selftest.FIRST_SEED for one in result.outcomes[::2]] == [0, 1, 2]
    assert len({tuple(pair.true for pair in one.comparison.pairs) for one in result.outcomes}) > 1


def test_a_model_without_figures_is_judged_only_if_asked_to_be() -> None:
    asked: dict[str, Any] = {"studies": 2, "kinds": ["ct-head"], **SMALL}

    free = selftest.run(model=a_silent_model(2), **asked)
    strict = selftest.run(model=a_silent_model(2), strict=True, **asked)

    assert free.passed
    assert {one.judgement for one in free.verdicts if one.key == "f1" and one.reader == "scripted"} == {
        "not judged"
    }
    assert not strict.passed


def test_a_model_is_held_to_what_its_card_says() -> None:
    silent = a_silent_model(6, measured={"ct-head": {"f1": 0.9, "false": 0.02}})

    result = selftest.run(model=silent, kinds=["ct-head"], studies=6, **SMALL)

    assert {one.key for one in result.verdicts if not one.passed} == {"f1"}


def test_kinds_are_those_that_the_model_reads() -> None:
    nothing = ScriptedModel([], outside="Made for nothing.", name="mine")

    with pytest.raises(SettingsError, match="mine reads no kind of phantom: Made for nothing"):
        selftest.run(model=nothing, studies=1)
    with pytest.raises(SettingsError, match="mine doesn't read all of these kinds: Made for nothing"):
        selftest.run(model=nothing, kinds=["ct-head"], studies=1)
    with pytest.raises(SettingsError, match="no phantom is of kind 'ct-toe'"):
        selftest.run(model="truth", kinds=["ct-toe"], studies=1)
    with pytest.raises(SettingsError, match="phantoms from seed"):
        selftest.run(model="truth", seed=10**16, studies=1)


def test_several_processes_say_what_one_does() -> None:
    asked: dict[str, Any] = {"model": "truth", "kinds": ["mr-brain"], "studies": 2, **SMALL}

    alone = selftest.run(**asked)
    together = selftest.run(jobs=2, **asked)

    assert [one.comparison for one in together.outcomes] == [one.comparison for one in alone.outcomes]
    assert together.verdicts == alone.verdicts


def test_the_shipped_model_passes_with_nothing_planted_and_not_with_columns_flipped() -> None:
    pytest.importorskip("torch")
    sound = selftest.run(studies=8, kinds=["ct-chest"])

    flipped = selftest.run(studies=8, kinds=["ct-chest"], read=chain_with(columns_flipped))

    assert sound.passed, list(sound.lines())
    assert "side" in {one.key for one in flipped.verdicts if one.reader == "embedded" and not one.passed}


def test_the_page_shows_the_misses_with_both_boxes() -> None:
    result = selftest.run(
        model="truth", kinds=["ct-chest"], studies=3, read=chain_with(shifted_by_one_slice), **SMALL
    )

    page = selftest_page.render(result)

    assert "The chain is at fault" in page
    assert "BELOW THE BAR" in page
    assert "its box is on another image" in page
    sound = selftest.run(model="truth", kinds=["ct-chest"], studies=3, **SMALL)
    assert "The self-test passed" in selftest_page.render(sound)
    assert "Misses" not in selftest_page.render(sound)


def test_a_missed_and_a_false_finding_are_pictured() -> None:
    result = selftest.run(
        model="truth", kinds=["ct-chest"], studies=4, read=chain_with(rows_flipped), **SMALL
    )

    page = selftest_page.render(result)

    assert page.count('rect class="truth"') >= 1
    assert page.count('rect class="said"') >= 1
    assert "medmllm phantom OUT_DIR --kind ct-chest --seed 22000000" in page
    assert "<script" not in page


def test_the_command_prints_writes_and_exits_by_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["selftest", "--model", "truth", "--kind", "mr-brain", "-n", "1"]

    passed = CliRunner().invoke(medmllm, [*asked, "-o", str(tmp_path / "out")])

    assert passed.exit_code == 0, passed.output
    assert "Self-test passed: 1 phantoms; mr-brain" in passed.stdout
    content = json.loads((tmp_path / "out" / "selftest.json").read_text("utf-8"))
    assert (content["schema"], content["passed"]) == ("medmllm-selftest/1", True)
    assert (tmp_path / "out" / "selftest.html").is_file()
    monkeypatch.setattr(opening, "read_volume", lambda *a, **n: order_reversed(read_volume(*a, **n)))
    failed = CliRunner().invoke(medmllm, [*asked, "-n", "3", "--json"])
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["passed"] is False
