"""Metrics of reports that need weights, for who has them on disk: CheXbert, RaTEScore, RadGraph.

Nothing is fetched. CheXbert is small enough to be run here from its published checkpoint; the other two are
their authors' packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.evaluation.benchmark import Kind, Verdict
from medmllm_plugin.evaluation.measures import Score
from medmllm_plugin.evaluation.records import file_of, read_lines, write_lines
from medmllm_plugin.models import torchvision_shim
from medmllm_plugin.models.loading import check_engine

Scorer = Callable[[Sequence[str], Sequence[str]], Sequence[Score]]
"""The scores of texts against their references, in their order."""

CONDITIONS = 14
"""What CheXbert labels; the last is `No Finding`, which is there or blank."""

POSITIVE, UNCERTAIN = 1, 3
"""Its classes that count as there, as its authors count them for reports; 0 is blank, 2 negative."""

LONGEST = 512
"""Tokens of a report that CheXbert reads."""


def opened(asked: Mapping[str, Path]) -> dict[str, Scorer]:
    """Learned metrics, ready.

    Args:
        asked: Folders of weights by names of `SCORERS`.

    Raises:
        SettingsError: If there is no such metric, or its package or weights are missing.
    """
    for name in asked:
        if name not in SCORERS:
            raise SettingsError(f"--score: found {name!r}, expected one of {', '.join(SCORERS)}")
    return {name: SCORERS[name](folder) for name, folder in asked.items()}


def add(out: Path, scorers: Mapping[str, Scorer], *, shard: tuple[int, int] = (1, 1)) -> None:
    """Score the reports of a run with learned metrics; the records get their scores.

    Args:
        out: The run's folder.
        scorers: By the names of their figures.
        shard: Whose records.

    Raises:
        OutputError: If the records can't be written.
    """
    path = file_of(out, shard)
    records = read_lines(path)
    for name, scorer in scorers.items():
        wanted = [
            k
            for k, one in enumerate(records)
            if (one.kind is Kind.REPORT or one.task == "report")
            and one.verdict not in (Verdict.ABSTAINED, Verdict.FAILED, Verdict.NO_ANSWER)
            and name not in one.scores
        ]
        if not wanted:
            continue
        found = scorer([records[k].answer for k in wanted], [records[k].gold[0] for k in wanted])
        for k, score in zip(wanted, found, strict=True):
            records[k] = replace(records[k], scores={**records[k].scores, name: score})
    write_lines(path, records)


def chexbert(folder: Path) -> Scorer:
    """CheXbert (Smit et al., 2020): F1 of the conditions that a labeller finds in both texts.

    Args:
        folder: Holds `chexbert.pth` as its authors publish it, and `vocab.txt` of bert-base-uncased; also
            `config.json` where its BERT has another size.

    Raises:
        SettingsError: If a file is missing or broken, or the engine is not installed.
    """
    _need(folder, "chexbert.pth", "vocab.txt")
    check_engine()
    torchvision_shim.ensure()
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    config = BertConfig.from_pretrained(folder) if (folder / "config.json").is_file() else BertConfig()
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    bert = BertModel(config).eval()
    weights = _weights(folder / "chexbert.pth")
    body = {key.removeprefix("bert."): one for key, one in weights.items() if key.startswith("bert.")}
    heads = [
        (weights.get(f"linear_heads.{k}.weight"), weights.get(f"linear_heads.{k}.bias"))
        for k in range(CONDITIONS)
    ]
    missing = bert.load_state_dict(body, strict=False).missing_keys
    if missing or any(one is None for head in heads for one in head):
        raise SettingsError(
            f"{folder}: found a chexbert.pth that lacks weights ({', '.join(missing[:3]) or 'its heads'}), "
            "expected the published one; fetch it again"
        )

    def labels(text: str) -> list[bool]:
        ids = tokenizer(" ".join(text.split()), truncation=True, max_length=LONGEST, return_tensors="pt")
        with torch.inference_mode():
            first = bert(**ids).last_hidden_state[0, 0]
            return [int((weight @ first + bias).argmax()) in (POSITIVE, UNCERTAIN) for weight, bias in heads]

    def score(texts: Sequence[str], golds: Sequence[str]) -> list[Score]:
        found: list[Score] = []
        for text, gold in zip(texts, golds, strict=True):
            said, right = labels(text), labels(gold)
            both = sum(a and b for a, b in zip(said, right, strict=True))
            found.append([2.0 * both, float(sum(said) + sum(right))])
        return found

    return score


def ratescore(folder: Path) -> Scorer:
    """RaTEScore (Zhao et al., 2024), by its package: likeness of entities, of 0 to 1.

    Args:
        folder: Holds `ner`, its model of entities, and `embedding`, BioLORD, each as a model's folder.

    Raises:
        SettingsError: If the package or a folder is missing.
    """
    _need(folder, "ner", "embedding")
    check_engine()
    torchvision_shim.ensure()
    with _offline():
        try:
            from RaTEScore import RaTEScore
        except ImportError as error:
            raise _no_package("ratescore", "RaTEScore", error) from error
        import torch

        scorer = RaTEScore(
            bert_model=str(folder / "ner"),
            eval_model=str(folder / "embedding"),
            use_gpu=torch.cuda.is_available(),
        )
    return lambda texts, golds: [float(one) for one in scorer.compute_score(list(texts), list(golds))]


def radgraph(folder: Path) -> Scorer:
    """RadGraph-XL F1 (Delbrouck et al., 2024), by its package: likeness of entities and relations, of 0 to 1.

    Args:
        folder: Holds `radgraph-xl`, its model unpacked, and its tokenizer as the hub's cache keeps it.

    Raises:
        SettingsError: If the package or the folder is missing.
    """
    _need(folder, "radgraph-xl")
    check_engine()
    torchvision_shim.ensure()
    with _offline():
        try:
            from radgraph import F1RadGraph
        except ImportError as error:
            raise _no_package("radgraph", "radgraph", error) from error
        scorer = F1RadGraph(
            reward_level="partial",
            model_type="radgraph-xl",
            model_cache_dir=str(folder),
            tokenizer_cache_dir=str(folder),
        )
    return lambda texts, golds: [float(one) for one in scorer(refs=list(golds), hyps=list(texts))[1]]


SCORERS: Mapping[str, Callable[[Path], Scorer]] = {
    "chexbert": chexbert,
    "ratescore": ratescore,
    "radgraph": radgraph,
}
"""By the names that `--score` takes, which are also those of their figures."""


def _need(folder: Path, *names: str) -> None:
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise SettingsError(
            f"{folder}: found no {' and no '.join(missing)}, expected {', '.join(names)}; see "
            "docs/evaluation.md"
        )


def _weights(path: Path) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        held: Mapping[str, Any] = content["model_state_dict"]
        return {key.removeprefix("module."): one for key, one in held.items()}
    except Exception as error:
        raise SettingsError(
            f"{path}: found no checkpoint of CheXbert ({type(error).__name__}), expected one; fetch it again"
        ) from error


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the hub's client from fetching what is missing."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _no_package(name: str, package: str, error: ImportError) -> SettingsError:
    found = (
        f"found no package {error.name}" if error.name else f"found a package that can't be loaded ({error})"
    )
    return SettingsError(f"{name}: {found}, expected {package} installed; run: pip install {package}")
