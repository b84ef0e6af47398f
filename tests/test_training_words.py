"""Tests of `tools.training`: what replies are made of, what tokens are told, and how answers are judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from medmllm_plugin.report import Answer

sys.path.append(str(Path(__file__).parents[1]))  # `tools` is in the repository and not in the package
from tools.training.answers import is_right
from tools.training.architecture import NUMBERS, build, train_tokenizer
from tools.training.attention import Causal
from tools.training.examples import make_example
from tools.training.labels import dense_labels, edge_labels, shown_in
from tools.training.lessons import FINDINGS, LESSONS
from tools.training.stream import met
from tools.training.train import _asked
from tools.training.trainer import DECIDES, GIVEN, Trainer


def test_every_number_that_a_box_may_have_is_one_token() -> None:
    tokenizer = train_tokenizer(['{"bbox_2d":[12,204,3,44]} Left lung.'] * 20)

    for number in range(NUMBERS):
        assert tokenizer.encode(f"[{number},").tokens == ["[", str(number), ","]
    assert tokenizer.decode(tokenizer.encode("300 1024 7 left").ids) == "300 1024 7 left"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """An untrained model of radiographs, begun with nothing."""
    folder = tmp_path_factory.mktemp("init")
    build(folder, ("xr-chest",), texts=12)
    return Trainer(folder, torch.device("cpu"), ("xr-chest",))


def test_neighbouring_numbers_begin_alike(trainer: Trainer) -> None:
    rows = trainer.model.get_input_embeddings().weight[trainer.numbers]

    alike = torch.nn.functional.cosine_similarity(rows[100:101], rows).tolist()

    assert max(alike) == alike[100]
    assert alike[101] > alike[104] > alike[130]


def test_numbers_that_are_places_are_taught_as_such_and_what_decides_weighs_most(trainer: Trainer) -> None:
    text = '{"pictures":[7,8],"side":"left","box":{"picture":8,"bbox_2d":[14,164,32,183]},"sentence":"12."}'

    reply = trainer._reply(text, blur=1.8)

    of_pictures, of_edges = [(7, 0.6), (8, 0.6), (8, 0.6)], [(14, 1.8), (164, 1.8), (32, 1.8), (183, 1.8)]
    assert [(value, blur) for _, value, blur in reply.numbers] == of_pictures + of_edges
    words = [trainer.tokenizer.decode([token]) for token in reply.tokens]
    assert "".join(words) == text
    assert [words[place] for place, *_ in reply.numbers] == ["7", "8", "8", "14", "164", "32", "183"]
    weights = dict(zip(words, reply.weights, strict=True))
    assert (weights["7"], weights["14"], weights["164"], weights["183"], weights["12"]) == (4, 4, 4, 2, 1)
    by_letter = [weight for word, weight in zip(words, reply.weights, strict=True) for _ in word]
    assert by_letter[text.index("left") : text.index("left") + 4] == [4, 4, 4, 4]


def test_a_question_that_is_repeated_weighs_little_and_its_answer_most(trainer: Trainer) -> None:
    text = '{"findings":[],"question":"Is it left?","answer":{"pictures":[],"choice":"no","text":"Right."}}'

    reply = trainer._reply(text, blur=1.8)

    words = [trainer.tokenizer.decode([token]) for token in reply.tokens]
    by_letter = [weight for word, weight in zip(words, reply.weights, strict=True) for _ in word]
    question, answer = text.index("Is it left?"), text.index("Right.")
    assert by_letter[question : question + 11] == [GIVEN] * 11
    assert by_letter[answer : answer + 6] == [DECIDES] * 6
    assert by_letter[text.index('"findings"')] == 1


def test_an_edge_is_wrong_by_how_far_it_is_off(trainer: Trainer) -> None:
    rows = len(trainer.model.get_input_embeddings().weight)

    def loss(said: int) -> float:
        logits = torch.zeros(1, 1, rows)
        logits[0, 0, trainer.numbers[said]] = 20.0
        true, weight = trainer.numbers[100].reshape(1, 1), torch.ones(1, 1)
        return trainer._token_loss(logits, true, weight, [(0, 0, 100, 1.8)]).item()

    assert loss(100) < loss(101) < loss(103)


def test_a_study_has_a_loss_that_training_lowers(trainer: Trainer) -> None:
    torch.set_num_threads(1)
    studies = [met(seed, "xr-chest", trainer.see) for seed in range(40, 44)]
    asked = [_asked(one) for one in studies]
    parameters = [*trainer.model.model.language_model.parameters(), *trainer.heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)

    losses = []
    for _ in range(6):
        loss, extra, _ = trainer.reply_losses(asked)
        losses.append((loss.item(), extra.item()))
        optimizer.zero_grad()
        torch.autograd.backward(loss + extra)
        optimizer.step()

    assert losses[-1][0] < losses[0][0]
    assert losses[-1][1] < losses[0][1]


def test_tokens_know_what_they_show_most_of() -> None:
    labels = torch.zeros(1, 4, 4, len(FINDINGS), dtype=torch.uint8)
    labels[0, :2, 2:, FINDINGS.index("mass")] = 60
    labels[0, 0, 3, FINDINGS.index("nodule")] = 255

    shown = shown_in(labels)

    assert shown.tolist() == [[0, 1 + FINDINGS.index("mass"), 0, 0]]
    boxes = torch.zeros(1, len(FINDINGS), 5)
    assert edge_labels(dense_labels(labels), boxes)[0].tolist() == (shown > 0).tolist()


def test_each_question_of_a_study_is_answered_by_its_own_truth() -> None:
    from tools.training.questions import questioned

    study = LESSONS["ct-chest"].study(7)
    example = make_example(study)
    findings = json.loads(example.target)["findings"]

    for seed in range(30):
        answer = questioned("ct-chest", findings, example.long_axes, np.random.default_rng(seed)).answer

        said = Answer(text=str(answer["text"]), choice=answer["choice"])  # type: ignore[arg-type]
        assert is_right(said, answer["choice"], str(answer["text"]))
        assert not is_right(Answer(text="Perhaps.", choice="A"), answer["choice"], str(answer["text"]))


def test_attention_in_blocks_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, 300, 32, generator=generator, requires_grad=True) for _ in range(3)]
    weight = torch.randn(2, 3, 300, 32, generator=generator)

    found = []
    for attention in (
        Causal.apply,
        lambda *of: torch.nn.functional.scaled_dot_product_attention(*of, is_causal=True),
    ):
        out = attention(*parts)
        found.append((out.detach(), *torch.autograd.grad((out * weight).sum(), parts)))

    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.02)
