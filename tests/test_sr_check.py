"""Tests of `dicom_bridge/sr_check.py` and its rules: each defect is found, at its place and by its rule."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pydicom
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DatasetSequence

from medmllm_plugin.cli import medmllm
from medmllm_plugin.dicom_bridge import sr_validators
from medmllm_plugin.dicom_bridge.sr_check import check_sr
from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict
from medmllm_plugin.dicom_bridge.sr_key_objects import key_object_selection
from medmllm_plugin.dicom_bridge.sr_rules import Issue, Level
from medmllm_plugin.dicom_bridge.sr_templates import TEMPLATES
from medmllm_plugin.dicom_bridge.sr_validators import verdicts
from medmllm_plugin.dicom_bridge.sr_verified import verified_sr
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr, text_sr
from medmllm_plugin.errors import StudyError
from medmllm_plugin.report import Report
from tests.sr_reports import (
    SERIES,
    a_header,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


def a_chest_report() -> Report:
    images = [an_image(header) for header in a_series()]
    return a_report(
        a_nodule(images[2]),
        a_nodule(images[1], tracking_uid="2.25.14"),
        an_effusion(images[0], images[1]),
        a_pneumothorax_not_there(images[0]),
    )


def an_sr() -> Dataset:
    return findings_sr(a_chest_report(), a_series())


def a_text() -> Dataset:
    return text_sr(a_chest_report(), a_series())


def a_key_object() -> Dataset:
    return key_object_selection(a_chest_report(), a_series())


def a_verified() -> Dataset:
    uids = ("2.25.11", "2.25.12", "2.25.13", "2.25.14")
    accepted = [Decision(tracking_uid=uid, verdict=Verdict.ACCEPT) for uid in uids]
    return verified_sr(an_sr(), accepted, Person(name="Reader^One", organization="Ward"))


def points() -> Dataset:
    report = a_chest_report()
    placed = tuple(replace(one, center_mm=(1.0, 2.0, 3.0)) if one.box else one for one in report.findings)
    return points_sr(replace(report, findings=placed), a_series())


def saved(dataset: Dataset, folder: Path) -> Path:
    path = folder / "sr.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def issues(dataset: Dataset, folder: Path) -> list[Issue]:
    return list(check_sr(saved(dataset, folder), validators=False).issues)


def named(parent: Dataset, value: str) -> Iterator[Dataset]:
    """All items below that have a concept name of that value."""
    for item in parent.get("ContentSequence", []):
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == value:
            yield item
        yield from named(item, value)


def drop(sr: Dataset, value: str, *, inside: str | None = None) -> None:
    """Take away the items of that name from the root, or from the first item of the name `inside`."""
    parent = sr if inside is None else next(named(sr, inside))
    parent.ContentSequence = DatasetSequence(
        item for item in parent.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue != value
    )


# Whole


@pytest.mark.parametrize("make", [an_sr, a_text, a_key_object, a_verified, points])
def test_our_own_documents_break_no_rule(make: Callable[[], Dataset], tmp_path: Path) -> None:
    assert issues(make(), tmp_path) == []


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_row_says_where_it_is_written_and_what_it_takes(template: str) -> None:
    rows = list(TEMPLATES[template])
    while rows:
        row = rows.pop()
        assert row.number.startswith(("TID ", "CID "))
        assert row.types
        assert row.most is None or row.most >= row.least
        assert bool(row.values) == bool(row.value_set)
        rows += row.below


@pytest.mark.parametrize(
    "parts",
    [
        ("sr_tid1500_liver", "dcmqi", "result.dcm"),
        ("sr_tid1500_liver", "rsna2018_dataset1", "sr-tid1500-ct-liver-example.dcm"),
        ("sr_pet_qin0003", "sr.dcm"),
    ],
)
def test_other_peoples_reports_break_no_template_but_are_said_to_break_viewers(
    parts: tuple[str, ...],
) -> None:
    path = DATA.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not there: set MEDMLLM_DATA to the folder of samples")

    checked = check_sr(path, validators=False)

    assert [one for one in checked.issues if one.rule.startswith("TID")] == []
    assert any("no region" in one.text and one.rule == "breaks OHIF 3.13" for one in checked.issues)


# One defect each

Defect = tuple[Callable[[], Dataset], Callable[[Dataset], None], str, str]


def _no_image_library(sr: Dataset) -> None:
    drop(sr, "111028")


def _no_procedure(sr: Dataset) -> None:
    drop(sr, "121058")


def _no_content(sr: Dataset) -> None:
    drop(sr, "126010")
    drop(sr, "C0034375")


def _two_findings_in_a_group(sr: Dataset) -> None:
    group = next(named(sr, "125007"))
    group.ContentSequence.append(next(named(group, "121071")))


def _site_contained(sr: Dataset) -> None:
    next(named(sr, "363698007")).RelationshipType = "CONTAINS"


def _strange_laterality(sr: Dataset) -> None:
    next(named(sr, "272741003")).ConceptCodeSequence[0].CodeValue = "39607008"


def _strange_outcome(sr: Dataset) -> None:
    next(named(sr, "111017")).ConceptCodeSequence[0].CodeValue = "111240"


def _region_without_image(sr: Dataset) -> None:
    region = next(one for one in named(next(named(sr, "125007")), "111030") if one.ValueType == "SCOORD")
    del region.ContentSequence


def _number_without_unit(sr: Dataset) -> None:
    number = next(one for one in named(sr, "111012"))
    del number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence


def _item_without_name(sr: Dataset) -> None:
    del next(named(sr, "121106")).ConceptNameCodeSequence


def _code_without_meaning(sr: Dataset) -> None:
    next(named(sr, "121071")).ConceptCodeSequence[0].CodeMeaning = ""


def _name_in_german(sr: Dataset) -> None:
    next(named(sr, "112039")).ConceptNameCodeSequence[0].CodeMeaning = "Kennung"


def _version_gone(sr: Dataset) -> None:
    drop(sr, "111003", inside="125007")


def _no_evidence(sr: Dataset) -> None:
    study = sr.CurrentRequestedProcedureEvidenceSequence[0]
    study.ReferencedSeriesSequence[0].ReferencedSOPSequence = DatasetSequence()


def _verified_by_nobody(sr: Dataset) -> None:
    sr.VerificationFlag = "VERIFIED"


def _verified_and_preliminary(sr: Dataset) -> None:
    sr.VerificationFlag = "VERIFIED"
    verifier = Dataset()
    verifier.VerifyingObserverName, verifier.VerifyingOrganization = "Reader^One", "Ward"
    verifier.VerificationDateTime = "20260101120000"
    verifier.VerifyingObserverIdentificationCodeSequence = DatasetSequence()
    sr.VerifyingObserverSequence = DatasetSequence([verifier])


def _in_space_as_enhanced(sr: Dataset) -> None:
    sr.SOPClassUID = sr.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.22"
    for region in named(sr, "111030"):
        region.ValueType, region.GraphicType, region.GraphicData = "SCOORD3D", "POINT", [1.0, 2.0, 3.0]
        region.ReferencedFrameOfReferenceUID = "1.2.3.4"
        del region.ContentSequence


def _wrong_points(sr: Dataset) -> None:
    next(named(sr, "111030")).GraphicType = "CIRCLE"


def _text_at_the_root(sr: Dataset) -> None:
    sr.ContentSequence.append(next(named(sr, "121077")))


def _named_image(sr: Dataset) -> None:
    image = next(item for item in sr.ContentSequence if item.ValueType == "IMAGE")
    image.ConceptNameCodeSequence = next(named(sr, "113012")).ConceptNameCodeSequence


def _no_images(sr: Dataset) -> None:
    sr.ContentSequence = DatasetSequence(item for item in sr.ContentSequence if item.ValueType != "IMAGE")


def _no_tracking(sr: Dataset) -> None:
    drop(sr, "112040", inside="125007")


DEFECTS: dict[str, Defect] = {
    "library": (an_sr, _no_image_library, "TID 1600 row 1", "no Image Library"),
    "procedure": (an_sr, _no_procedure, "TID 1500 row 4", "no Procedure reported"),
    "content": (an_sr, _no_content, "TID 1500 row 6", "neither measurements nor evaluations"),
    "cardinality": (an_sr, _two_findings_in_a_group, "TID 1410 row 3b", "2 of Finding, expected at most 1"),
    "relationship": (an_sr, _site_contained, "TID 1419", "tied by 'CONTAINS', expected HAS CONCEPT MOD"),
    "laterality": (an_sr, _strange_laterality, "TID 1501 row 7", "expected a code of CID 244 or 245"),
    "outcome": (an_sr, _strange_outcome, "CID 6047", "(111240, DCM), expected a code of CID 6047"),
    "image": (an_sr, _region_without_image, "TID 1410 row 6", "no IMAGE, expected at least 1"),
    "unit": (an_sr, _number_without_unit, "PS3.3 C.18.1", "a number without a unit"),
    "name": (an_sr, _item_without_name, "PS3.3 C.17.3.2", "a TEXT without a concept name"),
    "meaning": (an_sr, _code_without_meaning, "PS3.3 8.8", "lacks its value, scheme or meaning"),
    "language": (an_sr, _name_in_german, "PS3.16 Annex D", "'Kennung', expected 'Tracking Identifier'"),
    "algorithm": (an_sr, _version_gone, "TID 4019", "without the other"),
    "evidence": (an_sr, _no_evidence, "PS3.3 C.17.2", "instances that the content refers to are missing"),
    "verifier": (an_sr, _verified_by_nobody, "PS3.3 C.17.2", "no verifier of a verified document"),
    "preliminary": (an_sr, _verified_and_preliminary, "PS3.3 C.17.2", "a verified document that is prelim"),
    "value type": (an_sr, _in_space_as_enhanced, "PS3.3 A.35", "a SCOORD3D, which this SOP class may not"),
    "points": (an_sr, _wrong_points, "PS3.3 C.18.6", "a CIRCLE of 5 points, expected 2"),
    "closed": (a_text, _text_at_the_root, "TID 2000", "a TEXT at the root, which is not extensible"),
    "named key": (a_key_object, _named_image, "TID 2010 row 8", "an image with a concept name"),
    "no key": (a_key_object, _no_images, "TID 2010 rows 8 to 10", "no IMAGE or WAVEFORM or COMPOSITE"),
    "tracking": (an_sr, _no_tracking, "breaks OHIF 3.13", "a measurement group has no tracking UID"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_with_its_rule(name: str, tmp_path: Path) -> None:
    make, spoil, rule, text = DEFECTS[name]
    sr = make()
    spoil(sr)

    found = issues(sr, tmp_path)

    assert any(one.rule.startswith(rule) and text in one.text for one in found), [str(one) for one in found]


def test_an_issue_says_which_item(tmp_path: Path) -> None:
    sr = an_sr()
    _strange_laterality(sr)

    (issue,) = issues(sr, tmp_path)

    item = sr
    for number in issue.where.split(".")[1:]:
        item = item.ContentSequence[int(number) - 1]
    assert item.ConceptNameCodeSequence[0].CodeMeaning == "Laterality"


def test_text_beyond_ascii_without_a_character_set_is_an_error(tmp_path: Path) -> None:
    sr = an_sr()
    del sr.SpecificCharacterSet
    for item in named(sr, "121106"):
        item.pop("SpecificCharacterSet", None)
        item.TextValue = "plain"
    path = saved(sr, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"plain", b"pl\xe4in", 1))

    found = check_sr(path, validators=False).issues

    assert any(one.where == "SpecificCharacterSet" and one.level is Level.ERROR for one in found)


def test_images_with_regions_outside_the_first_series_are_a_warning(tmp_path: Path) -> None:
    first, second = a_series(2), [a_header(9, series=f"{SERIES}.9")]
    report = a_report(a_nodule(an_image(first[0])))
    sr = findings_sr(report, [*first, *second])
    evidence = sr.CurrentRequestedProcedureEvidenceSequence[0]
    evidence.ReferencedSeriesSequence = DatasetSequence(reversed(list(evidence.ReferencedSeriesSequence)))

    (issue,) = issues(sr, tmp_path)

    assert (issue.level, issue.rule) == (Level.WARNING, "3D Slicer looks only there")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([an_sr, a_text, a_key_object]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_file_is_refused_or_checked_and_is_never_a_defect_of_ours(
    make: Callable[[], Dataset], damage: list[tuple[float, int]]
) -> None:
    file = BytesIO()
    make().save_as(file, enforce_file_format=True)
    content = bytearray(file.getvalue())
    for where, byte in damage:
        content[132 + int(where * (len(content) - 132))] = byte
    with TemporaryDirectory() as folder:
        path = Path(folder, "sr.dcm")
        path.write_bytes(content)

        try:
            checked = check_sr(path, validators=False)
        except StudyError as error:
            assert "expected a DICOM Structured Report" in str(error)  # noqa: PT017
        else:
            assert checked.to_text()
            assert json.dumps(checked.to_json())


# Validators of others


def test_the_installed_validators_find_no_error_in_our_findings(tmp_path: Path) -> None:
    said = verdicts(saved(an_sr(), tmp_path), template="1500")

    assert [one.tool for one in said] == [
        "dciodvfy",
        "PixelMed DicomSRValidator",
        "dsrdump",
        "tid1500reader",
    ]
    assert {one.tool: one.errors for one in said if one.errors} == {}
    if not any(one.ran for one in said):
        pytest.skip("none of the validators is installed")
    assert all(one.ran or "install" in one.note for one in said)


def test_a_missing_validator_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sr_validators, "_program", lambda name: None)

    said = verdicts(tmp_path / "sr.dcm", template="1500")

    assert [(one.ran, one.errors) for one in said] == [(False, ())] * 4
    assert [one.note.split(": ")[1].split()[-1] for one in said] == [
        "dicom3tools",
        "default-jre-headless",
        "dcmtk",
        "dcmqi",
    ]


def test_a_validator_that_fails_counts_as_an_error_and_names_no_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "dciodvfy"
    fake.write_text(
        "#!/bin/sh\necho 'Error - </PatientSex(0010,0040)> - Bad value = <Smith^Jo>' >&2\nexit 1\n"
    )
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(sr_validators, "_program", lambda name: str(fake) if name == "dciodvfy" else None)

    (said, *_) = verdicts(tmp_path / "sr.dcm", template="1500")

    assert said.errors == ("Error - </PatientSex(0010,0040)> - Bad value = (not shown)",)


# The command


@pytest.fixture
def no_validators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sr_validators, "_program", lambda name: None)


@pytest.mark.usefixtures("no_validators")
def test_the_command_shows_tools_and_viewers_and_ends_well_on_a_good_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(medmllm, ["sr", "check", str(saved(an_sr(), tmp_path))])

    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0].startswith("sr.dcm: Imaging Measurement Report, TID 1500, Comprehensive 3D SR")
    assert any(line.split() == ["our", "rules", "0", "0"] for line in lines)
    assert any(line.startswith("OHIF 3.13         2 drawn, 2 become measurements") for line in lines)
    assert "Test^" not in done.output


@pytest.mark.usefixtures("no_validators")
def test_the_command_ends_with_1_on_errors_and_says_each(tmp_path: Path) -> None:
    sr = an_sr()
    _no_tracking(sr)

    done = CliRunner().invoke(medmllm, ["sr", "check", str(saved(sr, tmp_path)), "--json"])

    data = json.loads(done.stdout)
    assert done.exit_code == 1
    assert data["errors"] == 1
    assert data["issues"][0]["rule"] == "breaks OHIF 3.13"
    assert "not installed" in data["validators"][0]["note"]


def test_a_file_that_is_no_sr_ends_with_2_and_one_line(tmp_path: Path) -> None:
    image = tmp_path / "ct.dcm"
    header = a_header()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.save_as(image, enforce_file_format=True)

    done = CliRunner().invoke(medmllm, ["sr", "check", str(image)])

    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "ct.dcm: found CT Image Storage, expected a DICOM Structured Report" in done.stderr
