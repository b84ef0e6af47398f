"""The MONAI bundle, run by MONAI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.bundle.utils import DEFAULT_METADATA

import medmllm_plugin
from medmllm_plugin import pipeline
from medmllm_plugin.phantoms import write_study
from medmllm_plugin.report import Report
from tests.monai_images import a_study

BUNDLE = Path(medmllm_plugin.__file__).parent / "monai_bundle"


def bundle(name: str) -> Any:
    return json.loads((BUNDLE / "configs" / name).read_text("utf-8"))


def test_the_metadata_of_the_bundle_are_whole_and_agree_with_the_pins() -> None:
    metadata = bundle("metadata.json")
    root = Path(__file__).parents[1]
    pins = dict(
        line.split("==")
        for line in (root / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line and line[0] != "#"
    )

    assert set(DEFAULT_METADATA) <= set(metadata)
    assert metadata["version"] == medmllm_plugin.__version__
    assert metadata["version"] in metadata["changelog"]
    assert [metadata[f"{name}_version"] for name in ("monai", "pytorch", "numpy")] == [
        pins[name] for name in ("monai", "torch", "numpy")
    ]
    required = metadata["required_packages_version"]
    assert required == {"medmllm-plugin": medmllm_plugin.__version__, "transformers": pins["transformers"]}
    for tensor in (
        *metadata["network_data_format"]["inputs"].values(),
        *metadata["network_data_format"]["outputs"].values(),
    ):
        assert {
            "type",
            "format",
            "num_channels",
            "spatial_shape",
            "dtype",
            "value_range",
            "is_patch_data",
            "channel_def",
        } <= set(tensor)


def test_the_bundle_has_all_properties_of_an_inference_workflow(tmp_path: Path) -> None:
    a_study(tmp_path / "one")
    workflow = ConfigWorkflow(
        str(BUNDLE / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(tmp_path),
    )

    workflow.initialize()

    assert workflow.check_properties() == []


def test_the_bundle_is_run_by_monai_and_reads_as_medmllm_read_does(tmp_path: Path) -> None:
    study = tmp_path / "studies" / "one"
    write_study(study, seed=500000, slices=24)
    (study / "truth.json").unlink()

    done = subprocess.run(
        [
            *(sys.executable, "-m", "monai.bundle", "run"),
            *("--config_file", BUNDLE / "configs" / "inference.json"),
            *("--dataset_dir", tmp_path / "studies", "--output_dir", tmp_path / "out"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    report = Report.from_json(json.loads((folder / "report.json").read_text("utf-8")))
    expected = pipeline.read(study).report
    assert report.findings == expected.findings
    assert (report.outcome, report.raw_reply) == (expected.outcome, expected.raw_reply)
    assert (folder / "findings.dcm").is_file()
