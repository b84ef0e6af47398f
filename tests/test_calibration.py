"""A calibration: what it makes of a score, and its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin import registry
from medmllm_plugin.calibration import Calibration, Odds
from medmllm_plugin.errors import SettingsError

NUMBERS = st.floats(-20, 20)

CALIBRATION = Calibration(
    plain=Odds(slope=0.8, intercept=-0.2, findings={"nodule": -1.5}),
    tried=Odds(slope=0.6, intercept=0.4, findings={"nodule": -1.0}, unsupported=-2.0),
    abstain_below=0.4,
    basis="phantoms",
    weights_sha256="ab" * 32,
)


@given(
    low=st.floats(0, 1),
    high=st.floats(0, 1),
    slope=st.floats(0, 20),
    intercept=NUMBERS,
    unsupported=st.floats(-20, 0),
)
def test_a_surer_score_is_never_less_probable_nor_is_one_that_was_supported(
    low: float, high: float, slope: float, intercept: float, unsupported: float
) -> None:
    odds = Odds(slope=slope, intercept=intercept, unsupported=unsupported)
    low, high = sorted((low, high))

    below, above = (odds.probability("nodule", score, supported=True) for score in (low, high))

    assert 0 <= below <= above <= 1
    assert odds.probability("nodule", high, supported=False) <= above


def test_each_finding_has_its_own_odds() -> None:
    assert CALIBRATION.probability("nodule", 0.9) < CALIBRATION.probability("mass", 0.9)


def test_the_verdict_of_the_evidence_pass_counts_where_it_was_measured() -> None:
    without = Calibration(plain=CALIBRATION.plain)

    said = [CALIBRATION.probability("mass", 0.9, supported=verdict) for verdict in (None, True, False)]

    assert said[0] == CALIBRATION.plain.probability("mass", 0.9)
    assert said[2] < said[1]
    assert without.probability("mass", 0.9, supported=False) == without.probability("mass", 0.9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Odds(slope=-0.1, intercept=0.0),
        lambda: Odds(slope=float("nan"), intercept=0.0),
        lambda: Odds(slope=1.0, intercept=0.0, findings={"nodule": float("inf")}),
        lambda: Calibration(plain=CALIBRATION.plain, abstain_below=1.2),
    ],
)
def test_impossible_values_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"slope|abstain_below"):
        make()


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"

    path.write_text(json.dumps(CALIBRATION.to_json()), encoding="utf-8")

    assert Calibration.load(path) == CALIBRATION


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        '{"schema": "medmllm-calibration/2"}',
        json.dumps({**CALIBRATION.to_json(), "plain": None}),
        json.dumps({**CALIBRATION.to_json(), "plain": {"slope": -1, "intercept": 0}}),
        json.dumps({**CALIBRATION.to_json(), "abstain_below": "half"}),
        json.dumps({**CALIBRATION.to_json(), "tried": {"slope": 1}}),
        "[" * 100_000,
    ],
)
def test_a_file_that_holds_none_is_one_clear_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")

    with pytest.raises(SettingsError, match="found no usable calibration") as caught:
        Calibration.load(path)

    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_the_embedded_model_ships_one_of_its_own_weights() -> None:
    model = registry.open_model("embedded")

    calibration = model.capabilities.calibration

    assert calibration is not None
    assert calibration.tried is not None
    assert calibration.weights_sha256 == model.weights_sha256
    assert set(calibration.plain.findings) == set(model.capabilities.findings or ())
