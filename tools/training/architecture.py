"""The untrained embedded model: a small Qwen2.5-VL with its own vocabulary, saved as a model folder.

    python -m tools.training.architecture OUT [--kinds ct-chest,ct-head,xr-chest] [--start FOLDER]

Also writes `prompt-KIND.npz` for each kind: the constant prompt's token and position ids and the rotary
tables of one picture, so that training needs neither tokenizer nor processor. With `--start` it begins with
what a trained model of the same sizes knows; a token that its vocabulary lacks begins as the mean of the
pieces it had for it.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from medmllm_plugin.phantoms.study import sample_study
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.slices import SlicePlan
from tools.training.examples import make_example
from tools.training.lessons import LESSONS, RESERVED, WINDOW, shares
from tools.training.questions import ask

SPECIAL = [
    f"<|{word}|>"
    for word in (
        *("endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end"),
        *("quad_start", "quad_end", "vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
    )
]
"""The special tokens of Qwen2.5-VL, in its order."""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}{{ '\\n' }}"
    "{%- if message.content is string -%}{{ message.content }}{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else -%}{{ part.text }}{%- endif -%}{%- endfor -%}{%- endif -%}<|im_end|>{{ '\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"
)

DIGIT, NUMBER = r"\p{N}", r"\p{N}{1,3}"
"""Only numbers stand alone; between them the vocabulary may merge whole stretches of the reply's fixed words,
so that a reply is a few dozen tokens."""

NUMBERS = 256
"""Whole numbers below this are tokens: an edge of a box is then one choice among neighbours, which a state
that knows the place decides at once, and not a decimal expansion."""

THETA = 10.0
"""Base of the rotary frequencies. Columns get the lowest of them: of the usual 10,000 they would turn by a
hundredth over a picture of ours, and nothing could tell left from right."""

EMBEDDED = 0.05
"""Spread of the embeddings at first."""

VOCABULARY = 768
"""Tokens without the numbers of several digits."""
VISION = {"depth": 4, "hidden_size": 96, "intermediate_size": 256, "num_heads": 3}
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE with the special tokens of Qwen; each number below `NUMBERS` is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(DIGIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer = with_numbers(tokenizer)
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return tokenizer


def with_numbers(tokenizer: Tokenizer) -> Tokenizer:
    """The same with merges that make a token of each number below `NUMBERS`.

    >>> bare = Tokenizer(models.BPE({str(n): n for n in range(10)}, []))
    >>> bare.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(DIGIT), "isolated")])
    >>> with_numbers(bare).encode("7 40 211 255 256").tokens
    ['7', '40', '211', '255', '25', '6']
    """
    content = json.loads(tokenizer.to_str())
    known, merges = content["model"]["vocab"], content["model"]["merges"]
    for number in map(str, range(10, NUMBERS)):
        known.setdefault(number, len(known))
        halves = ([number[:cut], number[cut:]] for cut in range(1, len(number)))
        merges += [[left, right] for left, right in halves if {left, right} <= known.keys()]
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": NUMBER}
    return Tokenizer.from_str(json.dumps(content))


def terse_messages(kind: str = "ct-chest") -> list[dict[str, object]]:
    """The chat of the report task as the transformers engine builds it for a terse model."""
    lesson = LESSONS[kind]
    study = sample_study(kind=kind, slices=None if lesson.count == 1 else lesson.count)
    shown = SlicePlan(**lesson.plan).apply(study.volume())
    able = Capabilities(pictures=len(shown), boxes=True, schema_bound=True, terse=True)
    prompt = prompt_for(Request(task=TASKS["report"], slices=shown), able)
    content: list[dict[str, object]] = [
        {"type": "text", "text": part.text} if hasattr(part, "text") else {"type": "image"}
        for part in prompt.parts
    ]
    return [
        {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
        {"role": "user", "content": content},
    ]


def build(
    out: Path, kinds: tuple[str, ...], *, start: Path | None = None, texts: int = 400
) -> dict[str, float]:
    """Write the untrained model folder.

    Args:
        out: Where.
        kinds: The kinds of phantoms whose replies make the vocabulary.
        start: The folder of a trained model to begin with.
        texts: From how many studies of each kind the vocabulary is made.

    Returns:
        Its size in figures, by name.
    """
    ensure_torchvision()
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    messages = {kind: terse_messages(kind) for kind in kinds}
    words = " ".join(
        str(part.get("text", ""))
        for one in messages.values()
        for message in one
        for part in message["content"]  # type: ignore[attr-defined]
    )
    first = RESERVED[-1].start + 2**30
    made = [
        (kind, make_example(LESSONS[kind].study(seed)))
        for kind in kinds
        for seed in range(first, first + texts)
    ]
    targets = [one.target for _, one in made]
    rng = np.random.default_rng(0)
    asked = ["\n".join(ask(kind, one.target, one.long_axes, rng)) for kind, one in made[::4]]
    rust = train_tokenizer([*targets, *asked, *[f"system\n{words}\nuser\nassistant\n"] * max(1, texts // 10)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rust,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:],
        model_max_length=8192,
        chat_template=CHAT_TEMPLATE,
    )
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in SPECIAL}
    config = Qwen2_5_VLConfig(**_configuration(ids, rows=(len(tokenizer) + 63) // 64 * 64))
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    rescale(model)
    if start is not None:
        begin_with(model, tokenizer, start)
    if start is None or not _counts(start):
        count_in_order(model, tokenizer)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        do_sample=False,
    )
    pixels = {"min_pixels": 56 * 56, "max_pixels": 1024 * 1024}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=CHAT_TEMPLATE,
    )
    model.save_pretrained(out)
    processor.save_pretrained(out)
    for kind in kinds:
        save_prompt(out / f"prompt-{kind}.npz", model, processor, messages[kind], kind=kind)
    lengths = [len(tokenizer.encode(text)) for text in targets]
    return {
        "million parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "million of vision": sum(p.numel() for p in model.model.visual.parameters()) / 1e6,
        "tokens in vocabulary": len(tokenizer),
        "tokens of a reply, mean": float(np.mean(lengths)),
        "tokens of a reply, most": max(lengths),
    }


def _configuration(ids: dict[str, int], *, rows: int) -> dict[str, Any]:
    head = TEXT["hidden_size"] // TEXT["num_attention_heads"]
    return {
        "text_config": {
            **TEXT,
            "vocab_size": rows,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "type": "mrope",
                "mrope_section": [head // 8, head * 3 // 16, head * 3 // 16],
                "rope_theta": THETA,
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        "vision_config": {
            **VISION,
            "in_channels": 3,
            "in_chans": 3,
            "out_hidden_size": TEXT["hidden_size"],
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": WINDOW,
            "fullatt_block_indexes": [VISION["depth"] - 1],
        },
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }


def begin_with(model: Any, tokenizer: Any, folder: Path) -> None:
    """Give a model the weights of a trained one of the same sizes, its vocabulary token by token.

    Raises:
        ValueError: If another weight than that of the vocabulary differs in shape.
    """
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    trained = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    its = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    theirs = dict(trained.named_parameters())
    known = its.get_vocab()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            there = theirs[name]
            if "embed_tokens" in name:
                for token, row in tokenizer.get_vocab().items():
                    rows = [known[token]] if token in known else _pieces(its, tokenizer, row)
                    weight[row] = there[rows].mean(dim=0)
            elif weight.shape == there.shape:
                weight.copy_(there)
            else:
                raise ValueError(
                    f"{folder}: {name} is of shape {tuple(there.shape)}, not {tuple(weight.shape)}"
                )


def count_in_order(model: Any, tokenizer: Any) -> None:
    """Let the tokens of numbers begin as points on waves, long and short, so that neighbours are alike."""
    weight = model.get_input_embeddings().weight
    rows = [tokenizer.convert_tokens_to_ids(str(n)) for n in range(NUMBERS)]
    lengths = torch.logspace(math.log10(4), math.log10(4 * NUMBERS), 16)
    angles = 2 * math.pi * torch.arange(NUMBERS)[:, None] / lengths
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    generator = torch.Generator().manual_seed(0)
    mixed = waves @ torch.linalg.qr(torch.randn(weight.shape[1], waves.shape[1], generator=generator))[0].T
    with torch.no_grad():
        weight[rows] = EMBEDDED * mixed / mixed.square().mean().sqrt()


def _counts(folder: Path) -> bool:
    """Whether the vocabulary of a model has a token for each of our numbers."""
    return Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(str(NUMBERS - 1)) is not None


def _pieces(its: Any, tokenizer: Any, row: int) -> list[int]:
    """The tokens that another vocabulary has for a token of ours."""
    pieces: list[int] = its.encode(tokenizer.decode([row]), add_special_tokens=False)
    return pieces or [its.pad_token_id]


def rescale(model: torch.nn.Module) -> None:
    """Weights of the size 1/√inputs: with the library's 0.02 so narrow a model never starts learning."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                continue
            inputs = weight[0].numel()
            spread = EMBEDDED if "embed_tokens" in name else inputs**-0.5
            weight.normal_(0, spread)


