"""`medmllm eval clinical`: two reports in, an account that can be followed out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from medmllm_plugin.cli import medmllm
from medmllm_plugin.report import Outcome
from tests.sr_reports import a_report, an_effusion
from tests.values import an_image

REFERENCE = "FINDINGS: Small left effusion. The heart is mildly enlarged. Patient rotated.\nNo pneumothorax."
CANDIDATE = "Small right effusion. Consolidation & <b>pneumonia</b> in the left lower lobe."


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "reference.txt", tmp_path / "candidate.txt"
    for path, text in zip(paths, (REFERENCE, CANDIDATE), strict=True):
        path.write_text(text, "utf-8")
    return paths


def run(*arguments: object) -> Result:
    return CliRunner().invoke(medmllm, ["eval", "clinical", *map(str, arguments)])


def test_the_account_quotes_both_texts(texts: tuple[Path, Path]) -> None:
    done = run(*texts)

    assert done.exit_code == 0, done.output
    assert "wrong side: pleural effusion, left pleura: left against right" in done.output
    assert 'reference: "Small left effusion"' in done.output
    assert 'candidate: "Small right effusion"' in done.output
    assert "[1: effusion]" in done.output


def test_machines_get_json(texts: tuple[Path, Path]) -> None:
    content = json.loads(run(*texts, "--json").output)

    assert content["score"] < 0
    assert content["counts"]["wrong_side"] == 1
    low, high = content["points"][0]["reference"]["span"]
    assert REFERENCE[low:high] == "effusion"


def test_the_page_marks_both_texts_and_what_was_not_understood(
    texts: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "compared.html"

    done = run(*texts, "--html", page)

    content = page.read_text("utf-8")
    assert done.exit_code == 0, done.output
    assert '<mark class="part"><sup>1</sup>effusion</mark>' in content
    assert '<span class="unread">Patient rotated</span>' in content
    assert "&lt;b&gt;" in content
    assert "<b>pneumonia</b>" not in content


def test_a_report_of_ours_can_be_judged(texts: tuple[Path, Path], tmp_path: Path) -> None:
    coded = tmp_path / "report.json"
    coded.write_text(a_report(an_effusion(an_image())).to_text(), "utf-8")

    done = run(texts[0], coded, "--html", tmp_path / "page.html")

    assert done.exit_code == 0, done.output
    assert 'candidate: "Small left pleural effusion."' in done.output


def test_an_abstention_is_judged_as_nothing_said(texts: tuple[Path, Path], tmp_path: Path) -> None:
    coded = tmp_path / "report.json"
    coded.write_text(a_report(outcome=Outcome.OUTSIDE_DOMAIN).to_text(), "utf-8")

    assert json.loads(run(texts[0], coded, "--json").output)["score"] == 0.0


@pytest.mark.parametrize(
    ("name", "content"), [("none.txt", None), ("bad.json", b"{}"), ("bad.txt", b"\xff\xfe\x00")]
)
def test_what_is_no_report_is_refused_in_a_line(
    texts: tuple[Path, Path], tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    done = run(texts[0], path)

    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1
    assert "expected" in done.output


def test_a_page_that_cannot_be_written_is_told(texts: tuple[Path, Path], tmp_path: Path) -> None:
    done = run(*texts, "--html", tmp_path / "nowhere" / "page.html")

    assert done.exit_code == 4
    assert "--html" in done.output
