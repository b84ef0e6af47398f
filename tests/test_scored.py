"""What answers are worth, replies of other harnesses, and what a judge adds where one was asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Item, Kind, Verdict
from medmllm_plugin.evaluation.benchmarks import benchmark, sample
from medmllm_plugin.evaluation.imported import scored_file
from medmllm_plugin.evaluation.judge import judged
from medmllm_plugin.evaluation.records import read_lines
from medmllm_plugin.evaluation.run import begin, items_of, plan_of, run
from medmllm_plugin.evaluation.scored import of_answer, of_open, of_report
from medmllm_plugin.evaluation.text_scores import text_scores
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.report import Answer
from tests.evaluating import ABLE, reply_to, told


def an_item(kind: Kind, *gold: str, choices: tuple[str, ...] = ()) -> Item:
    return Item(name="1", kind=kind, task="question", question="Is it?", gold=gold, choices=choices)


@pytest.mark.parametrize(
    ("choice", "text", "verdict"),
    [
        ("yes", "Yes, there is a nodule.", Verdict.RIGHT),
        (None, "Yes, there is a nodule.", Verdict.RIGHT),
        ("no", "No.", Verdict.WRONG),
        ("unclear", "Hard to say.", Verdict.NO_ANSWER),
        (None, "The heart is large.", Verdict.NO_ANSWER),
    ],
)
def test_yes_and_no_by_the_choice_or_else_the_words(choice: str | None, text: str, verdict: Verdict) -> None:
    assert of_answer(an_item(Kind.YES_NO, "yes"), Answer(text=text, choice=choice)).verdict is verdict


def test_a_choice_that_is_none_of_them_is_no_answer() -> None:
    item = an_item(Kind.CHOICE, "left", choices=("left", "right"))

    assert of_answer(item, Answer(text="", choice="unclear")).verdict is Verdict.NO_ANSWER
    assert of_answer(item, Answer(text="neither")).verdict is Verdict.NO_ANSWER
    assert of_answer(item, Answer(text="A")).verdict is Verdict.RIGHT
    assert of_answer(item, Answer(text="x", choice="right", certainty=0.8)).certainty == 0.8


def test_several_choices_are_right_together_only() -> None:
    item = an_item(Kind.SEVERAL, "apex", "base", choices=("apex", "base", "hilum"))

    half = of_answer(item, Answer(text="the apex"))

    assert of_answer(item, Answer(text="apex and base")).verdict is Verdict.RIGHT
    assert (half.verdict, half.scores["choices_f1"]) == (Verdict.WRONG, (2, 3))
    assert of_answer(item, Answer(text="apex, base, hilum")).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("said", "gold", "way"),
    [
        ("The right lung.", "right lung", "the same words"),
        ("It lies in the right lung", "right lung", "says it"),
        ("Left-sided pleural fluid is what one sees on this film", "left pleural effusion", "concepts"),
    ],
)
def test_an_open_answer_can_be_right_in_three_ways(said: str, gold: str, way: str) -> None:
    marks = of_open(said, (gold,))

    assert (marks.verdict, marks.details["right by"]) == (Verdict.RIGHT, way)


@pytest.mark.parametrize(
    ("said", "gold"),
    [("No pleural effusion", "pleural effusion"), ("left lung", "right lung"), ("the moon", "pneumonia")],
)
def test_a_denial_or_another_side_is_wrong(said: str, gold: str) -> None:
    assert of_open(said, (gold,)).verdict is Verdict.WRONG


def test_the_best_of_several_right_answers_counts() -> None:
    assert of_open("cardiomegaly", ("enlarged heart", "cardiomegaly")).verdict is Verdict.RIGHT


def test_a_report_is_scored_by_facts_and_the_words_beside_it_are_blind() -> None:
    flipped = of_report("There is pneumonia.", None, "There is no pneumonia.")

    assert flipped.verdict is Verdict.SCORED
    assert flipped.scores["clinical"] < 0.1  # type: ignore[operator]
    assert flipped.scores["rougeL"] > 0.8  # type: ignore[operator]


def test_text_scores_have_the_values_of_their_definitions() -> None:
    scores = text_scores("patient has pneumonia", "patient has no pneumonia")

    assert scores["rougeL"] == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert scores["rouge1"] == scores["rougeL"]
    assert text_scores("a b c d", "a b c d") == {
        "bleu1": pytest.approx(1),
        "bleu4": pytest.approx(1),
        "rouge1": 1,
        "rouge2": 1,
        "rougeL": 1,
        "meteor": pytest.approx(1, abs=0.01),
    }
    assert set(text_scores("", "a").values()) == {0}


def test_chinese_is_compared_character_by_character() -> None:
    assert text_scores("右肺结节", "左肺结节")["rouge1"] == 0.75


def test_the_csv_of_rad_bench_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "output.csv"
    path.write_text(
        "Question,Ground Truth,Pred,belong_to\n"
        "\"['Is it?']\",['yes'],\"['Yes, there is a nodule']\",['chestxray']\n"
        "['What is it?'],['MRI'],['magnetic resonance imaging'],['modality']\n"
        "['Is it?'],['no'],['yes'],['chestxray']\n"
    )

    found = scored_file(path)

    assert [one.verdict for one in found] == [Verdict.RIGHT, Verdict.RIGHT, Verdict.WRONG]
    assert found[0].groups == {"dataset": "chestxray"}


def test_the_results_of_med_eval_kit_are_scored_without_its_defects(tmp_path: Path) -> None:
    samples = [
        {"prompt": "Is there one?", "answer": "yes", "response": "Yes, there is a nodule"},
        {"question": "Where?", "answer": "B", "choices": ["left", "right"], "response": "The answer is B."},
        {"question": "Where?", "answer": "B", "choices": ["left", "right"], "response": "Hard to tell"},
    ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(samples))

    found = scored_file(path)

    assert [one.verdict for one in found] == [Verdict.RIGHT, Verdict.RIGHT, Verdict.NO_ANSWER]


def test_a_file_that_holds_no_replies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n")

    with pytest.raises(SettingsError, match="expected Pred or response"):
        scored_file(path)


def judging(*said: object) -> ScriptedModel:
    return ScriptedModel([json.dumps(one) for one in said], capabilities=ABLE, name="judge")


def test_a_judge_sees_open_answers_only_and_changes_no_verdict(tmp_path: Path) -> None:
    vqa = benchmark("vqa-rad")
    items = items_of(vqa, sample(vqa))
    model = ScriptedModel([reply_to(one, right=False) for one in items], capabilities=ABLE)
    begin(tmp_path / "run", plan_of(vqa, items, model, name="m", folder=sample(vqa), seed=0))
    before = run(items, model, out=tmp_path / "run")
    judge = judging({"same": "yes"}, {"same": "no"}, "nonsense")

    judged(tmp_path / "run", items, judge, name="judge")

    after = read_lines(tmp_path / "run" / "items.jsonl")
    assert [one.verdict for one in after] == [one.verdict for one in before]
    assert [one.scores.get("judged") for one in after] == [None, None, 1.0, 0.0, None]
    assert all("<data>" in ask.prompt.text for ask in judge.asked)


def test_a_judge_that_was_there_is_not_asked_again(tmp_path: Path) -> None:
    vqa = benchmark("vqa-rad")
    items = items_of(vqa, sample(vqa))[2:3]
    begin(tmp_path / "run", plan_of(vqa, items, told(items), name="m", folder=sample(vqa), seed=0))
    run(items, told(items), out=tmp_path / "run")
    judged(tmp_path / "run", items, judging({"same": "yes"}), name="judge")

    silent = judging()
    judged(tmp_path / "run", items, silent, name="judge")

    assert not silent.asked


def test_a_rubric_gives_points_reached_of_those_that_can_be(tmp_path: Path) -> None:
    health = benchmark("health-bench")
    items = [
        replace(one, rubric=(("a", 6.0), ("b", 2.0), ("c", -3.0)))
        for one in items_of(health, sample(health))[:2]
    ]
    begin(tmp_path / "run", plan_of(health, items, told(items), name="m", folder=sample(health), seed=0))
    run(items, told(items), out=tmp_path / "run")
    met = {"1": "met", "2": "not met", "3": "not met"}

    judged(tmp_path / "run", items, judging(met, {**met, "1": "not met", "3": "met"}), name="judge")

    after = read_lines(tmp_path / "run" / "items.jsonl")
    assert [one.scores["rubric"] for one in after] == [0.75, 0.0]


def test_a_judge_must_answer_in_words_alone(tmp_path: Path) -> None:
    blind = ScriptedModel([], capabilities=replace(ABLE, text_only=False))

    with pytest.raises(SettingsError, match="expected a judge of texts"):
        judged(tmp_path, [], blind, name="seer")
