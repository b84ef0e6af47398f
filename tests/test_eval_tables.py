"""The files of benchmarks: each published form is read, and what is broken is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Kind
from medmllm_plugin.evaluation.benchmarks import benchmark
from medmllm_plugin.evaluation.parquet import Cell
from medmllm_plugin.evaluation.pictures import Encoded, Pictures, beside, decoded
from medmllm_plugin.evaluation.run import items_of
from medmllm_plugin.evaluation.stacks import Stack
from medmllm_plugin.evaluation.tables import find, rows
from medmllm_plugin.models.scripted import ScriptedModel


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def a_table(path: Path, *listed: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(listed)), path)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", [{"q": "Is it?"}]),
        ("a.json", {"1": {"q": "Is it?"}}),
        ("a.json", '{"q": "Is it?"}\n{"q": "Is it?"}\n'),
        ("a.jsonl", '{"q": "Is it?"}\n\n'),
        ("a.csv", "\ufeffq,r\nIs it?,1\n"),
        ("a.tsv", "q\tr\nIs it?\t1\n"),
    ],
)
def test_rows_come_of_each_form(name: str, content: Any, tmp_path: Path) -> None:
    found = list(rows(written(tmp_path / name, content)))

    assert {row["q"] for row in found} == {"Is it?"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "[1, 2]", "found JSON without rows"),
        ("a.json", "{", "line 1: found no JSON"),
        ("a.jsonl", '{"q": 1}\nnot json\n', "line 2: found no JSON"),
        ("a.parquet", "not parquet", "found no Parquet file"),
    ],
)
def test_a_broken_file_is_said_in_one_line(name: str, content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=words):
        list(rows(written(tmp_path / name, content)))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SettingsError, match="expected UTF-8"):
        list(rows(tmp_path / "a.csv"))


def test_the_first_pattern_that_names_a_file_is_taken(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "test.json"):
        written(tmp_path / name, [])

    assert find(tmp_path, "test.json", "*.json", what="table").name == "test.json"
    assert find(tmp_path, "?.json", what="table").name == "a.json"


def test_the_hub_counts_the_right_choice_from_0_and_the_authors_from_1(tmp_path: Path) -> None:
    row = {"question": "?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 1}
    written(tmp_path / "authors" / "dev.json", json.dumps(row))
    a_table(tmp_path / "hub" / "data" / "validation-00000.parquet", row)

    answers = [items_of(benchmark("medmcqa"), tmp_path / name)[0].gold for name in ("authors", "hub")]

    assert answers == [("w",), ("x",)]


def test_a_right_choice_that_is_none_of_them_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "dev.json", json.dumps({"question": "?", "opa": "w", "opb": "x", "cop": 0}))

    with pytest.raises(SettingsError, match="found cop '0', expected 1 to 4"):
        items_of(benchmark("medmcqa"), tmp_path)


def test_choices_that_are_the_same_are_offered_once(tmp_path: Path) -> None:
    row = {"question": "?", "options": {"A": "Left", "B": "left", "C": "right"}, "answer_idx": "B"}
    written(tmp_path / "test.jsonl", json.dumps(row))

    (item,) = items_of(benchmark("medqa"), tmp_path)

    assert (item.choices, item.gold) == (("Left", "right"), ("Left",))


def test_pictures_inside_parquet_files_are_shown(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 255).convert("L").save(picture)
    inside = {"bytes": picture.read_bytes(), "path": "p.png"}
    a_table(
        tmp_path / "data" / "test-00000.parquet", {"image": inside, "question": "Is it?", "answer": "yes"}
    )

    (item,) = items_of(benchmark("vqa-rad"), tmp_path)
    slices, _ = item.shown.show(ScriptedModel([]))

    assert item.kind is Kind.YES_NO
    assert slices.slices[0].pixels.shape == (64, 64, 3)


def test_pictures_stay_in_their_parquet_file_until_they_are_shown(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(picture)
    inside = {"bytes": picture.read_bytes(), "path": None}
    row = {"id": "validation_Pharmacy_1", "question": "<image 2>?", "options": "['a', 'b']", "answer": "B"}
    path = a_table(
        tmp_path / "Pharmacy" / "validation-0.parquet",
        {**row, "image_1": None, "image_2": inside},
        {**row, "id": "validation_Pharmacy_2", "image_1": inside, "image_2": None},
    )

    first, second = items_of(benchmark("mmmu-med"), tmp_path)

    assert first.question == "(image 2)?"
    assert isinstance(second.shown, Pictures)
    (file,) = second.shown.files
    assert isinstance(file, Encoded)
    assert file.content == Cell(path=path, group=0, row=1, column="image_1")
    assert int(decoded(file).mean()) == 77


def test_pictures_of_sixteen_bits_are_stretched_and_large_ones_are_made_smaller(tmp_path: Path) -> None:
    deep, large = tmp_path / "deep.png", tmp_path / "large.png"
    Image.fromarray(np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)).save(deep)
    Image.fromarray(np.zeros((10, 4000), np.uint8)).save(large)

    assert (decoded(deep).min(), decoded(deep).max()) == (0, 255)
    assert decoded(large).shape[1] == 1536


def test_what_is_no_picture_names_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jpg", "not a picture")

    with pytest.raises(SettingsError, match=r"p\.jpg: found no picture that can be read"):
        decoded(path)
    with pytest.raises(SettingsError, match="cell: found no picture"):
        decoded(Encoded(name="cell", content=b"nothing"))


def test_a_name_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected one inside the folder"):
        beside(tmp_path, "../../etc/passwd", ("images",))
    assert beside(tmp_path, "/abs/p.jpg", ("images",)) == tmp_path / "images" / "abs" / "p.jpg"


def test_several_pictures_are_shown_in_their_order(tmp_path: Path) -> None:
    files = []
    for grey in (10, 200):
        files.append(tmp_path / f"{grey}.png")
        Image.fromarray(np.full((8, 8), grey, np.uint8)).save(files[-1])

    slices, _ = Pictures(files=tuple(files), modality="DX").show(ScriptedModel([]))

    assert [int(one.pixels.mean()) for one in slices.slices] == [10, 200]
    assert slices.study.modality == "DX"


def test_a_stack_of_numpy_is_shown_plane_by_plane(tmp_path: Path) -> None:
    values = np.zeros((1, 3, 8, 8, 5))
    values[..., 4] = 1
    np.save(tmp_path / "s.npy", values)
    np.save(tmp_path / "flat.npy", np.zeros((8, 8)))

    slices, _ = Stack(file=tmp_path / "s.npy").show(ScriptedModel([]))

    assert [int(one.pixels.max()) for one in slices.slices] == [0, 0, 0, 0, 255]
    with pytest.raises(SettingsError, match=r"found shape \(8, 8\)"):
        Stack(file=tmp_path / "flat.npy").show(ScriptedModel([]))


def test_of_rad_bench_a_picture_is_found_by_the_end_of_its_path(tmp_path: Path) -> None:
    for folder in ("one/p1", "two/p1"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), len(folder), np.uint8)).save(tmp_path / folder / "image.png")
    table = "image_path,disease,label\n/disk/two/p1/image.png,edema,1.0\n/disk/one/p1/image.png,edema,0\n"
    written(tmp_path / "pcxr_balance_test.csv", table)

    found = items_of(benchmark("rad-bench-diagnosis"), tmp_path)

    files = [one.shown.files[0] for one in found if isinstance(one.shown, Pictures)]
    assert [Path(str(one)).parts[-3] for one in files] == ["two", "one"]
    assert [one.gold for one in found] == [("yes",), ("no",)]


def test_mimic_reports_are_cut_into_sections_and_frontal_views_come_first(tmp_path: Path) -> None:
    top = tmp_path / "files" / "p10" / "p10000001"
    written(top / "s5.txt", "EXAM\n FINDINGS:  Clear\n lungs.\n\n IMPRESSION: None.\n")
    heads = [("lat", "LATERAL"), ("front", "PA"), ("train", "PA")]
    written(
        tmp_path / "mimic-cxr-2.0.0-split.csv",
        "dicom_id,study_id,subject_id,split\n"
        + "".join(f"{one},5,10000001,{'train' if one == 'train' else 'test'}\n" for one, _ in heads),
    )
    written(
        tmp_path / "mimic-cxr-2.0.0-metadata.csv",
        "dicom_id,ViewPosition\n" + "".join(f"{one},{view}\n" for one, view in heads),
    )

    (item,) = items_of(benchmark("mimic-cxr"), tmp_path)

    assert item.gold == ("Findings: Clear lungs. Impression: None.",)
    assert isinstance(item.shown, Pictures)
    assert [one.name for one in item.shown.files] == ["front.jpg", "lat.jpg"]
