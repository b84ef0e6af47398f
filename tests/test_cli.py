"""Each command parses, calls one function, prints, and gives the right exit code; errors are one line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from medmllm_plugin import __version__
from medmllm_plugin.cli import medmllm
from medmllm_plugin.errors import ModelError, OutputError, ReplyError, StudyError
from medmllm_plugin.findings import Box, Finding, Side, Status
from medmllm_plugin.report import DISCLAIMER, Outcome, Provenance, Report
from medmllm_plugin.request import Context
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import DicomImage
from medmllm_plugin.transforms.recipes import RECIPES
from medmllm_plugin.volume import Study

ROOT = Path(__file__).parents[1]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(medmllm, [str(one) for one in arguments])


def commands(group: click.Group = medmllm, *before: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found += commands(command, *before, name) if isinstance(command, click.Group) else [(*before, name)]
    return found


def a_report(*, outcome: Outcome = Outcome.FINDINGS) -> tuple[Report, SliceSet]:
    image = DicomImage(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2.3.4", series_instance_uid="1.2.3"
    )
    study = Study(modality="CT", study_instance_uid="1.2", series_instance_uid="1.2.3")
    one = Slice(
        pixels=np.zeros((28, 28, 3), np.uint8),
        source=image,
        source_shape=(28, 28),
        to_source=np.eye(3),
        to_patient=np.eye(4),
        window="CT lung window -600/1500 HU",
    )
    finding = Finding(
        finding="nodule",
        site="lung",
        side=Side.LEFT,
        status=Status.PRESENT,
        sentence="Solid nodule \x1b[2J in the left lung.",
        images=(image,),
        tracking_uid="2.25.1",
        certainty=0.93,
        box=Box(picture=1, image=image, column_min=3, row_min=4, column_max=9, row_max=10),
        center_mm=(5.5, 6.5, 0.0),
        size_mm=12.34,
    )
    report = Report(
        outcome=outcome,
        study=study,
        findings=(finding,) if outcome is Outcome.FINDINGS else (),
        narrative=(),
        impression=("Nodule ≤ 2 cm.",),
        provenance=Provenance(
            model="scripted",
            model_version="",
            weights_sha256="",
            prompt_sha256="",
            schema_sha256="",
            code_version=__version__,
            task="report",
            slice_plan="all",
            seed=0,
            dtype="none",
            seconds=0.0,
        ),
        raw_reply="{}",
        notes=("Left out: a localiser.",),
    )
    return report, SliceSet(slices=(one,), study=study, plan="all")


class Line:
    """Stands for the whole line from study to files, to see what the command makes of how it ends."""

    def __init__(
        self,
        *,
        outcome: Outcome = Outcome.FINDINGS,
        fails: Callable[[], None] | None = None,
        readings: int = 1,
    ) -> None:
        self.asked: dict[str, Any] = {}
        self.sr = ""
        self.outcome = outcome
        self.fails = fails
        self.readings = readings

    def read_each(self, paths: object, *, progress: Callable[[str, int, int], None], **asked: Any) -> Any:
        self.asked = {"paths": paths, **asked}
        for stage in ("reading", "model", "pictures", "thinking"):
            progress(stage, 0, 2)
            progress(stage, 2, 2)
        if self.fails is not None:
            self.fails()
        report, slices = a_report(outcome=self.outcome)
        return [types.SimpleNamespace(report=report, slices=slices, volume=None)] * self.readings

    def write(self, reading: Any, folder: Path, *, sr: str) -> dict[str, Path]:
        self.sr = sr
        (folder / "pictures").mkdir()
        for name in ("report.json", "report.html", "pictures/001.png"):
            (folder / name).write_text("whole")
        return {"report": folder / "report.json", "page": folder / "report.html"}


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Line]:
    def put(**settings: Any) -> Line:
        stand_in = Line(**settings)
        module = types.ModuleType("medmllm_plugin.pipeline")
        vars(module).update(read_each=stand_in.read_each, write=stand_in.write)
        monkeypatch.setitem(sys.modules, "medmllm_plugin.pipeline", module)
        monkeypatch.setattr("medmllm_plugin.pipeline", module, raising=False)
        return stand_in

    monkeypatch.chdir(tmp_path)
    return put


def fail(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


def test_the_version_is_that_of_the_distribution() -> None:
    result = run("--version")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert result.stdout == f"medmllm {__version__}\n"
    assert __version__ == project["version"] == importlib.metadata.version("medmllm-plugin")


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_has_help_with_its_options_explained(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: medmllm {' '.join(command)} ")
    assert "--json" in result.stdout


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_each_command_is_documented(command: tuple[str, ...]) -> None:
    pages = [page for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")) if page.exists()]
    if not (ROOT / "README.md").exists():
        pytest.skip("there is no README.md beside these tests, as in an installed wheel")

    documented = "\n".join(page.read_text("utf-8") for page in pages)

    assert re.search(rf"medmllm {' '.join(command)}\b", documented)


def test_without_a_command_the_help_is_shown() -> None:
    assert run().exit_code == 0
    assert "medmllm read study" in run().stdout
    assert "show" in run("sr").stdout


def test_a_reading_is_told_in_a_few_lines(line: Callable[..., Line]) -> None:
    line()

    result = run("read", "study", "-o", "out")

    assert result.exit_code == 0
    assert "Findings reported: CT, 1 picture, model scripted" in result.stdout
    assert "1. Nodule, lung, left: present, 12.3 mm, certainty 93%, pictures/001.png" in result.stdout
    assert "Nodule ≤ 2 cm." in result.stdout
    assert "Left out: a localiser." in result.stdout
    assert "out/report.html  the page, with pictures and boxes\n" in result.stdout
    assert DISCLAIMER in result.stdout
    assert "\x1b" not in result.stdout
    assert (Path("out") / "report.html").read_text() == "whole"


def test_stages_are_told_on_stderr_once_each(line: Callable[..., Line]) -> None:
    line()

    result = run("read", "study", "-o", "out")

    assert result.stderr.splitlines() == [
        "medmllm: reading the study",
        "medmllm: opening the model",
        "medmllm: making pictures",
        "medmllm: the model reads",
        "medmllm: writing the report",
    ]


def test_json_is_the_report_with_its_files_and_nothing_else(line: Callable[..., Line]) -> None:
    line()

    result = run("read", "study", "-o", "out", "--json")

    printed = json.loads(result.stdout)
    files = printed.pop("files")
    assert Report.from_json(printed) == a_report()[0]
    assert {name: Path(path).read_text() for name, path in files.items()} == dict.fromkeys(files, "whole")
    assert result.stderr == ""


def test_options_reach_the_reading(line: Callable[..., Line]) -> None:
    asked = line()

    source = ["--series", "1.2", "--modality", "MR", "--volume", "3"]
    words = ["--ask", "Why?", "--ask", "And then?", "--context", "age=64 years", "--context", "sex=female"]
    run("read", "a", "b", "-o", "out", *words, "--model", "m", "--samples", "7", *source)
    with_questions = asked.asked
    run("read", "a", "-o", "out", "--slices", "7", "--seed", "3", "--plan", "radfm", "--language", "zh")
    plain = asked.asked
    compared = ["--prior", "before", "--prior-report", "before.json", "--study", "--strategy", "zoom"]
    run("read", "a", "-o", "out", *compared)
    with_prior = asked.asked

    told = with_questions.pop("cancel")
    assert not told()
    assert with_questions == {
        "paths": (Path("a"), Path("b")),
        "task": None,
        "questions": ("Why?", "And then?"),
        "choices": (),
        "context": Context(age="64 years", sex="female"),
        "language": "en",
        "model": "m",
        "settings": None,
        "strategy": "consistency:7",
        "evidence": False,
        "second_pass": True,
        "series": "1.2",
        "volume": "3",
        "modality": "MR",
        "study": False,
        "prior": None,
        "prior_report": None,
        "count": None,
        "plan": None,
        "seed": 0,
    }
    assert (plain["model"], plain["count"], plain["seed"], plain["plan"]) == ("embedded", 7, 3, "radfm")
    assert (plain["questions"], plain["context"], plain["language"]) == ((), None, "zh")
    assert (with_prior["prior"], with_prior["prior_report"]) == (Path("before"), Path("before.json"))
    assert (with_prior["study"], with_prior["strategy"]) == (True, "zoom")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--context", "name=Doe"], "found 'name=Doe', expected KEY=TEXT"),
        (["--context", "age"], "found 'age', expected KEY=TEXT"),
        (["--context", "age=1", "--context", "age=2"], "found 'age=2'"),
        (["--config", "nowhere.toml"], "nowhere.toml: can't be read"),
        (["--samples", "3", "--strategy", "zoom"], "--samples goes with --strategy consistency"),
        (["--ask", "A?", "--ask", "B?", "--choice", "yes"], "--choice goes with one question"),
    ],
)
def test_options_that_contradict_are_refused_before_anything_is_read(
    line: Callable[..., Line], options: list[str], words: str
) -> None:
    asked = line()

    result = run("read", "a", "-o", "out", *options)

    assert result.exit_code == 2
    assert words in result.stderr
    assert asked.asked == {}


def test_several_questions_get_a_folder_each(line: Callable[..., Line]) -> None:
    line(readings=2)

    told = run("read", "a", "-o", "out", "--ask", "One?", "--ask", "Two?")
    as_json = run("read", "a", "-o", "out", "--ask", "One?", "--ask", "Two?", "--json")

    assert told.exit_code == 0
    assert {path.relative_to("out").as_posix() for path in Path("out").rglob("report.json")} == {
        "1/report.json",
        "2/report.json",
    }
    assert "Question 2:" in told.stdout
    assert [one["files"]["report"] for one in json.loads(as_json.stdout)] == [
        str(Path("out", "1", "report.json")),
        str(Path("out", "2", "report.json")),
    ]


def test_an_earlier_study_can_not_hold_the_output(line: Callable[..., Line], tmp_path: Path) -> None:
    line()
    (tmp_path / "before" / "images").mkdir(parents=True)

    result = run("read", "a", "-o", "before", "--prior", "before/images")

    assert result.exit_code == 2
    assert "holds the input" in result.stderr


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (Outcome.NO_FINDINGS, 0, "No findings reported"),
        (Outcome.OUTSIDE_DOMAIN, 0, "Outside the model's domain"),
        (Outcome.FAILED, 3, "The reading failed"),
    ],
)
def test_every_outcome_is_said_clearly(
    line: Callable[..., Line], outcome: Outcome, code: int, words: str
) -> None:
    line(outcome=outcome)

    result = run("read", "study", "-o", "out")

    assert result.exit_code == code
    assert words in result.stdout


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            StudyError(found="2 patients", expected="1", where="study", remedy="read each"),
            2,
            "found 2 patients",
        ),
        (ModelError("no model\nat all"), 3, "no model at all"),
        (OutputError("disk full"), 4, "disk full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("DOE^JANE has a bad header"), 1, "a defect of ours: RuntimeError at test_cli.py:"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code_and_leaves_nothing(
    line: Callable[..., Line], error: BaseException, code: int, words: str
) -> None:
    line(fails=fail(error))

    result = run("read", "study", "-o", "out", "--json")

    assert result.exit_code == code
    assert result.stdout == ""
    assert words in result.stderr
    assert "DOE" not in result.stderr
    assert result.stderr.strip().startswith("medmllm: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("where", ["option", "variable"])
def test_debug_shows_the_traceback_before_the_line(
    line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    line(fails=fail(RuntimeError("inner words")))
    if where == "variable":
        monkeypatch.setenv("MEDMLLM_DEBUG", "1")

    result = run("read", "study", "-o", "out", *(["--debug"] if where == "option" else []))

    assert "Traceback" in result.stderr
    assert "inner words" in result.stderr
    assert result.exit_code == 1


def test_replies_that_break_the_schema_are_kept_beside_an_earlier_report(line: Callable[..., Line]) -> None:
    line()
    run("read", "study", "-o", "out")
    line(fails=fail(ReplyError("the reply breaks the schema twice", raw_replies=("first", "second \udc80"))))

    result = run("read", "study", "-o", "out")

    assert result.exit_code == 3
    assert "the reply breaks the schema twice; its replies are kept in out-failed" in result.stderr
    assert Path("out/report.json").read_text() == "whole"
    assert Path("out-failed/raw-reply-1.txt").read_text() == "first"
    assert Path("out-failed/raw-reply-2.txt").read_text() == r"second \udc80"


def test_an_unusable_output_folder_is_found_before_the_study_is_read(line: Callable[..., Line]) -> None:
    asked = line()
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")

    result = run("read", "study", "-o", "out")

    assert result.exit_code == 2
    assert "not an output of ours" in result.stderr
    assert asked.asked == {}
    assert Path("out/thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("out", ["study", "."])
def test_an_output_folder_that_holds_the_input_is_refused(line: Callable[..., Line], out: str) -> None:
    asked = line()
    Path("study").mkdir()

    result = run("read", "study/series", "-o", out)

    assert result.exit_code == 2
    assert asked.asked == {}


def test_without_an_output_folder_each_reading_has_its_own_and_the_same_one_again(
    line: Callable[..., Line],
) -> None:
    line()

    for _ in range(2):
        run("read", "DOE_JANE")
    run("read", "DOE_JANE", "--ask", "Why?")

    folders = sorted(one.name for one in Path("medmllm-out").iterdir())
    assert len(folders) == 2
    assert all(re.fullmatch(r"ct-[0-9a-f]{8}", name) for name in folders)


def test_without_an_output_folder_a_report_that_someone_changed_is_left_alone(
    line: Callable[..., Line],
) -> None:
    line()
    run("read", "study")
    (first,) = Path("medmllm-out").iterdir()
    (first / "report.json").write_text("corrected by hand")

    result = run("read", "study")

    assert result.exit_code == 0
    assert (first / "report.json").read_text() == "corrected by hand"
    assert {one.name for one in Path("medmllm-out").iterdir()} == {first.name, f"{first.name}-2"}


@pytest.mark.parametrize(
    "arguments",
    [["read"], ["read", "study", "--nonsense"], ["nonsense"], ["read", "s", "--slices", "0"], ["sr", "show"]],
)
def test_a_wrong_call_is_one_line_that_points_to_the_help(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert re.fullmatch(r"medmllm: error: .* See: medmllm.* --help\n", result.stderr)


def test_the_profile_of_the_dicom_objects_is_passed_on_and_another_refused(line: Callable[..., Line]) -> None:
    asked = line()

    plain = run("read", "study", "-o", "one")
    usual = asked.sr
    legacy = run("read", "study", "--sr", "legacy", "-o", "two")
    other = run("read", "study", "--sr", "ohif", "-o", "three")

    assert (plain.exit_code, legacy.exit_code, other.exit_code) == (0, 0, 2)
    assert (usual, asked.sr) == ("default", "legacy")


def test_the_tasks_and_models_are_listed_for_people_and_machines() -> None:
    tasks, models = run("tasks"), run("models", "--json")

    assert tasks.stdout.startswith("report ")
    assert {"embedded", "transformers"} <= {one["name"] for one in json.loads(models.stdout)}
    assert json.loads(run("tasks", "--json").stdout)[0]["name"] == "report"


def a_series(folder: Path, *, slices: int = 6) -> Path:
    """A CT series whose values rise along its columns."""
    import pydicom
    from pydicom.dataset import FileMetaDataset

    folder.mkdir()
    for k in range(slices):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{k + 1}"
        data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = (
            "1.2.826.1",
            "1.2.826.2",
            "1.2.826.3",
        )
        data.Modality, data.PatientName, data.PatientID = "CT", "DOE^JANE", "ID-4711"
        data.ImagePositionPatient, data.ImageOrientationPatient = [-20, -30, 5 * k], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.InstanceNumber = [1, 1], k + 1
        data.RescaleSlope, data.RescaleIntercept = 1, -1024
        data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = (
            56,
            56,
            1,
            "MONOCHROME2",
        )
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.PixelData = np.tile(np.arange(56, dtype=np.uint16) * 30, (56, 1)).tobytes()
        data.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def test_slices_writes_each_picture_and_where_it_comes_from(tmp_path: Path) -> None:
    study, out = a_series(tmp_path / "study"), tmp_path / "out"

    result = run("slices", study, "-o", out, "--count", 3, "--size", 56, "--window", "ct-lung")

    written = json.loads((out / "slices.json").read_text())
    assert result.exit_code == 0
    assert [one["picture"] for one in written["slices"]] == ["001.png", "002.png", "003.png"]
    assert [(out / one["picture"]).read_bytes()[:4] for one in written["slices"]] == [b"\x89PNG"] * 3
    assert np.allclose(np.array(written["slices"][0]["to_patient"]) @ [0, 0, 0, 1], [-20, -30, 0, 1])
    assert "3 pictures, and slices.json" in result.stdout
    assert not re.search("doe|jane|id-4711", (result.output + json.dumps(written)).lower())


def test_slices_follows_a_plan(tmp_path: Path) -> None:
    study, out = a_series(tmp_path / "study"), tmp_path / "pictures"

    result = run(
        *("slices", study, "-o", out, "--window", "ct-lung"),
        *("--plan", "count=3,size=112,select=body,labels=yes,window=ct-bone"),
    )

    assert result.exit_code == 0, result.stderr
    assert "evenly over slices" in result.stdout
    assert "CT lung window" in result.stdout
    assert len(list(out.glob("*.png"))) == 3


def test_the_recipes_are_listed_without_a_study() -> None:
    result = run("slices", "--plan", "list")

    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(RECIPES)


def test_the_list_of_recipes_is_json_if_asked() -> None:
    listed = json.loads(run("slices", "--plan", "list", "--json").stdout)

    assert [one["name"] for one in listed] == list(RECIPES)


def test_an_unknown_recipe_is_one_line_that_says_where_to_look(tmp_path: Path) -> None:
    result = run("slices", tmp_path / "study", "-o", tmp_path / "pictures", "--plan", "medgemma")

    assert result.exit_code == 2
    assert "medgemma-ct" in result.stderr
    assert "medmllm slices --plan list" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_slices_as_json_is_what_the_file_holds(tmp_path: Path) -> None:
    study, out = a_series(tmp_path / "study"), tmp_path / "out"

    result = run("slices", study, "-o", out, "--json")

    printed = json.loads(result.stdout)
    assert printed.pop("files") == {"slices": f"{out}/slices.json", "pictures": str(out)}
    assert printed == json.loads((out / "slices.json").read_text())
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["--window", "nonsense"], ["--size", "3"], ["--series", "1.2.3"]])
def test_slices_with_settings_that_do_not_fit_leaves_nothing(tmp_path: Path, arguments: list[str]) -> None:
    study, out = a_series(tmp_path / "study"), tmp_path / "out"

    result = run("slices", study, "-o", out, *arguments)

    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("medmllm: error: ")
    assert {one.name for one in tmp_path.iterdir()} == {"study"}


@pytest.mark.parametrize("command", [["read"], ["slices"], ["sr", "show"]])
def test_input_that_is_not_there_is_one_line_and_exit_code_2(tmp_path: Path, command: list[str]) -> None:
    options = [] if command == ["sr", "show"] else ["-o", tmp_path / "out", "--json"]

    result = run(*command, tmp_path / "nowhere", *options)

    assert result.exit_code == 2
    assert re.fullmatch(r"medmllm: error: .*\n", result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_phantom_is_a_study_with_its_truth(tmp_path: Path) -> None:
    out = tmp_path / "phantom"

    result = run("phantom", out, "--seed", 3, "--findings", "nodule", "--slices", 16)

    truth = json.loads((out / "truth.json").read_text())
    assert result.exit_code == 0
    assert [one["finding"] for one in truth["findings"]] == ["nodule"]
    assert "16 images and truth.json" in result.stdout
    assert "Findings: nodule" in result.stdout


def test_a_phantom_without_findings_says_none(tmp_path: Path) -> None:
    result = run("phantom", tmp_path / "phantom", "--findings", "none", "--slices", 16, "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["findings"] == []


@pytest.mark.parametrize("arguments", [["--kind", "nonsense"], ["--findings", "nonsense"], ["--slices", "3"]])
def test_a_phantom_that_can_not_be_made_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    result = run("phantom", tmp_path / "phantom", *arguments)

    assert result.exit_code == 2
    assert re.fullmatch(r"medmllm: error: .*\n", result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_a_phantom_is_read_end_to_end_and_its_sr_shown(tmp_path: Path) -> None:
    study, replies, out = tmp_path / "study", tmp_path / "replies.json", tmp_path / "out"
    run("phantom", study, "--findings", "nodule", "--slices", 16)
    finding = {
        "finding": "nodule",
        "site": "lung",
        "side": "left",
        "status": "present",
        "severity": None,
        "pictures": [2],
        "box": {"picture": 2, "bbox_2d": [40, 50, 60, 70]},
        "sentence": "Solid nodule in the left lung.",
    }
    reply = {"abnormal_pictures": [2], "findings": [finding], "impression": ["Nodule."]}
    replies.write_text(json.dumps([reply]))

    result = run("read", study, "--model", f"scripted:{replies}", "--slices", 4, "-o", out, "--json")

    printed = json.loads(result.stdout)
    shown = run("sr", "show", out / "findings.dcm")
    assert result.exit_code == 0
    assert [one["finding"] for one in printed["findings"]] == ["nodule"]
    assert all(Path(path).exists() for path in printed["files"].values())
    assert {"report.json", "report.html", "slices.json", "findings.dcm", "report.dcm", "pictures"} <= {
        one.name for one in out.iterdir()
    }
    assert shown.exit_code == 0
    assert "odule" in shown.stdout


def program(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "medmllm_plugin", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, cwd=ROOT, check=False, timeout=120, **settings)


def test_help_and_import_leave_what_is_heavy_alone() -> None:
    code = """
        import sys
        import medmllm_plugin
        from click.testing import CliRunner
        from medmllm_plugin.cli import medmllm
        CliRunner().invoke(medmllm, ["read", "--help"])
        heavy = {"torch", "transformers", "highdicom", "numpy", "pydicom", "PIL", "rich"}
        print(sorted(heavy & set(sys.modules)))
    """

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, cwd=ROOT, check=True, timeout=60
    )

    assert done.stdout.decode().strip() == "[]"


def test_a_program_without_an_error_stream_works_all_the_same(tmp_path: Path) -> None:
    study, out = tmp_path / "study", tmp_path / "out"
    program("phantom", study, "--slices", 16, "--matrix", 64)
    command = [sys.executable, "-m", "medmllm_plugin", "read", str(study), "-o", str(out)]

    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command],
        capture_output=True,
        cwd=ROOT,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0
    assert (out / "report.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_can_not_be_written_is_told_in_a_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "medmllm_plugin", "tasks"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            check=False,
        )

    assert done.returncode == 4
    assert done.stderr.decode().splitlines() == [
        "medmllm: error: standard output can't be written (No space left on device); send it elsewhere"
    ]


def test_public_names_are_loaded_when_asked_for() -> None:
    import medmllm_plugin

    assert medmllm_plugin.Report is Report
    assert medmllm_plugin.Finding is Finding
    assert medmllm_plugin.SliceSet is SliceSet
    assert issubclass(medmllm_plugin.errors.ModelError, medmllm_plugin.errors.MedMLLMError)
    assert {"read", "Volume"} <= set(dir(medmllm_plugin))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = medmllm_plugin.nonsense  # type: ignore[attr-defined]


def test_the_program_speaks_on_a_bare_c_locale(tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"}

    done = program("sr", "show", tmp_path / "Röntgen ≤", env={**plain, **bare})

    assert done.returncode == 2
    assert done.stderr.startswith(b"medmllm: error: R")
    assert done.stderr.isascii()


INTERRUPTED = """
    import sys, time, types
    from pathlib import Path

    def read_each(paths, *, progress, cancel, **asked):
        if THINKING:
            progress("thinking 2/5", 1, 9)
            print("thinking", flush=True)
            while not cancel():
                time.sleep(0.01)
            from medmllm_plugin.errors import CancelledError
            raise CancelledError("stopped between two tokens")
        return [types.SimpleNamespace()]

    def write(reading, folder, sr):
        (folder / "report.json").write_text("half")
        print("writing", flush=True)
        for _ in range(6000):  # a signal just before a long sleep would go unseen till its end
            time.sleep(0.01)

    module = types.ModuleType("medmllm_plugin.pipeline")
    module.read_each, module.write = read_each, write
    sys.modules["medmllm_plugin.pipeline"] = module
    import medmllm_plugin
    medmllm_plugin.pipeline = module
    from medmllm_plugin.cli import main
    main()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupted_program_leaves_neither_half_an_output_nor_litter(
    tmp_path: Path, name: str, thinking: bool
) -> None:
    command = [
        sys.executable,
        "-c",
        f"THINKING = {thinking}\n{textwrap.dedent(INTERRUPTED)}",
        "read",
        "study",
        "-o",
        str(tmp_path / "a" / "out"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as running:
        assert running.stdout is not None
        running.stdout.readline()

        running.send_signal(getattr(signal, name))
        _, said = running.communicate(timeout=30)

    assert running.returncode == 130
    assert said.decode().splitlines()[-1] == "medmllm: interrupted; nothing was left half-written"
    assert b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_help_loads_none_of_the_heavy_packages() -> None:
    heavy = ["torch", "transformers", "monai", "SimpleITK", "nibabel", "pydicom", "numpy", "rich"]
    asked = f"""
import atexit, sys
from medmllm_plugin.cli import medmllm
atexit.register(lambda: print([one for one in {heavy} if one in sys.modules], file=sys.stderr))
medmllm(["--help"])
"""

    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)

    assert done.stderr.strip() == "[]"
