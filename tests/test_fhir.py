"""The FHIR Bundle is valid R4 by another's models, says what the report says, and names nobody."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fhir.resources.R4B.bundle import Bundle
from hypothesis import HealthCheck, given, settings

from medmllm_plugin import codes, fhir
from medmllm_plugin.cli import medmllm
from medmllm_plugin.findings import Agreement, Change, Measurement, SecondOpinion, Severity, Side, Status
from medmllm_plugin.report import DISCLAIMER, Answer, Outcome, Report
from medmllm_plugin.source import FileImage
from medmllm_plugin.volume import Study
from tests.sr_reports import (
    STUDY,
    a_nodule,
    a_pneumothorax_not_there,
    a_report,
    a_series,
    an_effusion,
    an_image,
)
from tests.test_report import reports

Json = dict[str, Any]


def a_full_report() -> Report:
    images = [an_image(header) for header in a_series(3)]
    return a_report(
        a_nodule(images[0], severity=Severity.MODERATE, change=Change.NEW),
        an_effusion(images[1], images[2], image_supported=False),
        a_pneumothorax_not_there(*images),
    )


def read_by_two() -> Report:
    """A report whose first finding another model contradicts; the second one that alone saw."""
    report = a_full_report()
    nodule, effusion, pneumothorax = report.findings
    said = {"status": Status.ABSENT, "side": Side.LEFT, "certainty": 0.7, "sentence": "No nodule."}
    disputed = SecondOpinion(model="Other", verdict=Agreement.DISAGREES, first_certainty=0.9, **said)
    alone = SecondOpinion(model="Other", verdict=Agreement.ALONE, status=Status.PRESENT, sentence="Fluid.")
    silent = SecondOpinion(model="Other", verdict=Agreement.SILENT)
    return replace(
        report,
        findings=(
            replace(nodule, second=disputed),
            replace(effusion, second=alone),
            replace(pneumothorax, second=silent),
        ),
        second=replace(
            report.provenance, model="Other", model_version="2.1", weights_sha256="cd" * 32, prompt_sha256="e"
        ),
    )


def resources(bundle: Json, kind: str) -> list[Json]:
    found = [one["resource"] for one in bundle["entry"]]
    return [one for one in found if one["resourceType"] == kind]


def coding(concept: Json) -> tuple[str, str]:
    (one,) = concept["coding"]
    return one["system"], one["code"]


def components(observation: Json) -> dict[str, Any]:
    """The value of each component by its name."""
    return {
        one["code"]["coding"][0]["display"]: coding(one["valueCodeableConcept"])
        if "valueCodeableConcept" in one
        else (one["valueQuantity"]["value"], one["valueQuantity"]["code"])
        for one in observation.get("component", [])
    }


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from strings(one)


def test_the_bundle_is_valid_and_nothing_in_it_is_unknown_to_fhir() -> None:
    bundle = fhir.bundle(a_full_report(), patient_id="P-1")

    read = Bundle.model_validate(bundle)

    assert json.loads(read.model_dump_json(exclude_none=True)) == bundle
    assert "extension" not in json.dumps(bundle).lower()


def test_the_check_notices_what_is_no_fhir() -> None:
    bundle = fhir.bundle(a_full_report())
    del resources(bundle, "Observation")[0]["status"]

    with pytest.raises(ValueError, match="status"):
        Bundle.model_validate(bundle)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(report=reports)
def test_any_report_makes_a_valid_bundle(report: Report) -> None:
    bundle = fhir.bundle(report)

    Bundle.model_validate(json.loads(json.dumps(bundle, allow_nan=False)))

    assert len(resources(bundle, "Observation")) == len(report.findings)
    assert all(
        one.strip() and not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff]", one) for one in strings(bundle)
    )


def test_the_report_comes_first_and_points_to_each_finding_in_order() -> None:
    bundle = fhir.bundle(a_full_report())

    (report,) = resources(bundle, "DiagnosticReport")
    places = [one["fullUrl"] for one in bundle["entry"]]
    assert bundle["entry"][0]["resource"] is report
    assert [one["reference"] for one in report["result"]] == places[1:-1]
    assert len(set(places)) == len(places) == 5
    assert all(
        place == f"urn:uuid:{one['resource']['id']}"
        for place, one in zip(places, bundle["entry"], strict=True)
    )


def test_the_report_is_preliminary_and_says_what_it_is() -> None:
    (report,) = resources(fhir.bundle(a_full_report()), "DiagnosticReport")

    (form,) = report["presentedForm"]
    text = base64.b64decode(form["data"]).decode("utf-8")
    assert report["status"] == "preliminary"
    assert coding(report["code"]) == ("http://loinc.org", "18748-4")
    assert report["imagingStudy"] == [
        {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}}
    ]
    assert report["conclusion"].splitlines() == ["As above.", DISCLAIMER]
    assert coding(report["conclusionCode"][0])[1] == "111242"
    assert text.splitlines()[:2] == ["AI draft report (unverified)", DISCLAIMER]
    assert "右肺下叶結節" in text
    assert "weights_sha256: abab" in text


def test_a_finding_is_coded_with_its_place_size_and_certainty() -> None:
    observation = resources(fhir.bundle(a_full_report()), "Observation")[0]

    sct, dcm = "http://snomed.info/sct", "http://dicom.nema.org/resources/ontology/DCM"
    assert observation["status"] == "preliminary"
    assert coding(observation["code"]) == (sct, "27925004")
    assert coding(observation["valueCodeableConcept"]) == (sct, "52101004")
    assert coding(observation["bodySite"]) == (sct, "90572001")
    assert observation["bodySite"]["text"] == "lower lobe of lung, right"
    assert observation["identifier"] == [{"system": "urn:dicom:uid", "value": "urn:oid:2.25.11"}]
    assert observation["note"] == [{"text": "Solid nodule ≤ 16 mm, 12 µm rim – 右肺下叶結節."}]
    assert components(observation) == {
        "Laterality": (sct, "24028007"),
        "Severity": (sct, "6736007"),
        "Description of Change": (sct, "129721008"),
        "Long axis": (16.0, "mm"),
        "Certainty of Finding": (87.0, "%"),
    }
    assert observation["component"][-1]["code"]["coding"][0]["system"] == dcm


def test_an_absent_finding_is_said_to_be_absent_and_a_masked_one_to_stand_on_nothing() -> None:
    _, effusion, pneumothorax = resources(fhir.bundle(a_full_report()), "Observation")

    assert coding(pneumothorax["valueCodeableConcept"])[1] == "272519000"
    assert "Laterality" not in components(pneumothorax)
    assert effusion["note"][1]["text"].startswith("Not image-supported")


def test_a_size_that_was_measured_is_not_said_twice() -> None:
    image = an_image(a_series(1)[0])
    measured = (
        Measurement(code="long_axis", value=12.5, unit="mm"),
        Measurement(code="area", value=9, unit="mm2"),
    )

    (observation,) = resources(fhir.bundle(a_report(a_nodule(image, measurements=measured))), "Observation")

    numbers = [one["valueQuantity"]["value"] for one in observation["component"] if "valueQuantity" in one]
    assert numbers == [12.5, 9, 87.0]


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (Outcome.NO_FINDINGS, "111241", "The model reported no findings."),
        (Outcome.OUTSIDE_DOMAIN, "111245", "Not assessed: the model was never made"),
        (Outcome.NOT_ASSESSED, "111245", "Not assessed for findings."),
        (Outcome.FAILED, "111245", "Not assessed: the reading failed."),
    ],
)
def test_a_report_without_findings_says_how_it_ended(outcome: Outcome, code: str, words: str) -> None:
    bundle = fhir.bundle(a_report(outcome=outcome, impression=()))

    (report,) = resources(bundle, "DiagnosticReport")
    Bundle.model_validate(bundle)
    assert "result" not in report
    assert coding(report["conclusionCode"][0])[1] == code
    assert report["conclusion"].startswith(words)


def test_an_answer_is_concluded_once() -> None:
    answer = Answer(text="No effusion is seen.", choice=None)
    report = a_report(question="Effusion?", answer=answer, impression=(answer.text, "As before."))

    (whole,) = resources(fhir.bundle(report), "DiagnosticReport")

    text = base64.b64decode(whole["presentedForm"][0]["data"]).decode("utf-8")
    assert whole["conclusion"].splitlines()[1:3] == [
        "Question: Effusion? Answer: No effusion is seen.",
        "As before.",
    ]
    assert text.count("No effusion is seen.") == 1


def test_the_same_reading_has_the_same_ids_and_another_has_others() -> None:
    def ids(report: Report) -> list[str]:
        return [one["fullUrl"] for one in fhir.bundle(report)["entry"]]

    first = a_full_report()
    slower = replace(first, provenance=replace(first.provenance, seconds=99.0))
    asked_otherwise = replace(first, provenance=replace(first.provenance, prompt_sha256="12" * 32))
    retrained = replace(first, provenance=replace(first.provenance, weights_sha256="34" * 32))

    assert fhir.bundle(slower) == fhir.bundle(first)
    assert set(ids(first)) & set(ids(asked_otherwise)) == {ids(first)[-1]}
    assert set(ids(first)) & set(ids(retrained)) == set()


def test_files_without_uids_are_told_apart_by_what_was_said_of_them() -> None:
    image = FileImage(file="ct.nii.gz", index=3)
    study = Study(modality="CT")
    one, other = (
        fhir.bundle(a_report(a_nodule(image), study=study, raw_reply=reply)) for reply in ("{}", "{ }")
    )

    (report,) = resources(one, "DiagnosticReport")
    Bundle.model_validate(one)
    assert "imagingStudy" not in report
    assert "derivedFrom" not in resources(one, "Observation")[0]
    assert one["id"] != other["id"]


def test_the_model_is_the_device_of_each_observation() -> None:
    bundle = fhir.bundle(a_full_report())

    (device,) = resources(bundle, "Device")
    assert device["deviceName"] == [{"name": "phantom-reader", "type": "model-name"}]
    assert device["version"] == [{"value": "0.1"}]
    assert {one["device"]["reference"] for one in resources(bundle, "Observation")} == {
        f"urn:uuid:{device['id']}"
    }
    assert all(one["meta"]["security"][0]["code"] == "AIAST" for one in resources(bundle, "Observation"))


def test_what_a_second_model_makes_of_a_finding_is_told_in_words_and_values() -> None:
    bundle = fhir.bundle(read_by_two())

    Bundle.model_validate(bundle)
    disputed, alone, silent = resources(bundle, "Observation")
    asked = {one["code"].get("text"): one for one in disputed["component"]}
    sct = "http://snomed.info/sct"
    assert asked["Second model"]["valueCodeableConcept"] == {"text": "disagrees"}
    assert coding(asked["Status by the second model"]["valueCodeableConcept"]) == (sct, "272519000")
    assert coding(asked["Side by the second model"]["valueCodeableConcept"]) == (sct, "7771000")
    assert asked["Certainty by the second model"]["valueQuantity"]["value"] == 70.0
    assert asked["Certainty before the second model was heard"]["valueQuantity"]["value"] == 90.0
    assert [one["text"] for one in disputed["note"]][1:] == [
        "Other disagrees: absent, left",
        "Other wrote: No nodule.",
    ]
    assert alone["note"][-1] == {"text": "seen by Other alone"}
    assert silent["note"][-1] == {"text": "not mentioned by Other"}


def test_each_of_two_models_is_a_device_and_what_the_second_alone_saw_is_its_own() -> None:
    report = read_by_two()

    bundle = fhir.bundle(report)

    first, second = resources(bundle, "Device")
    (whole,) = resources(bundle, "DiagnosticReport")
    text = base64.b64decode(whole["presentedForm"][0]["data"]).decode("utf-8")
    by = [one["device"]["reference"].removeprefix("urn:uuid:") for one in resources(bundle, "Observation")]
    assert by == [first["id"], second["id"], first["id"]]
    assert second["deviceName"] == [{"name": "Other", "type": "model-name"}]
    assert second["version"] == [{"value": "2.1"}]
    assert second["property"][0]["valueCode"] == [{"text": "cd" * 32}]
    assert second["note"][0]["text"].startswith("A second model")
    assert "Second model\nmodel: Other\nmodel_version: 2.1" in text
    assert bundle["id"] != fhir.bundle(replace(report, second=None))["id"]


def test_the_patient_is_only_who_the_caller_says() -> None:
    anonymous = fhir.bundle(a_full_report())
    named = fhir.bundle(a_full_report(), patient_id="P-1")

    subjects = [one["resource"].get("subject") for one in named["entry"]]
    assert "Patient" not in json.dumps(anonymous)
    assert subjects == [{"type": "Patient", "identifier": {"value": "P-1"}}] * 4 + [None]
    with pytest.raises(ValueError, match="can't be blank"):
        fhir.bundle(a_full_report(), patient_id=" ")


def test_a_phantom_is_marked_as_test_data() -> None:
    report = a_full_report()

    bundle = fhir.bundle(replace(report, study=replace(report.study, phantom="ct-chest")))

    assert bundle["meta"]["tag"][0]["code"] == "HTEST"
    assert "tag" not in fhir.bundle(report)["meta"]


def test_each_scheme_of_the_table_has_its_uri() -> None:
    tables = (codes.findings(), codes.sites(), codes.measurements())
    schemes = {row.code.scheme for table in tables for row in table.values()}
    kinds = ("laterality", "status", "severity", "change", "outcome", "procedure")
    schemes |= {code.scheme for kind in kinds for code in codes.qualifiers(kind).values()}

    assert schemes <= set(fhir.SYSTEMS)


def test_the_command_writes_it_only_if_asked(tmp_path: Path) -> None:
    run = CliRunner().invoke
    study, replies = tmp_path / "study", tmp_path / "replies.json"
    said = {
        **{"finding": "nodule", "site": "lung", "side": "left", "status": "present", "severity": None},
        **{"pictures": [1], "box": None, "sentence": "Nodule."},
    }
    replies.write_text(
        json.dumps([{"abnormal_pictures": [1], "findings": [said], "impression": ["Nodule."]}])
    )
    run(medmllm, ["phantom", str(study), "--findings", "nodule", "--slices", "16"])
    read = ["read", str(study), "--model", f"scripted:{replies}", "--slices", "2", "--json"]

    plain = run(medmllm, [*read, "-o", str(tmp_path / "plain")])
    asked = run(medmllm, [*read, "-o", str(tmp_path / "asked"), "--fhir"])
    told = run(medmllm, [*read[:-1], "-o", str(tmp_path / "told"), "--fhir"])

    path = Path(json.loads(asked.stdout)["files"]["fhir"])
    bundle = json.loads(path.read_text("utf-8"))
    assert (plain.exit_code, asked.exit_code) == (0, 0)
    assert path == tmp_path / "asked" / "fhir.json"
    assert not (tmp_path / "plain" / "fhir.json").exists()
    assert f"{tmp_path / 'told' / 'fhir.json'}  " in told.stdout
    Bundle.model_validate(bundle)
    assert "PHANTOM^" not in json.dumps(bundle)
    assert [one["valueCodeableConcept"]["coding"][0]["code"] for one in resources(bundle, "Observation")] == [
        codes.qualifier("status", Status.PRESENT).value
    ]
    assert components(resources(bundle, "Observation")[0])["Laterality"][1] == (
        codes.qualifier("laterality", Side.LEFT).value
    )
