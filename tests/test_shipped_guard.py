"""The guard that ships with the embedded model: phantoms get in, strangers and real series don't."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medmllm_plugin.guard import Guard
from medmllm_plugin.models.card import CARD, read_card
from medmllm_plugin.models.embedded import WEIGHTS
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.slices import SlicePlan

sys.path.append(str(Path(__file__).parents[1]))  # `tools` is in the repository and not in the package
from tools.training.lessons import LESSONS

DATA = Path(os.environ.get("MEDMLLM_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="module")
def shipped() -> Guard:
    kinds = read_card(WEIGHTS / CARD).specialists or ()
    guards = [Guard.load(WEIGHTS / kind / "guard.npz") for kind in kinds]
    return Guard(likenesses=tuple(one for guard in guards for one in guard.likenesses))


def shipped_plan(kind: str) -> dict[str, Any]:
    """The slice plan that the shipped model's card has for a kind; what is taught now may differ."""
    return dict(read_card(WEIGHTS / kind / CARD).plan or {})


def test_the_shipped_guard_lets_in_unseen_phantoms_and_no_strangers(shipped: Guard) -> None:
    pytest.importorskip("torch")
    from tools.training.fit_guard import tried

    for kind in shipped.kinds:
        found = tried(shipped, replace(LESSONS[kind], plan=shipped_plan(kind)), studies=12, rounds=2)

        assert (found["phantoms kept out"], found["let in by name"]) == (0, {})
        assert int(str(found["strangers"])) >= 25


@pytest.mark.parametrize(
    "name",
    [
        *("ct_lung_ibsi1/nifti/image", "ct_abdomen_totalseg/example_ct_dicom", "sts_002/CT/image"),
        *("sts_002/MR_T1/image", "d2n_gantrytilting/001", "cxr_rsna_pair", "ibsi_orientation/dicom"),
    ],
)
def test_the_shipped_guard_keeps_real_series_out(shipped: Guard, name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"MEDMLLM_DATA has no {name}")
    volume = read_volume([DATA / name])

    for kind in shipped.kinds:
        plan = shipped_plan(kind)
        if volume.unit != "HU":
            plan.pop("window", None)
        pictures = [one.pixels for one in SlicePlan(**plan).apply(volume).slices]

        assert shipped.look(pictures).ratio > 1.5
