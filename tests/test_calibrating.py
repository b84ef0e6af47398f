"""Calibrating a model: phantoms are read, odds are fitted on some and judged on others, and a run goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from medmllm_plugin import calibrating, calibrating_page, registry
from medmllm_plugin.calibrating import CHECK_SEED, FIRST_SEED, Calibrated, Case, Count, read_phantom, run
from medmllm_plugin.calibration import Calibration
from medmllm_plugin.cli import medmllm
from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models import Ask, Cancel, Model, Progress, Reply
from medmllm_plugin.models.scripted import ANYTHING, ScriptedModel
from medmllm_plugin.phantoms.study import PhantomStudy, sample_study
from tests.values import a_said_finding, a_said_reply


class Guesser(ScriptedModel):
    """Says the same finding of every study, as sure as the brightness of the pictures makes it."""

    def __init__(self, finding: str = "pleural_effusion", *, probabilities: bool = True) -> None:
        able = replace(ANYTHING, probabilities=probabilities, plan={"count": 4, "size": 56, "window": "ct"})
        super().__init__([], capabilities=able)
        self._said = a_said_finding(finding=finding, site="pleura")

    def replies(
        self, asks: Sequence[Ask], *, progress: Progress | None = None, cancel: Cancel | None = None
    ) -> list[Reply]:
        self.asked += asks
        return [self._reply(ask) for ask in asks]

    def _reply(self, ask: Ask) -> Reply:
        text = json.dumps(a_said_reply(self._said))
        score = 0.6 + 0.3 * (float(np.mean([one.pixels.mean() for one in ask.prompt.pictures])) % 1)
        at = text.index(self._said["finding"])
        return Reply(
            text=text,
            seconds=0.1,
            token_texts=(text[:at], text[at:]),
            token_probabilities=(1.0, round(score, 3)),
        )


def a_run(record: Path | None = None, *, evidence: bool = False) -> Calibrated:
    return run(Guesser(), kinds=["ct-chest"], studies=8, evidence=evidence, record=record)


@pytest.fixture(scope="module")
def plain() -> Calibrated:
    """Without the evidence pass."""
    return a_run()


@pytest.fixture(scope="module")
def tried() -> Calibrated:
    """With it."""
    return a_run(evidence=True)


def test_what_is_there_counts_as_right_and_what_is_not_as_wrong() -> None:
    studies = [sample_study(seed=7, findings=findings) for findings in (("pleural_effusion",), ("nodule",))]

    cases = [read_phantom(study, Guesser(), evidence=False) for study in studies]

    assert [[one.right for one in case.found] for case in cases] == [[True], [False]]
    assert all(0.6 <= one.score <= 0.9 for case in cases for one in case.found)


def test_odds_are_fitted_and_judged_on_different_phantoms(plain: Calibrated) -> None:
    assert [case.seed for case in plain.fitted] == [*range(FIRST_SEED, FIRST_SEED + 8)]
    assert [case.seed for case in plain.judged] == [*range(CHECK_SEED, CHECK_SEED + 4)]
    assert set(plain.calibration.plain.findings) == {"pleural_effusion"}
    assert "8 synthetic phantoms (ct-chest), 8 findings" in plain.calibration.basis


def test_a_run_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = tmp_path / "record"
    whole = a_run(record)
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    record.write_text("".join(lines[:9]) + lines[9][:20], encoding="utf-8")
    read: list[int] = []

    def counted(study: PhantomStudy, model: Model, *, evidence: bool) -> Case:
        read.append(study.seed)
        return read_phantom(study, model, evidence=evidence)

    monkeypatch.setattr(calibrating, "read_phantom", counted)
    again = a_run(record)

    assert read == [*range(CHECK_SEED, CHECK_SEED + 4)]
    assert again.to_json() == whole.to_json()


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.write_text('{"model": "another"}\n', encoding="utf-8")

    with pytest.raises(SettingsError, match="a record of another run"):
        a_run(record)


def test_a_model_that_tells_no_probabilities_is_refused() -> None:
    with pytest.raises(SettingsError, match="tells no probabilities"):
        run(Guesser(probabilities=False), kinds=["ct-chest"])


def test_a_model_that_is_never_right_cannot_be_calibrated() -> None:
    with pytest.raises(ModelError, match="none is right, or none is wrong; read more phantoms: -n"):
        run(Guesser("pneumothorax"), kinds=["ct-chest"], studies=2, evidence=False)


def test_the_evidence_pass_marks_what_is_said_without_looking(tried: Calibrated) -> None:
    shares = {one.words: one for one in tried.shares()}

    found = [one for case in (*tried.fitted, *tried.judged) for one in case.found]
    false = sum(not one.right for case in tried.judged for one in case.found)
    assert {one.supported for one in found} == {False}
    assert shares["not image-supported"].false == Count(count=false, of=false)
    assert shares["on the same side then"].false == Count(count=false, of=false)
    assert tried.calibration.tried is not None


def test_figures_and_shares_are_told_and_written(tried: Calibrated) -> None:
    content, lines = tried.to_json(), list(tried.lines())

    assert [one["words"] for one in content["figures"]] == [
        "calibration error (ECE, 10 bins)",
        "squared error (Brier)",
        "right above wrong (AUC)",
    ]
    assert content["calibration"] == tried.calibration.to_json()
    assert lines[1:3] == [
        "  fitted on 8 findings of 8 phantoms",
        "  judged on 4 findings of 4 others; 95 % intervals over phantoms",
    ]


def test_the_page_shows_a_diagram_for_each_kind_of_certainty(plain: Calibrated, tried: Calibrated) -> None:
    pages = [calibrating_page.render(one) for one in (plain, tried)]

    assert [page.count("<svg") for page in pages] == [2, 3]
    assert all("pleural effusion" in page for page in pages)


def test_the_embedded_model_is_measured_with_its_evidence_pass() -> None:
    model = registry.open_model("embedded")

    case = read_phantom(sample_study(seed=500_003, findings=("pleural_effusion",)), model, evidence=True)

    (one,) = case.found
    assert (one.finding, one.right, one.supported) == ("pleural_effusion", True, True)
    assert len(one.trials) == 5


def command(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(medmllm, ["calibrate", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command_writes_a_calibration_that_loads_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "open_model", lambda name: Guesser())
    out = tmp_path / "calibration.json"

    code, output = command("-n", 8, "--kind", "ct-chest", "--no-evidence", "--abstain", 0.3, "-o", out)

    assert code == 0, output
    assert Calibration.load(out).abstain_below == 0.3
    assert "Written to" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calibration.html", "calibration.json"]


def test_the_command_tells_programs_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "open_model", lambda name: Guesser())
    out = tmp_path / "calibration.json"

    code, output = command("-n", 8, "--kind", "ct-chest", "--no-evidence", "-o", out, "--json")

    content = json.loads(output)
    assert code == 0
    assert content["calibration"] == json.loads(out.read_text(encoding="utf-8"))
    assert (content["fitted"], content["judged"]) == (8, 4)


def test_the_command_writes_over_a_calibration_but_over_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "notes.json"
    out.write_text("{}", encoding="utf-8")

    code, output = command("-o", out)

    assert code == 2
    assert "is no calibration" in output
    assert out.read_text(encoding="utf-8") == "{}"


@pytest.mark.parametrize("name", ["calibration.html", "nowhere/calibration.json"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    code, output = command("-o", tmp_path / name)

    assert code == 2
    assert "name another -o" in output or "expected one for the calibration" in output
