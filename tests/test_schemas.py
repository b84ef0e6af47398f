"""The published schemas are those of the code, and what we write obeys them to the last field."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator, ValidationError

from medmllm_plugin import codes, schemas
from medmllm_plugin.cli import medmllm
from medmllm_plugin.findings import Change, Severity, Side, Status
from medmllm_plugin.phantoms import sample_study
from medmllm_plugin.phantoms.dicom import truth
from medmllm_plugin.report import Outcome, Report
from medmllm_plugin.sliceset import joined
from tests.sr_reports import a_header, a_nodule, a_report, an_image
from tests.test_report import reports
from tests.values import a_slice_set

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"

Json = dict[str, Any]


def published(name: str) -> Json:
    schema: Json = json.loads((FOLDER / f"{name}.schema.json").read_text("utf-8"))
    return schema


def closed(schema: Any) -> Any:
    """The schema without room for fields that it doesn't name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: closed(one) for name, one in schema.items()}
    return {**inner, "additionalProperties": False} if "properties" in schema else inner


def check(data: object, name: str) -> None:
    Draft202012Validator(closed(published(name))).validate(data)


def a_report_as_json() -> Json:
    return json.loads(a_report(a_nodule(an_image(a_header(1)), center_mm=(1, 2, 3))).to_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "text"), schemas.texts().items())
def test_the_published_schema_is_that_of_the_code(name: str, text: str) -> None:
    as_published = (FOLDER / name).read_text("utf-8")

    assert as_published == text, "write it anew: python -m medmllm_plugin.schemas docs/schemas"


def test_no_other_schema_is_published() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(schemas.texts())


@pytest.mark.parametrize("name", ["report", "slices", "truth"])
def test_a_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(published(name))


def test_closed_values_are_the_enums_of_the_code() -> None:
    report = published("report")
    finding = report["$defs"]["Finding"]["properties"]

    assert report["properties"]["outcome"]["enum"] == [one.value for one in Outcome]
    assert finding["side"]["enum"] == [one.value for one in Side]
    assert finding["status"]["enum"] == [one.value for one in Status]
    assert finding["severity"]["anyOf"] == [{"enum": [one.value for one in Severity]}, {"type": "null"}]
    assert finding["change"]["anyOf"] == [{"enum": [one.value for one in Change]}, {"type": "null"}]
    assert published("truth")["$defs"]["Finding"] == report["$defs"]["Finding"]


@pytest.mark.parametrize("table", [codes.findings(), codes.sites(), codes.measurements()])
def test_each_key_of_the_table_has_the_form_that_the_schema_asks(table: dict[str, object]) -> None:
    finding = published("report")["$defs"]["Finding"]["properties"]["finding"]

    for key in table:
        Draft202012Validator(finding).validate(key)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(report=reports)
def test_any_report_obeys_its_schema(report: Report) -> None:
    check(json.loads(report.to_text()), "report")


@pytest.mark.parametrize("placed", [True, False])
def test_slices_obey_their_schema_with_and_without_a_place(placed: bool) -> None:
    slices = a_slice_set(3, placed=placed)

    check(json.loads(json.dumps(slices.to_json(folder="pictures/"))), "slices")


def test_slices_of_several_series_and_of_a_prior_study_obey_their_schema() -> None:
    one, other = a_slice_set(3), a_slice_set(2, modality="MR", unit="")
    other = replace(other, study=replace(other.study, series_instance_uid="1.2.4"))
    together = replace(joined([one, other], words=["", "FLAIR"]), days_before=40)

    listed = json.loads(json.dumps(together.to_json(folder="pictures/", first=7)))

    check(listed, "slices")
    assert [part["pictures"] for part in listed["series"]["parts"]] == [3, 2]
    assert listed["series"]["days_before"] == 40
    assert [one["picture"] for one in listed["slices"]][:2] == ["pictures/007.png", "pictures/008.png"]


@pytest.mark.parametrize("findings", [None, (), ("nodule",)])
def test_a_truth_obeys_its_schema(findings: tuple[str, ...] | None) -> None:
    study = sample_study(seed=3, findings=findings, slices=16)

    check(json.loads(json.dumps(truth(study))), "truth")


def test_the_files_that_the_commands_write_obey_their_schemas(tmp_path: Path) -> None:
    study, out, replies = tmp_path / "study", tmp_path / "out", tmp_path / "replies.json"
    said = {
        **{"finding": "nodule", "site": "lung", "side": "left", "status": "present", "severity": "mild"},
        **{"pictures": [2], "box": {"picture": 2, "bbox_2d": [40, 50, 60, 70]}, "sentence": "Nodule."},
    }
    replies.write_text(
        json.dumps([{"abnormal_pictures": [2], "findings": [said], "impression": ["Nodule."]}])
    )

    CliRunner().invoke(medmllm, ["phantom", str(study), "--findings", "nodule", "--slices", "16"])
    done = CliRunner().invoke(
        medmllm, ["read", str(study), "--model", f"scripted:{replies}", "--slices", "4", "-o", str(out)]
    )

    assert done.exit_code == 0
    check(json.loads((out / "report.json").read_text("utf-8")), "report")
    check(json.loads((out / "slices.json").read_text("utf-8")), "slices")
    check(json.loads((study / "truth.json").read_text("utf-8")), "truth")


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": "medmllm-report/2"},
        {"disclaimer": ""},
        {"outcome": "fine"},
        {"findings": None},
        {"narrative": {"findings": []}},
        {"raw_reply": 1},
    ],
)
def test_a_report_that_is_not_one_is_noticed(wrong: Json) -> None:
    with pytest.raises(ValidationError):
        check({**a_report_as_json(), **wrong}, "report")


@pytest.mark.parametrize(
    "wrong",
    [
        {"side": "port"},
        {"certainty": 1.5},
        {"finding": "Lung Nodule"},
        {"center_mm": [1, 2]},
        {"box": {"picture": 0}},
        {"images": [{"file": "ct.nii.gz", "index": -1}]},
        {"tracking_uid": None},
    ],
)
def test_a_finding_that_is_not_one_is_noticed(wrong: Json) -> None:
    data = a_report_as_json()
    data["findings"][0].update(wrong)

    with pytest.raises(ValidationError):
        check(data, "report")


def test_more_fields_are_allowed_and_fewer_are_not() -> None:
    data = a_report_as_json()
    more, fewer = {**deepcopy(data), "added": 1}, deepcopy(data)
    del fewer["findings"][0]["change"]
    validator = Draft202012Validator(published("report"))

    assert validator.is_valid(data)
    assert validator.is_valid(more)
    assert not validator.is_valid(fewer)
