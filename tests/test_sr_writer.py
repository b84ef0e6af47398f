"""Tests of `dicom_bridge/sr_writer.py`, with the validators that are installed as judges."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts as dictionary
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from medmllm_plugin.codes import Code
from medmllm_plugin.dicom_bridge import sr_concepts
from medmllm_plugin.dicom_bridge.sr_decisions import Decision, Person, Verdict
from medmllm_plugin.dicom_bridge.sr_items import clean, has_words
from medmllm_plugin.dicom_bridge.sr_key_objects import key_object_selection
from medmllm_plugin.dicom_bridge.sr_verified import verified_sr
from medmllm_plugin.dicom_bridge.sr_words import MODALITIES, comment, sentence_of
from medmllm_plugin.dicom_bridge.sr_writer import findings_sr, points_sr, text_sr
from medmllm_plugin.errors import StudyError
from medmllm_plugin.findings import Change, Measurement, Side, Status
from medmllm_plugin.report import DISCLAIMER, Outcome, Report, Sentence
from medmllm_plugin.source import FileImage
from tests.sr_items import items, named, texts
from tests.sr_reports import (
    FRAME_OF_REFERENCE,
    SERIES,
    STUDY,
    a_box,
    a_header,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)

NOON = datetime(2026, 11, 21, 12, 0, 0)

Case = tuple[Report, list[Dataset]]


def a_chest_ct(*, oblique: bool = False) -> Case:
    """Two placed findings, one of them indeterminate; three without a place, one of them absent."""
    headers = a_series(oblique=oblique)
    images = [an_image(header) for header in headers]
    short_axis = Measurement(code="short_axis", value=7.25, unit="mm")
    report = a_report(
        a_nodule(images[2], images=(images[2], images[3]), change=Change.NEW, measurements=(short_axis,)),
        an_effusion(images[0], images[1]),
        a_pneumothorax_not_there(images[0]),
        a_nodule(
            images[1], tracking_uid="2.25.14", status=Status.INDETERMINATE, size_mm=None, certainty=0.333
        ),
        an_effusion(images[0], tracking_uid="2.25.15", status=Status.INDETERMINATE, side=Side.BILATERAL),
    )
    return report, headers


def an_ending(outcome: Outcome) -> Case:
    return a_report(outcome=outcome, impression=(), narrative=()), a_series()


def one_image(modality: str, sop_class: str, frame: int | None = None, **values: Any) -> Case:
    header = a_header(modality=modality, sop_class=sop_class, **values)
    return a_report(a_nodule(an_image(header, frame)), modality=modality), [header]


CASES: dict[str, Case] = {
    "chest CT": a_chest_ct(),
    "oblique CT": a_chest_ct(oblique=True),
    "normal": (a_report(), a_series()),
    "coded negative": (a_report(a_pneumothorax_not_there(an_image(a_series()[0]))), a_series()),
    "failed": an_ending(Outcome.FAILED),
    "not assessed": an_ending(Outcome.NOT_ASSESSED),
    "outside domain": an_ending(Outcome.OUTSIDE_DOMAIN),
    "DX": one_image("DX", DigitalXRayImageStorageForPresentation),
    "CR": one_image("CR", ComputedRadiographyImageStorage),
    "US": one_image("US", UltrasoundImageStorage),
    "SC": one_image("OT", SecondaryCaptureImageStorage),
    "MG": one_image("MG", DigitalMammographyXRayImageStorageForPresentation),
    "PT": one_image("PT", PositronEmissionTomographyImageStorage, FrameOfReferenceUID=FRAME_OF_REFERENCE),
    "MR": one_image("MR", MRImageStorage, FrameOfReferenceUID=FRAME_OF_REFERENCE),
    "multi-frame MR": one_image(
        "MR", EnhancedMRImageStorage, 7, NumberOfFrames=20, FrameOfReferenceUID="1.2.3"
    ),
}


def other_kinds() -> dict[str, Dataset]:
    """The chest CT, and where said another case, as everything else that we write."""
    report, headers = a_chest_ct()
    placed = [replace(one, center_mm=(1.5, 2.0, 10.0)) if one.box else one for one in report.findings]
    first = findings_sr(report, headers, written=NOON)
    said = (Verdict.ACCEPT, Verdict.ACCEPT, Verdict.ACCEPT, Verdict.REJECT, Verdict.ACCEPT)
    decisions = [
        Decision(tracking_uid=one.tracking_uid, verdict=verdict)
        for one, verdict in zip(report.findings, said, strict=True)
    ]
    person = Person(name="Müller^Jürgen", organization="Radiology 3")
    normal = findings_sr(*CASES["normal"], written=NOON)
    sizes = [*a_series(2), a_header(9, Rows=128)]
    return {
        "points": points_sr(replace(report, findings=tuple(placed)), headers, written=NOON),
        "findings as Comprehensive": findings_sr(report, headers, sop_class=ComprehensiveSRStorage),
        "findings as Enhanced": findings_sr(report, headers, sop_class=EnhancedSRStorage),
        "text as Basic Text": text_sr(report, headers, sop_class=BasicTextSRStorage),
        "text as Comprehensive": text_sr(report, headers, sop_class=ComprehensiveSRStorage),
        "amended findings": findings_sr(report, headers, predecessors=[first]),
        "amended text": text_sr(report, headers, predecessors=[text_sr(report, headers)]),
        "key objects": key_object_selection(report, headers, written=NOON),
        "key objects on frames": key_object_selection(*CASES["multi-frame MR"], written=NOON),
        "verified": verified_sr(first, decisions, person, written=NOON),
        "verified normal": verified_sr(normal, [], person, written=NOON),
        "images of two sizes": findings_sr(a_report(), sizes, written=NOON),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both SRs of every case as files, by "<case> A" and "<case> B", and what else we write by its kind."""
    folder = tmp_path_factory.mktemp("sr")
    paths = {}
    for name, (report, headers) in CASES.items():
        for tree, write in (("A", findings_sr), ("B", text_sr)):
            path = folder / f"{name}-{tree}.dcm".replace(" ", "-")
            write(report, headers, written=NOON).save_as(path, enforce_file_format=True)
            paths[f"{name} {tree}"] = path
    for name, dataset in other_kinds().items():
        path = folder / f"{name}.dcm".replace(" ", "-")
        dataset.save_as(path, enforce_file_format=True)
        paths[name] = path
    return paths


