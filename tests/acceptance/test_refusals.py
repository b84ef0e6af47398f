"""Bad input and interrupts: one clear line, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import SegmentationStorage

from tests.acceptance.program import Command, left_in, program, surroundings
from tests.builders import (
    a_dataset,
    save,
    set_pixels,
    write_ct_series,
    write_nifti,
    write_rtstruct,
    write_sr,
)


def an_empty_folder(folder: Path) -> list[object]:
    folder.mkdir()
    return [folder]


def only_a_structured_report(folder: Path) -> list[object]:
    write_sr(folder / "sr.dcm")
    return [folder]


def only_a_structure_set(folder: Path) -> list[object]:
    write_rtstruct(folder / "rt.dcm")
    return [folder]


def only_a_segmentation(folder: Path) -> list[object]:
    dataset = a_dataset(sop_class=SegmentationStorage, modality="SEG")
    set_pixels(dataset, np.ones((2, 6, 8), np.uint8))
    save(dataset, folder / "seg.dcm")
    return [folder]


def two_patients(folder: Path) -> list[object]:
    write_ct_series(folder / "a", seed="a", PatientID="T1", PatientName="Smith^Secret")
    write_ct_series(folder / "b", seed="b", PatientID="T2", PatientName="Jones^Secret")
    return [folder]


def a_truncated_file(folder: Path) -> list[object]:
    paths = write_ct_series(folder, rows=64, columns=64)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    return [folder]


def a_file_cut_in_its_header(folder: Path) -> list[object]:
    (path,) = write_ct_series(folder, slices=1)
    path.write_bytes(path.read_bytes()[:400])
    return [path]


def a_file_that_is_no_dicom(folder: Path) -> list[object]:
    folder.mkdir()
    (folder / "image.dcm").write_text("This is no image.\n" * 40)
    return [folder / "image.dcm"]


def a_nifti_with_a_singular_affine(folder: Path) -> list[object]:
    path = write_nifti(folder / "flat.nii", np.zeros((6, 5, 4), np.int16), np.eye(4))
    content = bytearray(path.read_bytes())
    content[252:254] = bytes(2)  # qform_code: none, so that the sform counts
    content[296:312] = bytes(16)  # srow_y: all 0
    path.write_bytes(content)
    return [path]


def a_model_that_is_none(folder: Path) -> list[object]:
    write_ct_series(folder / "study", slices=3)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    return [folder / "study", "--model", folder / "model"]


def an_output_below_a_file(folder: Path) -> list[object]:
    write_ct_series(folder / "study", slices=3)
    (folder / "file").write_text("in the way")
    return [folder / "study", "-o", folder / "file" / "out"]


BAD: dict[Callable[[Path], list[object]], str] = {
    an_empty_folder: "found an empty folder",
    only_a_structured_report: "SR",
    only_a_structure_set: "RTSTRUCT",
    only_a_segmentation: "1 Segmentation",
    two_patients: "2 patients",
    a_truncated_file: r"0005\.dcm",
    a_file_cut_in_its_header: r"0001\.dcm",
    a_file_that_is_no_dicom: "image.dcm",
    a_nifti_with_a_singular_affine: r"flat\.nii: its affine is singular",
    a_model_that_is_none: "model",
    an_output_below_a_file: "can't be written",
}


@pytest.mark.parametrize("prepare", BAD, ids=lambda prepare: prepare.__name__)
def test_bad_input_is_one_clear_line_and_leaves_nothing(
    command: Command, tmp_path: Path, prepare: Callable[[Path], list[object]]
) -> None:
    arguments = prepare(tmp_path / "input")
    before = sorted(path for path in tmp_path.rglob("*"))
    if "-o" not in arguments:
        arguments += ["-o", "out"]

    done = command("read", *arguments, "--json")

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("medmllm: error: ")
    assert re.search(BAD[prepare], line), line
    assert "Secret" not in line
    assert done.stdout == ""
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "litter") == before


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and pipes")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_run_interrupted_while_the_model_opens_leaves_no_output(tmp_path: Path, name: str) -> None:
    write_ct_series(tmp_path / "study", slices=3)
    pipe = tmp_path / "replies"
    os.mkfifo(pipe)  # nobody writes into it, so the model never opens

    code, said = interrupted(tmp_path, name, f"scripted:{pipe}", after="medmllm: opening the model")

    assert code == 130
    assert said[-1] == "medmllm: interrupted; nothing was left half-written"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["litter", "replies", "study"]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_run_interrupted_while_the_model_reads_leaves_no_output(
    tmp_path: Path, read_phantom: tuple[Path, Path, str]
) -> None:
    (tmp_path / "study").symlink_to(read_phantom[0])

    code, said = interrupted(tmp_path, "SIGTERM", "embedded", after="medmllm: the model reads")

    assert code == 130
    assert said[-1] == "medmllm: interrupted; nothing was left half-written"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["litter", "study"]


def interrupted(folder: Path, name: str, model: str, *, after: str) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of a run that gets a signal once it has said `after`."""
    with subprocess.Popen(
        program("read", "study", "--model", model, "-o", "out"),
        cwd=folder,
        env=surroundings(folder / "litter"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        # nohup and "&" have it ignored
        preexec_fn=partial(signal.signal, getattr(signal, name), signal.SIG_DFL),
    ) as running:
        assert running.stderr is not None
        said = []
        for line in running.stderr:
            said.append(line.rstrip())
            if line.rstrip() == after:
                time.sleep(0.1)
                running.send_signal(getattr(signal, name))
        running.wait(timeout=60)
    assert after in said
    assert left_in(folder / "litter") == []
    return running.returncode, said
