"""Learned metrics of reports: CheXbert on a small checkpoint of its form, the others through their calls."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmarks import benchmark, sample
from medmllm_plugin.evaluation.learned_scores import CONDITIONS, add, chexbert, opened
from medmllm_plugin.evaluation.records import read_lines
from medmllm_plugin.evaluation.run import begin, items_of, plan_of, run
from medmllm_plugin.models import torchvision_shim
from tests.evaluating import told

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "effusion", "nodule", "no", "clear", "lungs", "."]


def a_checkpoint(folder: Path, *, heads: int = CONDITIONS) -> Path:
    """A checkpoint of CheXbert's form: small, random, saved from several GPUs as the published one is."""
    torchvision_shim.ensure()
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=1.0,
    )
    config.save_pretrained(folder)
    state = {f"module.bert.{key}": one for key, one in BertModel(config).state_dict().items()}
    for k in range(heads):
        state[f"module.linear_heads.{k}.weight"] = torch.randn(2 if k == CONDITIONS - 1 else 4, 16)
        state[f"module.linear_heads.{k}.bias"] = torch.zeros(2 if k == CONDITIONS - 1 else 4)
    torch.save({"model_state_dict": state, "epoch": 1}, folder / "chexbert.pth")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder


def test_the_same_report_has_the_same_labels(tmp_path: Path) -> None:
    score = chexbert(a_checkpoint(tmp_path / "weights"))

    same, other = score(
        ["effusion . lungs clear ."] * 2, ["effusion . lungs clear .", "nodule . no effusion"]
    )

    assert isinstance(same, list)
    assert isinstance(other, list)
    assert same[0] == same[1] > 0
    assert other[0] < other[1]


def test_the_labels_are_those_of_the_published_heads(tmp_path: Path) -> None:
    folder = a_checkpoint(tmp_path / "weights")
    content = torch.load(folder / "chexbert.pth")
    state = content["model_state_dict"]
    for k in range(CONDITIONS):
        # condition 0 is always positive, 1 uncertain, 2 negative, the others blank
        bias = torch.zeros_like(state[f"module.linear_heads.{k}.bias"])
        bias[{0: 1, 1: 3, 2: 2}.get(k, 0)] = 1
        state[f"module.linear_heads.{k}.bias"] = bias
        state[f"module.linear_heads.{k}.weight"] *= 0
    torch.save(content, folder / "chexbert.pth")

    (found,) = chexbert(folder)(["effusion"], ["nodule"])

    assert found == [4.0, 4.0]


@pytest.mark.parametrize(
    ("change", "told_of"),
    [
        (lambda folder: (folder / "vocab.txt").unlink(), "found no vocab.txt"),
        (lambda folder: (folder / "chexbert.pth").write_bytes(b"no"), "found no checkpoint of CheXbert"),
        (lambda folder: torch.save({"epoch": 1}, folder / "chexbert.pth"), "found no checkpoint of CheXbert"),
    ],
)
def test_weights_that_are_missing_or_broken_are_said_in_one_line(
    change: Any, told_of: str, tmp_path: Path
) -> None:
    folder = a_checkpoint(tmp_path / "weights")
    change(folder)

    with pytest.raises(SettingsError, match=told_of):
        chexbert(folder)


def test_a_checkpoint_without_its_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="lacks weights"):
        chexbert(a_checkpoint(tmp_path / "weights", heads=3))


def test_a_metric_that_there_is_none_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected one of chexbert, ratescore, radgraph"):
        opened({"bertscore": tmp_path})


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "RaTEScore", None)
    for name in ("ner", "embedding"):
        (tmp_path / name).mkdir()

    with pytest.raises(SettingsError, match="pip install RaTEScore"):
        opened({"ratescore": tmp_path})


def test_reports_of_a_run_are_scored_once(tmp_path: Path) -> None:
    one = benchmark("iu-xray")
    items = items_of(one, sample(one))
    out = tmp_path / "run"
    begin(out, plan_of(one, items, told(items), name="told", folder=sample(one), seed=0))
    run(items, told(items), out=out)
    asked: list[int] = []

    def length(texts: Any, golds: Any) -> list[float]:
        asked.append(len(texts))
        return [float(len(gold)) for gold in golds]

    for _ in range(2):
        add(out, {"ratescore": length})

    assert asked == [5]
    found = read_lines(out / "items.jsonl")
    assert [one.scores["ratescore"] for one in found] == [len(one.gold[0]) for one in found]


def test_the_other_packages_are_called_as_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins with the signatures of RaTEScore 0.6.0 and radgraph 0.1.18, whose weights can't be here."""

    class Rate:
        def __init__(
            self, bert_model: str, eval_model: str, batch_size: int = 1, use_gpu: bool = True
        ) -> None:
            self.models = bert_model, eval_model

        def compute_score(self, candidate_list: list[str], reference_list: list[str]) -> list[float]:
            assert isinstance(candidate_list, list)
            return [float(one == other) for one, other in zip(candidate_list, reference_list, strict=True)]

    class Graph:
        def __init__(self, reward_level: str, model_type: str | None = None, **where: Any) -> None:
            assert (reward_level, model_type) == ("partial", "radgraph-xl")
            assert set(where) == {"model_cache_dir", "tokenizer_cache_dir"}

        def __call__(
            self, refs: list[str], hyps: list[str]
        ) -> tuple[float, list[float], list[Any], list[Any]]:
            return 0.5, [float(one == other) for one, other in zip(refs, hyps, strict=True)], [], []

    for module, name, stand_in in (("RaTEScore", "RaTEScore", Rate), ("radgraph", "F1RadGraph", Graph)):
        made = ModuleType(module)
        setattr(made, name, stand_in)
        monkeypatch.setitem(sys.modules, module, made)
    for name in ("ner", "embedding", "radgraph-xl"):
        (tmp_path / name).mkdir()

    scorers = opened({"ratescore": tmp_path, "radgraph": tmp_path})

    assert scorers["ratescore"](["a", "b"], ["a", "c"]) == [1.0, 0.0]
    assert scorers["radgraph"](["a", "b"], ["a", "c"]) == [1.0, 0.0]
