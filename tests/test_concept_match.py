"""An open answer is right in other words, and wrong with one word more that matters."""

from __future__ import annotations

import pytest

from medmllm_plugin.evaluation.concept_match import same_concepts


@pytest.mark.parametrize(
    ("text", "gold", "same"),
    [
        ("The heart is enlarged.", "cardiomegaly", True),
        ("Gallstones", "cholelithiasis", True),
        ("Left-sided pleural fluid", "left pleural effusion", True),
        ("A mass in the right kidney", "renal mass", True),
        ("right lung", "in the lung on the right", True),
        ("brain", "the brain", True),
        ("left pleural effusion", "right pleural effusion", False),
        ("No pneumothorax", "pneumothorax", False),
        ("pneumothorax", "no pneumothorax", False),
        ("Possible pneumonia", "pneumonia", False),
        ("Pneumonia and pneumothorax", "pneumonia", False),
        ("opacity", "pneumonia", False),
        ("liver", "spleen", False),
        ("I don't know", "pneumonia", False),
        ("axial", "coronal", None),
        ("cyst", "communicating cyst", None),
        ("sulci", "reduced sulci", None),
    ],
)
def test_answers_are_held_against_what_is_right(text: str, gold: str, same: bool | None) -> None:
    assert same_concepts(text, gold) is same
