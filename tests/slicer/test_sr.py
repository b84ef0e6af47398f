"""The verified SR that the extension writes is the one that the package writes, tree for tree, and legal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from MedMLLMLib import sr_read, sr_write
from MedMLLMLib.json_report import report_of_json
from MedMLLMLib.model import Report, Status
from MedMLLMLib.review import Box, Drafts, Review, Verdict, WrongEditError
from MedMLLMLib.sr_write import NotVerifiableError, Person
from pydicom import dcmread
from pydicom.dataset import Dataset
from service import ROOT, errors_of, run

WRITTEN = datetime(2026, 11, 22, 6, 30)
READER = Person(name="Müller^Eva", organization="Clinic")
LIB = ROOT / "slicer_module" / "MedMLLM"


@pytest.fixture
def report(made: Path) -> Report:
    return sr_read.report_of(sr_read.read_file(made / "axial" / "findings.sr"))


def tree(item: Dataset) -> list[Any]:
    """A content tree as plain values: every attribute of every item."""
    below = [tree(one) for one in item.get("ContentSequence", ())]
    own = [
        (one.keyword, str(one.value))
        for one in item
        if one.keyword not in ("ContentSequence", "ReferencedSOPSequence") and one.VR != "SQ"
    ]
    codes = [
        (keyword, [str(one.CodeValue) + str(one.CodeMeaning) for one in item[keyword].value])
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence")
        if keyword in item
    ]
    images = [str(one) for one in item.get("ReferencedSOPSequence", ())]
    numbers = [str(one) for one in item.get("MeasuredValueSequence", ())]
    return [own, codes, images, numbers, below]


def content(document: Dataset) -> list[Any]:
    """The tree of a document without what its header says."""
    root = Dataset()
    for keyword in ("ValueType", "ConceptNameCodeSequence", "ContentSequence", "ContinuityOfContent"):
        root[keyword] = document[keyword]
    return tree(root)


def decided(report: Report, which: str) -> Review:
    """Decisions of some kind on the three findings: a box, one without a place, one absent."""
    review = Review(report)
    nodule, effusion, absent = (one.key for one in report.findings)
    image = report.findings[0].images[0]
    if which == "accepted":
        for key in (nodule, effusion, absent):
            review.accept(key)
    elif which == "rejected":
        for key in (nodule, effusion, absent):
            review.reject(key)
    elif which == "meaning":
        review.edit(nodule, finding="mass", side="left", sentence="A mass, ≤ 16 mm.")
        review.edit(effusion, status=Status.INDETERMINATE, sentence="Perhaps an effusion.")
        review.edit(absent, status=Status.PRESENT, side="right", sentence="A pneumothorax.")
    elif which == "place":
        review.edit(nodule, box=Box(image=image, box=(1.25, 2.5, 30.0, 20.0), size_mm=20.1))
        review.accept(effusion)
        review.reject(absent)
    elif which == "words":
        review.edit(nodule, sentence="Solid nodule [calcified].")
        review.edit(effusion, site="fissure_of_lung", side="none", sentence="Fluid in the fissure.")
        review.accept(absent)
    elif which == "absent":
        review.edit(nodule, status=Status.ABSENT, sentence="No nodule.")
        review.reject(effusion)
        review.accept(absent)
    elif which == "box of the uncertain":
        box = Box(image=image, box=(1.0, 2.0, 9.0, 20.0), size_mm=14.0)
        review.edit(nodule, status=Status.INDETERMINATE, sentence="Nodule or vessel.", box=box)
        review.accept(effusion)
        review.accept(absent)
    return review


KINDS = ("accepted", "rejected", "meaning", "place", "words", "absent", "box of the uncertain")


@pytest.mark.parametrize("which", KINDS)
def test_it_says_what_the_package_says_and_is_legal(
    made: Path, report: Report, tmp_path: Path, which: str
) -> None:
    source = made / "axial" / "findings.sr"
    review = decided(report, which)
    said = {}
    for one in report.findings:
        decision = review.decision(one.key)
        said[one.key] = {"verdict": decision.verdict.value, **decision.changes}
        if decision.box is not None:
            box = decision.box
            said[one.key]["box"] = {
                "image": box.image.sop_instance_uid, "box": box.box, "size_mm": box.size_mm
            }  # fmt: skip
    (tmp_path / "decisions.json").write_text(json.dumps(said))
    theirs, ours = tmp_path / "theirs.dcm", tmp_path / "ours.dcm"
    run("-m", "tests.slicer.verify_both_ways", str(source), str(tmp_path / "decisions.json"), str(theirs))

    sr_write.save(sr_write.verified(sr_read.read_file(source), review, READER, written=WRITTEN), str(ours))

    one, other = dcmread(ours), dcmread(theirs)
    assert content(one) == content(other)
    identities = ("SOPInstanceUID", "SeriesInstanceUID")
    header = {each.keyword for each in other} - {"ContentSequence", *identities}
    assert {each.keyword for each in one} - {"ContentSequence", *identities} == header
    assert all(str(one[keyword].value) == str(other[keyword].value) for keyword in header)
    assert errors_of(ours) == 0


def test_the_package_shows_it_as_verified_by_its_own_reader(
    made: Path, report: Report, tmp_path: Path
) -> None:
    path = tmp_path / "ours.dcm"
    document = sr_read.read_file(made / "axial" / "findings.sr")
    sr_write.save(sr_write.verified(document, decided(report, "place"), READER, written=WRITTEN), str(path))

    said = run("-m", "medmllm_plugin", "sr", "show", str(path))

    assert "COMPLETE, VERIFIED, FINAL" in said
    assert "Verified by Müller^Eva, Clinic, 20261122063000" in said
    assert f"Follows document {report.uid}" in said


def test_images_of_an_earlier_study_are_no_evidence_and_no_place_of_a_finding(report: Report) -> None:
    shown = {image.sop_instance_uid for one in report.findings for image in one.images}

    assert not any("8.498.97" in uid for uid in shown)
    assert {series for series, _, _ in report.evidence} == {
        report.findings[0].images[0].sop_instance_uid[:-2]
    }


def test_the_same_decisions_give_the_same_instance_and_others_another(made: Path, report: Report) -> None:
    document = sr_read.read_file(made / "axial" / "findings.sr")

    uids = {
        str(sr_write.verified(document, decided(report, which), READER, written=WRITTEN).SOPInstanceUID)
        for which in ("accepted", "accepted", "rejected", "place")
    }

    assert len(uids) == 3


def test_it_is_written_by_the_pydicom_of_slicer_5_10(made: Path, tmp_path: Path) -> None:
    older = Path(sys.prefix) / "slicer-5.10"
    script = f"""