def save_prompt(
    path: Path, model: Any, processor: Any, messages: list[dict[str, object]], *, kind: str = "ct-chest"
) -> None:
    """Token ids, mrope positions and one picture's vision rotary table of the constant prompt of a kind."""
    from PIL import Image

    side, count = LESSONS[kind].side, LESSONS[kind].count
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.new("RGB", (side, side))] * count, return_tensors="pt")
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        attention_mask=inputs["attention_mask"],
    )
    visual = model.model.visual
    caught: dict[str, torch.Tensor] = {}

    def catch(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        caught["cos"], caught["sin"] = kwargs["position_embeddings"]

    hook = visual.blocks[0].register_forward_pre_hook(catch, with_kwargs=True)
    with torch.no_grad():
        visual(inputs["pixel_values"], inputs["image_grid_thw"])
    hook.remove()
    patches = (side // 14) ** 2
    np.savez(
        path,
        ids=inputs["input_ids"][0].numpy(),
        positions=positions[:, 0].numpy(),
        cos=caught["cos"][:patches].numpy(),
        sin=caught["sin"][:patches].numpy(),
        image_token=np.array(model.config.image_token_id),
        end_token=np.array(processor.tokenizer.eos_token_id),
    )


def main() -> None:
    """Write the untrained model folder and say how large the model is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", default="ct-chest", help="kinds of phantoms, joined by commas")
    parser.add_argument("--start", type=Path, help="folder of a trained model to begin with")
    options = parser.parse_args()
    for name, value in build(options.out, tuple(shares(options.kinds)), start=options.start).items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
