"""The untrained embedded model: a small Qwen2.5-VL with its own vocabulary, saved as a model folder.

    python -m tools.training.architecture OUT

Also writes `prompt.npz`: the constant prompt's token and position ids and the rotary tables of one picture,
so that training needs neither tokenizer nor processor.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from medmllm_plugin.prompts import build_prompt
from medmllm_plugin.tasks import TASKS
from medmllm_plugin.transforms.slices import SlicePlan
from tools.training.examples import PLAN, make_example, random_study

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

SPLIT = r"\p{N}"
"""Only digits stand alone; between them the vocabulary may merge whole stretches of the reply's fixed words,
so that a reply is a few dozen tokens."""

VOCABULARY = 512
VISION = {"depth": 4, "hidden_size": 96, "intermediate_size": 256, "num_heads": 3}
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE with the special tokens of Qwen; every digit is its own token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
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
    tokenizer.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    return tokenizer


def terse_messages() -> list[dict[str, object]]:
    """The chat of the report task as the transformers engine builds it for a terse model."""
    shown = SlicePlan(**PLAN).apply(random_study(0).volume())
    prompt = build_prompt(TASKS["report"], shown, terse=True)
    content: list[dict[str, object]] = [
        {"type": "text", "text": part.text} if hasattr(part, "text") else {"type": "image"}
        for part in prompt.parts
    ]
    return [
        {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
        {"role": "user", "content": content},
    ]


def main(out: Path) -> None:
    """Write the untrained model folder."""
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

    messages = terse_messages()
    words = " ".join(str(part.get("text", "")) for message in messages for part in message["content"])  # type: ignore[attr-defined]
    targets = [make_example(random_study(2**31 + seed)).target for seed in range(600)]
    rust = train_tokenizer([*targets, *[f"system\n{words}\nuser\nassistant\n"] * 60])
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
    rows = (len(tokenizer) + 63) // 64 * 64
    head = TEXT["hidden_size"] // TEXT["num_attention_heads"]
    side = PLAN["size"]
    config = Qwen2_5_VLConfig(
        text_config={
            **TEXT,
            "vocab_size": rows,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "type": "mrope",
                "mrope_section": [head // 8, head * 3 // 16, head * 3 // 16],
                "rope_theta": 10000.0,
            },
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            **VISION,
            "in_channels": 3,
            "in_chans": 3,
            "out_hidden_size": TEXT["hidden_size"],
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": side,
            "fullatt_block_indexes": [VISION["depth"] - 1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    rescale(model)
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
    save_prompt(out / "prompt.npz", model, processor, messages)
    total = sum(p.numel() for p in model.parameters())
    vision = sum(p.numel() for p in model.model.visual.parameters())
    lengths = [len(tokenizer.encode(text)) for text in targets]
    print(f"{total / 1e6:.2f} M parameters, {vision / 1e6:.2f} M of them vision; {len(tokenizer)} tokens")
    print(f"replies are {np.mean(lengths):.0f} tokens on average, {max(lengths)} at most")


def rescale(model: torch.nn.Module) -> None:
    """Weights of the size 1/√inputs: with the library's 0.02 so narrow a model never starts learning."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                continue
            inputs = weight[0].numel()
            spread = 0.05 if "embed_tokens" in name else inputs**-0.5
            weight.normal_(0, spread)


def save_prompt(
    path: Path, model: torch.nn.Module, processor: object, messages: list[dict[str, object]]
) -> None:
    """Token ids, mrope positions and one picture's vision rotary table of the constant prompt."""
    from PIL import Image

    side, count = PLAN["size"], PLAN["count"]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)  # type: ignore[attr-defined]
    inputs = processor(text=[text], images=[Image.new("RGB", (side, side))] * count, return_tensors="pt")  # type: ignore[operator]
    positions, _ = model.model.get_rope_index(
        inputs["input_ids"],
        image_grid_thw=inputs["image_grid_thw"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        attention_mask=inputs["attention_mask"],
    )
    visual = model.model.visual
    caught: dict[str, torch.Tensor] = {}

    def catch(_module: object, _args: object, kwargs: dict[str, object]) -> None:
        cos, sin = kwargs["position_embeddings"]  # type: ignore[misc]
        caught.update(cos=cos, sin=sin)

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
        end_token=np.array(processor.tokenizer.eos_token_id),  # type: ignore[attr-defined]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