import sys; sys.path[:0] = [{str(older)!r}, {str(LIB)!r}]
import pydicom; assert pydicom.__version__ == "2.4.4", pydicom.__version__
from MedMLLMLib import sr_read, sr_write, review
document = sr_read.read_file({str(made / "axial" / "findings.sr")!r})
made = review.Review(sr_read.report_of(document))
for one in made.report.findings: made.accept(one.key)
new = sr_write.verified(document, made, sr_write.Person(name="Müller^Eva", organization="Clinic"))
sr_write.save(new, {str(tmp_path / "old.dcm")!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert errors_of(tmp_path / "old.dcm") == 0
    assert sr_read.report_of(sr_read.read_file(tmp_path / "old.dcm")).is_verified


def test_an_answer_on_a_volume_without_dicom_stands_once() -> None:
    said = {"narrative": {"impression": ["No nodule is seen."]}, "answer": {"text": "No nodule is seen."}}

    once = report_of_json(said, uid="job")
    alone = report_of_json({**said, "narrative": {}}, uid="job")

    assert (
        [one.text for one in once.sentences]
        == [one.text for one in alone.sentences]
        == ["No nodule is seen."]
    )


PURE = ("model", "codes", "geometry", "sr_items", "sr_header", "sr_read", "sr_write", "review", "client",
        "reading", "compare", "export", "json_report", "local_engine")  # fmt: skip


def test_what_needs_no_slicer_imports_neither_slicer_nor_qt() -> None:
    script = "; ".join(["import sys", *(f"import MedMLLMLib.{one}" for one in PURE)])
    script += "; bad = {'slicer', 'qt', 'ctk', 'vtk'} & set(sys.modules); assert not bad, bad"

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIB)},
    )

    assert done.returncode == 0, done.stderr