def tool(name: str) -> str:
    """The path of a program beside this Python or on the PATH; skips the test without it."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


# What other programs say


def test_dciodvfy_finds_no_error_and_only_known_warnings(written: dict[str, Path]) -> None:
    known = ("/DeviceUID(0018,1002)>", "/SpecificCharacterSet(0008,0005)>")

    said = {
        name: subprocess.run(
            [tool("dciodvfy"), "-new", str(path)], capture_output=True, text=True, check=False
        ).stderr.splitlines()
        for name, path in written.items()
    }

    bad = {name: [one for one in lines if one.startswith("Error")] for name, lines in said.items()}
    odd = [one for lines in said.values() for one in lines if one.startswith("Warning")]
    assert bad == {name: [] for name in written}
    assert [one for one in odd if not any(mark in one for mark in known)] == []


def test_highdicom_reads_every_sr_and_a_planar_group_for_each_box(
    written: dict[str, Path],
) -> None:
    highdicom_sr = pytest.importorskip("highdicom.sr")

    readable = {
        name: path for name, path in written.items() if "key objects" not in name and "Basic" not in name
    }

    contents = {name: highdicom_sr.srread(path).content for name, path in readable.items()}

    for name, (report, _) in CASES.items():
        groups = contents[f"{name} A"].get_planar_roi_measurement_groups()
        placed = [one for one in report.findings if one.box is not None]
        assert [group.tracking_uid for group in groups] == [one.tracking_uid for one in placed]
    for name, uids in (("points", ["2.25.11", "2.25.14"]), ("verified", ["2.25.11"])):
        groups = contents[name].get_planar_roi_measurement_groups()
        assert [group.tracking_uid for group in groups] == uids


def test_dcmqi_reads_the_findings_that_were_written(written: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "read.json"

    done = subprocess.run(
        [tool("tid1500reader"), "--inputDICOM", str(written["chest CT A"]), "--outputMetadata", str(out)],
        capture_output=True,
        check=False,
    )

    first, second = json.loads(out.read_text())["Measurements"]
    comments = [
        one["conceptValue"]
        for one in first["qualitativeEvaluations"]
        if one["conceptCode"]["CodeValue"] == "121106"
    ]
    assert done.returncode == 0
    assert [first["Finding"]["CodeValue"], first["FindingSite"]["CodeValue"]] == ["27925004", "90572001"]
    assert first["Laterality"]["CodeMeaning"] == "Right"
    assert [first["TrackingUniqueIdentifier"], second["TrackingUniqueIdentifier"]] == ["2.25.11", "2.25.14"]
    assert [float(one["value"]) for one in first["measurementItems"]] == [16.0, 7.25, 87.0]
    assert [float(one["value"]) for one in second["measurementItems"]] == [33.3]
    assert comments == ["Solid nodule ≤ 16 mm, 12 µm rim – 右肺下叶結節."]
    assert len(first["measurementAlgorithmIdentification"]["AlgorithmParameters"]) == 1


def test_dsrdump_reads_every_sr_without_complaint(written: dict[str, Path]) -> None:
    dsrdump = tool("dsrdump")
    known = ("does not support this Specific Character Set", "template constraints not yet supported")

    said = {
        name: subprocess.run([dsrdump, str(path)], capture_output=True, text=True, check=False)
        for name, path in written.items()
    }

    for name, done in said.items():
        lines = [one for one in done.stderr.splitlines() if not any(mark in one for mark in known)]
        assert (name, done.returncode, lines) == (name, 0, [])


def test_pixelmed_finds_no_error_in_an_sr_of_any_kind(written: dict[str, Path], tmp_path: Path) -> None:
    java, javac = tool("java"), tool("javac")
    jars = Path("/usr/share/java")
    if not (jars / "pixelmed.jar").exists():
        pytest.skip("PixelMed is not installed (Debian libpixelmed-java)")
    classes = ":".join(map(str, [tmp_path, *sorted(jars.glob("*.jar"))]))
    (tmp_path / "Validate.java").write_text(
        "public class Validate { public static void main(String[] files) throws Exception {"
        " var validator = new com.pixelmed.validate.DicomSRValidator();"
        " for (String file : files) System.out.println(validator.validate(file)); } }"
    )
    subprocess.run([javac, "-cp", classes, "-d", str(tmp_path), str(tmp_path / "Validate.java")], check=True)
    cases = [f"{case} {tree}" for case in ("chest CT", "normal", "CR", "multi-frame MR") for tree in "AB"]
    kinds = ("points", "findings as Enhanced", "text as Basic Text", "amended findings", "key objects")
    cases += ["failed A", "SC A", *kinds, "verified", "verified normal", "images of two sizes"]
    paths = [str(written[case]) for case in cases]
    limits = [f"-Djdk.xml.xpath{limit}=0" for limit in ("ExprOpLimit", "TotalOpLimit", "ExprGrpLimit")]

    done = subprocess.run(
        [java, *limits, "-Xss64m", "-cp", classes, "Validate", *paths],
        capture_output=True,
        text=True,
        check=True,
    )

    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("Error")] == []
    assert lines.count("IOD validation complete") == len(paths)


# The hard rules, on the tree


@pytest.mark.parametrize("name", CASES)
def test_every_group_is_one_closed_box_on_one_image_with_finding_site_and_own_tracking_uid(name: str) -> None:
    report, headers = CASES[name]

    groups = list(items(findings_sr(report, headers), "125007"))

    uids = []
    for group in groups:
        (region,) = named(group, "111030")
        points = list(zip(region.GraphicData[::2], region.GraphicData[1::2], strict=True))
        assert (region.ValueType, region.GraphicType, len(points)) == ("SCOORD", "POLYLINE", 5)
        assert points[0] == points[-1]
        assert len(region.ContentSequence) == 1
        assert len(named(group, "121071")) == len(named(group, "276214006")) == 1
        assert len(named(group, "363698007")) == 1
        first_uid = next(one for one in group.ContentSequence if one.ValueType == "UIDREF")
        assert first_uid.ConceptNameCodeSequence[0].CodeValue == "112040"
        uids.append(first_uid.UID)
        assert len(named(group, "111002")) == 1
    assert len(set(uids)) == len(uids) == sum(one.box is not None for one in report.findings)


def test_the_first_number_of_a_group_and_only_it_carries_the_region() -> None:
    report, headers = a_chest_ct()

    for group in items(findings_sr(report, headers), "125007"):
        numbers = [one for one in group.ContentSequence if one.ValueType == "NUM"]
        (region,) = named(group, "111030")
        (own,) = numbers[0].ContentSequence
        assert (own.RelationshipType, own.GraphicData) == ("INFERRED FROM", region.GraphicData)
        assert own.ContentSequence[0].ReferencedSOPSequence == region.ContentSequence[0].ReferencedSOPSequence
        assert not any("ContentSequence" in number for number in numbers[1:])


@pytest.mark.parametrize("name", CASES)
def test_every_container_is_separate_and_every_item_has_a_name(name: str) -> None:
    report, headers = CASES[name]

    for sr in (findings_sr(report, headers), text_sr(report, headers)):
        containers = [sr, *(one for one in items(sr) if one.ValueType == "CONTAINER")]
        assert {one.ContinuityOfContent for one in containers} == {"SEPARATE"}
        assert all(one.ConceptNameCodeSequence[0].CodeMeaning for one in [sr, *items(sr)])
        assert sr.SpecificCharacterSet == "ISO_IR 192"


def test_our_concept_names_have_the_meaning_that_dicom_gives_them() -> None:
    ours = [one for one in vars(sr_concepts).values() if isinstance(one, Code)] + list(MODALITIES.values())
    known: dict[tuple[str, str], set[str]] = {}
    for scheme, keywords in dictionary.items():
        for values in keywords.values():
            for value, (meaning, _) in values.items():
                known.setdefault((value, scheme), set()).add(meaning)

    outside = [one for one in ours if one.meaning not in known.get((one.value, one.scheme), set())]

    languages_and_units = {"en-US", "und", "{pixels}"}
    worded_otherwise_by_pydicom = {"C0034375", "260753009", "276214006", "246112005"}
    assert {one.value for one in outside} == languages_and_units | worded_otherwise_by_pydicom


def test_the_image_library_says_once_what_the_images_share() -> None:
    headers = [*a_series(3), *a_series(2, series=f"{SERIES}.9", Rows=128)]

    first, second = items(findings_sr(a_report(), headers), "126200")

    kinds = [one.ValueType for one in first.ContentSequence]
    assert kinds == ["CODE", "UIDREF", "NUM", "NUM", "IMAGE", "IMAGE", "IMAGE"]
    assert [one.ValueType for one in second.ContentSequence].count("IMAGE") == 2
    assert named(second, "110910")[0].MeasuredValueSequence[0].NumericValue == 128


def test_an_image_without_frame_of_reference_leaves_that_library_item_out() -> None:
    report, headers = CASES["DX"]

    (group,) = items(findings_sr(report, headers), "126200")

    assert named(group, "112227") == []
    assert named(group, "121139")[0].ConceptCodeSequence[0].CodeValue == "DX"


def test_a_finding_on_a_frame_names_the_frame_wherever_it_names_the_image() -> None:
    report, headers = CASES["multi-frame MR"]

    findings, words = findings_sr(report, headers), text_sr(report, headers)

    (group,) = items(findings, "125007")
    places = [one.ReferencedSOPSequence[0] for one in items(group) if one.ValueType == "IMAGE"]
    cited = [one.ReferencedSOPSequence[0] for one in items(words) if one.ValueType == "IMAGE"]
    assert {place.ReferencedFrameNumber for place in places + cited} == {7}
    evidence = findings.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert "ReferencedFrameNumber" not in evidence.ReferencedSOPSequence[0]


def test_a_box_goes_to_the_sr_unchanged_in_corner_coordinates() -> None:
    report, headers = CASES["MR"]

    (group,) = items(findings_sr(report, headers), "125007")

    assert list(named(group, "111030")[0].GraphicData) == [10, 20.5, 30, 20.5, 30, 40, 10, 40, 10, 20.5]


# What is not a placed finding


def test_a_normal_study_says_so_in_code_and_words_and_has_no_measurements() -> None:
    sr = findings_sr(*CASES["normal"])

    (evaluations,) = items(sr, "C0034375")
    assert list(items(sr, "126010")) == []
    assert named(evaluations, "111017")[0].ConceptCodeSequence[0].CodeValue == "111241"
    assert {"The model reported no findings.", DISCLAIMER} <= set(texts(evaluations))


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.NOT_ASSESSED, Outcome.OUTSIDE_DOMAIN])
def test_what_was_not_assessed_says_so_in_code_and_words_in_both_srs(outcome: Outcome) -> None:
    report, headers = an_ending(outcome)

    findings, words = findings_sr(report, headers), text_sr(report, headers)

    (summary,) = items(findings, "111017")
    assert summary.ConceptCodeSequence[0].CodeValue == "111245"
    assert all(any(text.startswith("Not assessed") for text in texts(sr)) for sr in (findings, words))


def test_an_absent_finding_is_never_written_as_a_finding() -> None:
    sr = findings_sr(*CASES["coded negative"])

    (negative,) = items(sr, "36118008")
    assert list(items(sr, "121071")) == list(items(sr, "125007")) == []
    assert negative.ConceptCodeSequence[0].CodeMeaning == "Absent"
    assert "No pneumothorax. [absent; certainty 90 %; image 1]" in texts(sr)


def test_an_absent_finding_with_a_box_is_no_measurement_group() -> None:
    headers = a_series()
    absent = a_nodule(an_image(headers[0]), status=Status.ABSENT)

    sr = findings_sr(a_report(absent), headers)

    assert list(items(sr, "125007")) == []


def test_an_indeterminate_finding_is_marked_in_code_and_words() -> None:
    _, group = items(findings_sr(*CASES["chest CT"]), "125007")

    assert named(group, "27925004")[0].ConceptCodeSequence[0].CodeMeaning == "Undetermined"
    assert named(group, "121106")[0].TextValue.endswith(" [indeterminate]")


def test_a_long_axis_that_the_finding_states_takes_the_place_of_the_boxs_size() -> None:
    headers = a_series()
    stated = Measurement(code="long_axis", value=12.5, unit="mm")
    report = a_report(a_nodule(an_image(headers[0]), measurements=(stated,), size_mm=16.0))

    (axis,) = named(next(items(findings_sr(report, headers), "125007")), "103339001")

    assert axis.MeasuredValueSequence[0].NumericValue == 12.5


# The report in words


def test_each_sentence_of_the_report_is_inferred_from_the_images_it_cites() -> None:
    report, headers = CASES["chest CT"]

    sentences = list(items(text_sr(report, headers), "121071"))

    assert [one.TextValue for one in sentences] == [one.sentence for one in report.narrative]
    for item, sentence in zip(sentences, report.narrative, strict=True):
        cited = [one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in item.ContentSequence]
        assert cited == [image.sop_instance_uid for image in sentence.images]
        assert {one.RelationshipType for one in item.ContentSequence} == {"INFERRED FROM"}


def test_the_summary_holds_disclaimer_notes_model_and_hashes() -> None:
    (summary,) = items(text_sr(*CASES["normal"]), "55112-7")

    said = texts(summary)
    assert said[0] == DISCLAIMER
    assert "5 of 5 slices shown." in said
    assert said[-1] == (
        "Written by phantom-reader 0.1 (weights sha256 abababababababab, prompt sha256 cdcdcdcdcdcdcdcd) "
        "through medmllm-plugin 0.1.0."
    )


def test_without_a_narrative_the_findings_speak_for_it() -> None:
    report, headers = a_chest_ct()

    sr = text_sr(replace(report, narrative=()), headers)

    assert "No pneumothorax. [absent]" not in texts(sr)[:1]
    assert [one.TextValue for one in items(sr, "121071")] == [comment(one) for one in report.findings]


def test_text_of_any_script_comes_back_byte_for_byte_and_no_language_is_claimed() -> None:
    sentence = "≤ 8 mm, µ, “quotes”, naïve, 結節 소견 узел نتيجة 🫁"
    headers = a_series()
    report = a_report(narrative=(Sentence(sentence=sentence),))
    buffer = io.BytesIO()

    text_sr(report, headers).save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    sr = pydicom.dcmread(buffer)

    assert sentence in texts(sr)
    assert sentence.encode() in buffer.getvalue()
    assert next(items(sr, "121049")).ConceptCodeSequence[0].CodeValue == "und"


def test_control_characters_and_broken_letters_never_reach_the_sr() -> None:
    headers = a_series()
    report = a_report(
        narrative=(Sentence(sentence="a\x00b\x1b[2J\ud800\u202ec\r\nd"),), notes=("\x07", "n\x9b")
    )

    said = texts(text_sr(report, headers))

    assert "a b [2J? c\nd" in said
    assert all(clean(text) == text for text in said)


def test_very_long_text_is_kept_whole() -> None:
    headers = a_series()
    long = "nodule " * 20_000
    report = a_report(narrative=(Sentence(sentence=long),))

    assert long in texts(text_sr(report, headers))


@given(text=st.text(max_size=40).filter(has_words), status=st.sampled_from(Status))
def test_the_sentence_is_found_again_in_a_comment(text: str, status: Status) -> None:
    finding = a_nodule(an_image(a_series(1)[0]), sentence=text, status=status)

    for seen_on in (None, "", "image 3"):
        assert sentence_of(comment(finding, seen_on=seen_on)) == text


def test_a_finding_without_a_sentence_is_said_in_our_words() -> None:
    finding = a_nodule(an_image(a_series(1)[0]), sentence="")

    assert comment(finding) == "nodule"


def test_a_sentence_that_ends_like_our_brackets_is_found_again() -> None:
    finding = a_nodule(an_image(a_series(1)[0]), sentence="Odd [absent; image 1]")

    assert comment(finding) == "Odd [absent; image 1] [present]"
    assert sentence_of(comment(finding)) == finding.sentence


# Header


@pytest.mark.parametrize(
    ("write", "number", "sop_class", "description"),
    [
        (findings_sr, 9001, Comprehensive3DSRStorage, "AI findings (unverified)"),
        (text_sr, 9002, EnhancedSRStorage, "AI draft report (unverified)"),
    ],
)
def test_the_header_is_unverified_preliminary_and_of_the_images_study(
    write: Any, number: int, sop_class: str, description: str
) -> None:
    report, headers = a_chest_ct()

    sr = write(report, headers, written=NOON)

    assert (sr.SeriesNumber, sr.SOPClassUID, sr.SeriesDescription) == (number, sop_class, description)
    assert (sr.CompletionFlag, sr.VerificationFlag, sr.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert (sr.StudyInstanceUID, sr.PatientID, str(sr.PatientName)) == (STUDY, "T1", "Test^Ü")
    assert (sr.ContentDate, sr.ContentTime) == ("20261121", "120000")
    assert list(sr.PerformedProcedureCodeSequence) == list(sr.ReferencedPerformedProcedureStepSequence) == []
    assert sr.ContributingEquipmentSequence[0].DeviceUID.startswith("2.25.")
    assert "Pixel" not in {element.keyword[:5] for element in sr}


def test_the_same_reading_has_the_same_uids_and_any_other_has_others() -> None:
    report, headers = a_chest_ct()
    others = [
        replace(report, provenance=replace(report.provenance, **{key: value}))
        for key, value in (
            ("prompt_sha256", "00"),
            ("weights_sha256", "00"),
            ("model", "m"),
            ("model_version", "2"),
        )
    ]

    def uids(one: Report) -> set[str]:
        pair = (findings_sr(one, headers), text_sr(one, headers))
        return {str(uid) for sr in pair for uid in (sr.SOPInstanceUID, sr.SeriesInstanceUID)}

    assert uids(report) == uids(replace(report, provenance=replace(report.provenance, seconds=9.0)))
    assert len(uids(report)) == 4
    assert len(set.union(uids(report), *map(uids, others))) == 4 * 5
    assert all(len(uid) <= 64 and pydicom.uid.UID(uid).is_valid for uid in uids(report))


def test_the_series_that_was_read_comes_first_in_evidence_and_library() -> None:
    other = a_series(2, series=f"{SERIES}.9")
    report = a_report(a_nodule(an_image(a_series()[0])))

    sr = findings_sr(report, [*other, *a_series()])

    series = sr.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [one.SeriesInstanceUID for one in series] == [SERIES, f"{SERIES}.9"]
    assert next(items(sr, "260753009")).ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{SERIES}.1"


def test_missing_patient_and_study_values_are_empty_and_odd_ones_kept() -> None:
    absent = dict.fromkeys(("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime"))
    headers = [a_header(**absent)]
    headers[0].add(DataElement(0x00100020, "LO", "x" * 70, validation_mode=IGNORE))

    sr = findings_sr(a_report(), headers)

    assert [sr[keyword].is_empty for keyword in absent] == [True] * 5
    assert sr.PatientID == "x" * 70


def test_an_age_date_sex_or_study_id_that_is_no_legal_value_is_left_out() -> None:
    odd = {"PatientAge": "62", "StudyDate": "1.1.26", "PatientSex": "male", "StudyID": "more than 16 letters"}
    header = a_header()
    for keyword, value in odd.items():
        tag, vr = tag_for_keyword(keyword) or 0, dictionary_VR(keyword)
        header.add(DataElement(tag, vr, value, validation_mode=IGNORE))

    sr = findings_sr(a_report(), [header])

    assert "PatientAge" not in sr
    assert [sr[keyword].is_empty for keyword in ("StudyDate", "PatientSex", "StudyID")] == [True] * 3


def test_a_name_in_an_old_character_set_is_written_in_utf8(tmp_path: Path) -> None:
    header = a_header(PatientName="Müller^Jürgen")
    header.save_as(tmp_path / "ct.dcm", implicit_vr=False, little_endian=True)
    read = pydicom.dcmread(tmp_path / "ct.dcm", force=True)
    buffer = io.BytesIO()

    findings_sr(a_report(), [read]).save_as(buffer, enforce_file_format=True)

    assert "Müller^Jürgen".encode() in buffer.getvalue()


def test_a_model_name_that_is_a_long_path_fits_its_attribute() -> None:
    report, headers = CASES["normal"]
    path = "C:\\models\\" + "lingshu/" * 20
    named_so = replace(report, provenance=replace(report.provenance, model=path, weights_sha256=""))

    sr = findings_sr(named_so, headers)

    assert len(sr.ManufacturerModelName) <= 64
    assert "\\" not in sr.ManufacturerModelName
    assert len(sr.DeviceSerialNumber) == 16


# Refusals


def test_a_finding_that_cites_an_image_which_is_not_among_the_headers_is_refused() -> None:
    headers = a_series()
    stranger = an_image(a_header(series=f"{SERIES}.7"))

    for finding in (a_nodule(stranger), an_effusion(stranger)):
        with pytest.raises(ValueError, match="which is not among the 5 images of the study"):
            findings_sr(a_report(finding), headers)
        with pytest.raises(ValueError, match="which is not among the 5 images of the study"):
            text_sr(a_report(finding), headers)


def test_a_slice_of_a_nifti_file_has_no_sr() -> None:
    finding = an_effusion(FileImage(file="ct.nii.gz", index=3))

    with pytest.raises(ValueError, match="which is not among"):
        findings_sr(a_report(finding), a_series())


def test_a_box_outside_its_image_is_refused() -> None:
    headers = a_series()
    image = an_image(headers[0])
    outside = replace(a_box(image), column_max=320.5)

    with pytest.raises(
        ValueError, match=r"reaches to column 320\.5, row 40, outside its image of 320 columns"
    ):
        findings_sr(a_report(a_nodule(image, box=outside)), headers)


def test_a_frame_that_the_image_does_not_have_is_refused() -> None:
    header = a_header(NumberOfFrames=20)

    with pytest.raises(ValueError, match=r"cites frame 21 of .*, which has 20"):
        findings_sr(a_report(a_nodule(an_image(header, 21))), [header])
    with pytest.raises(ValueError, match="names none of its 20 frames"):
        findings_sr(a_report(a_nodule(an_image(header))), [header])


def test_headers_of_two_studies_or_patients_are_refused_without_naming_anyone() -> None:
    one, two = a_series(2)
    two.StudyInstanceUID = f"{STUDY}.2"
    three, four = a_series(2)
    four.PatientID = "SECRET"

    with pytest.raises(StudyError, match="images of 2 studies, expected one patient and one study"):
        findings_sr(a_report(), [one, two])
    with pytest.raises(StudyError, match="images of 2 patients") as caught:
        text_sr(a_report(), [three, four])
    assert "SECRET" not in str(caught.value)


def test_no_headers_and_a_header_without_uid_are_refused() -> None:
    nameless = a_header()
    del nameless.SOPInstanceUID

    with pytest.raises(StudyError, match="found no image headers"):
        findings_sr(a_report(), [])
    with pytest.raises(StudyError, match="without SOPInstanceUID"):
        findings_sr(a_report(), [nameless])


def test_a_report_of_another_study_is_refused() -> None:
    report = a_report()
    elsewhere = replace(report, study=replace(report.study, study_instance_uid="1.2.3"))

    with pytest.raises(ValueError, match=r"the report is of study 1\.2\.3"):
        findings_sr(elsewhere, a_series())


def test_two_findings_with_one_tracking_uid_are_refused() -> None:
    image = an_image(a_series()[0])

    with pytest.raises(ValueError, match=r"2 findings share the tracking UID 2\.25\.11"):
        findings_sr(a_report(a_nodule(image), a_nodule(image)), a_series())
    with pytest.raises(ValueError, match="'nodule 1' is not a UID"):
        findings_sr(a_report(a_nodule(image, tracking_uid="nodule 1")), a_series())


def test_an_outcome_that_contradicts_the_findings_is_refused() -> None:
    image = an_image(a_series()[0])

    with pytest.raises(ValueError, match="the outcome is no-findings, but 1 findings are present"):
        findings_sr(a_report(a_nodule(image), outcome=Outcome.NO_FINDINGS), a_series())
    with pytest.raises(ValueError, match="the outcome is findings, but none is"):
        findings_sr(a_report(outcome=Outcome.FINDINGS), a_series())
    for outcome in (Outcome.FAILED, Outcome.NOT_ASSESSED):
        with pytest.raises(ValueError, match=f"the outcome is {outcome}, so there can be no findings"):
            findings_sr(a_report(a_nodule(image), outcome=outcome), a_series())


def test_a_measurement_in_another_unit_is_refused() -> None:
    image = an_image(a_series()[0])
    wrong = Measurement(code="short_axis", value=1.2, unit="cm")

    with pytest.raises(ValueError, match="measurement short_axis is in 'cm', expected 'mm'"):
        findings_sr(a_report(a_nodule(image, measurements=(wrong,))), a_series())


# Size


def test_300_images_take_under_150_kib() -> None:
    headers = a_series(300)
    findings = [a_nodule(an_image(headers[10 * k]), tracking_uid=f"2.25.{k}") for k in range(1, 6)]
    report = a_report(*findings)
    buffer = io.BytesIO()

    findings_sr(report, headers).save_as(buffer, enforce_file_format=True)

    assert len(buffer.getvalue()) < 150 * 1024
