"""Builds a Qwen2.5-VL with random weights, small enough to make and run within seconds, for tests.

It knows nothing; it leans towards closing what it opened, so its replies end soon.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from medmllm_plugin.models import torchvision_shim

CONTROL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
WORDS = [
    'You are an expert radiologist. <image_1>: <image_2>: Report what you see. {"abnormal_pictures":[1],',
    '"findings":[{"finding":"nodule","site":"lung","side":"left","status":"present","severity":null,"pictures":[1],"box":',
    'null,"sentence":"A nodule in the left upper lobe."}],"impression":["Nodule."]} effusion liver right',
]
SPLIT = r"""(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"""
TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}{{ '\\n' }}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'text' -%}{{ part.text }}"
    "{%- elif part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- endif -%}"
    "{%- endfor -%}<|im_end|>{{ '\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\\n' }}{%- endif -%}"
)
HIDDEN, HEADS, HEAD_DIM = 64, 2, 32
CONSTANT, BIAS = 4.0, 3.0


@cache
def tiny_folder(*, seed: int = 0) -> Path:
    """A folder as transformers 5 saves it, made once in a session."""
    folder = _temporary("tiny")
    torchvision_shim.ensure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _save(folder, seed)
    return folder


@cache
def hub_folder(*, seed: int = 0) -> Path:
    """The same model in the layout of Lingshu-7B on the hub: as transformers 4.49 saved it, in two shards."""
    source = tiny_folder(seed=seed)
    folder = _temporary("hub")
    config = json.loads((source / "config.json").read_text())
    _write(folder / "config.json", _flat(config))
    _write_shards(source, folder)
    tokens = json.loads((source / "tokenizer.json").read_text())
    _write(folder / "vocab.json", tokens["model"]["vocab"])
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokens["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    special = {
        str(token["id"]): {key: token[key] for key in token if key != "id"}
        for token in tokens["added_tokens"]
    }
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": special,
            "additional_special_tokens": CONTROL[1:],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )
    _write(folder / "chat_template.json", {"chat_template": TEMPLATE})
    _write(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_processor_type": "Qwen2VLImageProcessor",
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "max_pixels": 12845056,
            "merge_size": 2,
            "min_pixels": 3136,
            "patch_size": 14,
            "processor_class": "Qwen2_5_VLProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"longest_edge": 12845056, "shortest_edge": 3136},
            "temporal_patch_size": 2,
        },
    )
    generation = json.loads((source / "generation_config.json").read_text())
    generation |= {
        "do_sample": True,
        "temperature": 1e-06,
        "repetition_penalty": 1.05,
        "transformers_version": "4.49.0",
    }
    _write(folder / "generation_config.json", generation)
    return folder


def with_card(folder: Path, into: Path, card: dict[str, Any]) -> Path:
    """A copy of a folder with a reading card."""
    shutil.copytree(folder, into)
    _write(into / "medmllm.json", card)
    return into


def _temporary(kind: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"medmllm-{kind}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _save(folder: Path, seed: int) -> None:
    import torch
    from transformers import (
        GenerationConfig,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _tokenizer()
    ids = dict(zip(CONTROL, tokenizer.convert_tokens_to_ids(CONTROL), strict=True))
    rotary = {"rope_type": "default", "type": "mrope", "mrope_section": [4, 6, 6], "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 63) // 64 * 64,
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": HEADS,
            "num_key_value_heads": 1,
            "head_dim": HEAD_DIM,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": rotary,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "in_channels": 3,
            "in_chans": 3,
            "out_hidden_size": HIDDEN,
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
        _lean(model, tokenizer)
    model.generation_config = GenerationConfig(
        bos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        do_sample=False,
    )
    model.save_pretrained(folder)
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12845056),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def _lean(model: Any, tokenizer: Any) -> None:
    """Make weights large enough for pictures and words to count, and a sentence's end likely.

    One channel is the same for all tokens, so what the output layer has in it is as good as a bias.
    """
    import torch

    embedding = model.model.language_model.embed_tokens.weight
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(5.0)
        embedding.normal_(0.0, 1.0)
        embedding[:, 0] = CONSTANT
        model.lm_head.weight.normal_(0.0, 1.0)
        model.lm_head.weight[:, 0] = 0.0
        for text, token in tokenizer.get_vocab().items():
            if text.startswith('"'):
                model.lm_head.weight[token, 0] = BIAS


def _tokenizer() -> Any:
    """A byte-level BPE of Qwen's kind, trained here on three lines."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )
    from transformers import Qwen2Tokenizer

    tokens = Tokenizer(models.BPE())
    tokens.normalizer = normalizers.NFC()
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
    tokens.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    return Qwen2Tokenizer(
        tokenizer_object=tokens,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=CONTROL[1:],
        model_max_length=32768,
        chat_template=TEMPLATE,
    )


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """A config of transformers 5 as 4.49 wrote it: the text model's fields at the top."""
    text, vision = config["text_config"], config["vision_config"]
    ours = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
    )
    eyes = (
        "depth",
        "hidden_size",
        "intermediate_size",
        "num_heads",
        "out_hidden_size",
        "patch_size",
        "window_size",
    )
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "transformers_version": "4.49.0",
        "torch_dtype": "float32",
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_window_layers": 28,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "use_cache": True,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": text["rope_parameters"]["mrope_section"]},
        "max_position_embeddings": 32768,
        "vocab_size": text["vocab_size"],
        "tie_word_embeddings": False,
        **{key: text[key] for key in ours},
        **{key: text[key] for key in ("bos_token_id", "eos_token_id")},
        **{key: config[key] for key in config if key.endswith("_token_id")},
        "vision_token_id": config["vision_end_token_id"],
        "vision_config": {
            **{key: vision[key] for key in eyes},
            "model_type": "qwen2_5_vl",
            "in_chans": 3,
            "hidden_act": "silu",
            "fullatt_block_indexes": vision["fullatt_block_indexes"],
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
        },
    }


def _write_shards(source: Path, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    weight_map = {}
    for number, half in enumerate(halves, 1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in half}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(half, shard)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    _write(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map}
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