def test_what_is_not_decided_on_is_not_verified(made: Path, report: Report) -> None:
    review = Review(report)
    review.accept(report.findings[0].key)

    with pytest.raises(NotVerifiableError, match="2 findings aren't decided on"):
        sr_write.verified(sr_read.read_file(made / "axial" / "findings.sr"), review, READER)


def test_a_narrative_is_not_verified_in_place_of_the_findings(made: Path) -> None:
    document = sr_read.read_file(made / "axial" / "report.sr")

    with pytest.raises(NotVerifiableError, match="no findings SR"):
        sr_write.verified(document, Review(sr_read.report_of(document)), READER)


def test_a_box_among_points_is_not_written(made: Path) -> None:
    document = sr_read.read_file(made / "axial" / "points.sr")
    review = Review(sr_read.report_of(document))
    image = review.report.findings[0].images[0]
    review.edit(review.report.findings[0].key, box=Box(image=image, box=(1, 2, 3, 4), size_mm=2.0))
    for one in review.undecided:
        review.accept(one.key)

    with pytest.raises(NotVerifiableError, match="SR of points"):
        sr_write.verified(document, review, READER)


@pytest.mark.parametrize("name", ["", " ", "A\\B", "A=B", "A\nB", "A" * 65, "A\x1bB"])
def test_a_name_that_an_sr_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(NotVerifiableError, match=r"Family\^Given"):
        Person(name=name, organization="Clinic")


def test_edits_that_contradict_themselves_are_refused(report: Report) -> None:
    review = Review(report)
    nodule, effusion, _ = (one.key for one in report.findings)

    for key, changes, words in (
        (nodule, {"side": "midline", "sentence": "x"}, "can't be midline"),
        (effusion, {"site": "liver", "side": "none", "sentence": "x"}, "can't be at the site"),
        (nodule, {"finding": "mass"}, "write the sentence"),
        (nodule, {"sentence": " "}, "is empty"),
        (nodule, {}, "nothing was changed"),
    ):
        with pytest.raises(WrongEditError, match=words):
            review.edit(key, **changes)
    assert review.undecided == report.findings


def test_decisions_are_kept_in_a_draft_without_a_name_and_taken_up(report: Report, tmp_path: Path) -> None:
    drafts = Drafts(tmp_path / "drafts")
    review = decided(report, "place")

    drafts.keep(review)
    again = Review(report)

    assert drafts.take_up(again) == 3
    assert all(again.decision(one.key) == review.decision(one.key) for one in report.findings)
    (file,) = (tmp_path / "drafts").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert "Test^" not in file.read_text()
    while again.undo():
        pass
    drafts.forget([report.uid])
    assert drafts.take_up(Review(report)) == 0


def test_a_damaged_draft_is_passed_over(report: Report, tmp_path: Path) -> None:
    drafts = Drafts(tmp_path)
    drafts.keep(decided(report, "accepted"))
    (file,) = tmp_path.iterdir()
    file.write_text('{"version": 1, "report": "' + report.uid + '", "decisions": {"2.25.16": 7}}')

    assert drafts.take_up(Review(report)) == 0


def test_undo_goes_back_step_by_step(report: Report) -> None:
    review = Review(report)
    key = report.findings[0].key
    review.accept(key)
    review.reject(key)
    review.edit(key, sentence="Other words.")

    steps = [review.decision(key).verdict]
    while review.undo():
        steps.append(review.decision(key).verdict)

    assert steps == [Verdict.EDITED, Verdict.REJECTED, Verdict.ACCEPTED, Verdict.PROPOSED]
