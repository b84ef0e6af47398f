"""BLEU, ROUGE and METEOR from well-kept libraries: words in common, blind to "no".

They stand beside the clinical metric because everybody reports them. CIDEr is left out: no light and kept
library gives it. METEOR goes by words and stems; its synonyms would need WordNet, which is no package.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from medmllm_plugin.errors import SettingsError

_TOKEN = re.compile(r"[一-鿿]|[^\W_]+")


def text_scores(text: str, gold: str) -> dict[str, float]:
    """The scores of a text against a reference, each 0 to 1.

    Args:
        text: What was said.
        gold: The reference.

    Returns:
        `bleu1` and `bleu4` (sacrebleu, smoothed, of the orders that fit), `rouge1`, `rouge2` and `rougeL`
        (F1, rouge-score) and `meteor` (nltk, words and stems).

    Raises:
        SettingsError: If the libraries are not installed.
    """
    mine, right = tokens(text), tokens(gold)
    if not mine or not right:
        return dict.fromkeys(("bleu1", "bleu4", "rouge1", "rouge2", "rougeL", "meteor"), float(mine == right))
    libraries = _libraries()
    scores = {
        f"bleu{order}": float(bleu.sentence_score(" ".join(mine), [" ".join(right)]).score) / 100
        for order, bleu in libraries["bleu"].items()
    }
    found = libraries["rouge"].score(gold, text)
    scores |= {name: float(one.fmeasure) for name, one in found.items()}
    scores["meteor"] = float(
        libraries["meteor"](right, mine, stemmer=libraries["stemmer"], wordnet=_NoSynonyms())
    )
    return scores


def tokens(text: str) -> list[str]:
    """The words of a text, small; each Chinese character is one.

    >>> tokens("No pleural effusion. 肺部")
    ['no', 'pleural', 'effusion', '肺', '部']
    """
    return _TOKEN.findall(text.lower())


class _NoSynonyms:
    """Stands where METEOR asks for WordNet."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


@cache
def _libraries() -> dict[str, Any]:
    try:
        from nltk.stem.porter import PorterStemmer
        from nltk.translate.meteor_score import single_meteor_score
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise SettingsError(
            f"found no package {error.name} for BLEU, ROUGE and METEOR, expected those of the extra eval; "
            "run: pip install 'medmllm-plugin[eval]'"
        ) from error
    return {
        "bleu": {
            order: BLEU(max_ngram_order=order, effective_order=True, tokenize="none") for order in (1, 4)
        },
        "rouge": RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Tokenizer()),
        "meteor": single_meteor_score,
        "stemmer": PorterStemmer(),
    }
