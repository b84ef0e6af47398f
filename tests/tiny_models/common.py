"""What the tiny models of all families share: a tokenizer trained here, and how they are saved."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmllm_plugin.models import torchvision_shim
from tests.tiny_model import SPLIT, WORDS

torchvision_shim.ensure()


def byte_level(control: Sequence[str], *, begin: str | None = None) -> Any:
    """A byte-level BPE with control tokens; with `begin` it writes that token before each text."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokens.train_from_iterator(WORDS, trainer)
    tokens.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])
    if begin is not None:
        tokens.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokens.token_to_id(begin))]
        )
    return tokens


def vocab_size(tokenizer: Any) -> int:
    """Rows of the vocabulary: a multiple of 64, as models on the hub have, so more than there are tokens."""
    return (len(tokenizer) + 63) // 64 * 64


def saved(make: Any, *, seed: int, ends: Sequence[int], pad: int) -> Path:
    """A folder with the model and the processor that `make()` builds, its weights by `seed`."""
    import torch
    from transformers import GenerationConfig

    folder = temporary()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model, processor = make()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1:
                    weight.mul_(5.0)
        model.generation_config = GenerationConfig(pad_token_id=pad, eos_token_id=list(ends), do_sample=False)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def temporary() -> Path:
    """An empty folder that is gone when the tests are done."""
    folder = Path(tempfile.mkdtemp(prefix="medmllm-family-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
