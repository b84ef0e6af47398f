"""Loads a model of the hub's layout with transformers, after seeing that it can be loaded.

No code of the folder is ever run. torch and transformers are imported when a model is loaded, not before.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.models import torchvision_shim
from medmllm_plugin.models.families import family_of
from medmllm_plugin.models.families.family import DEFAULTS, Family
from medmllm_plugin.models.folder import Adapter, ModelFolder
from medmllm_plugin.models.main_memory import available_bytes
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.models.weight_files import Tensor, tensors

ENGINE = ("torch", "torchvision", "transformers", "accelerate", "llguidance")
"""What the extra `engine` brings and these models need."""

FLOAT32_BYTES = 1 << 30
"""Weights up to this size are computed in float32 on a CPU: faster there, and they fit anywhere."""

NOT_QUANTIZED = (
    *("visual", "vision_tower", "multi_modal_projector", "embedding_layer", "embed_tokens", "lm_head"),
)
"""Parts that keep their 16 bits: what sees, where few bits cost most and save least, and the vocabulary."""

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
BITS = {"none": None, "8bit": 8, "4bit": 4}

FAILURES = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError)
"""What transformers raises about a folder that it can't load."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loaded:
    """A model in memory, and what makes its inputs."""

    model: Any
    """Of transformers; computes, and nothing else: greedy unless it is told otherwise."""
    processor: Any
    family: Family


def check_engine() -> None:
    """See that what the extra `engine` brings is installed, importing nothing.

    Raises:
        SettingsError: If something is missing.
    """
    missing = [name for name in ENGINE if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"this model needs {', '.join(missing)}, not installed here; "
            'run: pip install "medmllm-plugin[engine]"'
        )


def load(folder: ModelFolder, options: TransformersOptions = DEFAULTS) -> Loaded:
    """The model in a folder, with its adapter if it has one.

    Raises:
        SettingsError: If it is of no family here, or an option asks for what this computer doesn't have.
        ModelError: If its files are damaged or don't fit each other, or the memory doesn't suffice.
    """
    family = check_options(folder, options)
    torchvision_shim.ensure()
    import torch
    from safetensors import SafetensorError

    where = _device_map(options, folder)
    dtype = _dtype(options, folder, on_gpu=where is not None and where != {"": "cpu"})
    check_room(folder, options, dtype=dtype, device_map=where)
    processor = load_processor(folder)
    try:
        with quiet():
            source = family.source(folder)
            model, info = source.pop("model").from_pretrained(
                **source,
                dtype=dtype,
                device_map=where,
                attn_implementation=_attention(options, on_gpu=where not in (None, {"": "cpu"})),
                quantization_config=_quantization(options, dtype),
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # told by _check_keys, which names one
                output_loading_info=True,
            )
            _check_keys(info)
            found, expected = family.image_token(processor), model.config.image_token_id
            if found != expected:
                raise ValueError(
                    f"its tokenizer doesn't fit: a picture is token {found}, in config.json {expected}"
                )
            _greedy(model, processor)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{folder.name}: found too little memory; {_smaller(options)}") from error
    except SafetensorError as error:
        raise ModelError(
            f"{folder.name}: its weights are damaged ({one_line(error)}); copy the model again"
        ) from error
    except FAILURES as error:
        raise ModelError(
            f"{folder.name}: can't be loaded: {one_line(error)}; copy the model again"
        ) from error
    if folder.adapter is not None:
        try:
            with quiet():
                _add(folder.adapter, model, merge=options.quantize == "none")
        except (*FAILURES, SafetensorError) as error:
            raise ModelError(
                f"{folder.name}: its adapter can't be added: {one_line(error)}; take one made for this model"
            ) from error
    return Loaded(model=model.eval(), processor=processor, family=family)


def load_processor(folder: ModelFolder) -> Any:
    """What makes the inputs of the model in a folder, with its chat template.

    Raises:
        ModelError: If the folder lacks something for it.
    """
    torchvision_shim.ensure()
    family = family_of(folder.model_type, where=folder.name)
    try:
        with quiet():
            processor = family.load_processor(folder)
    except FAILURES as error:
        raise ModelError(
            f"{folder.name}: can't be loaded: {one_line(error)}; copy the model again"
        ) from error
    return processor


def check_options(folder: ModelFolder, options: TransformersOptions) -> Family:
    """The family of the model in a folder, after seeing that it takes these options.

    Raises:
        SettingsError: If there is no such family here, it doesn't take an option, or what an option needs is
            not installed.
    """
    family = family_of(folder.model_type, where=folder.name)
    for name in ("video", "tiles"):
        if getattr(options, name) != getattr(DEFAULTS, name) and name not in family.takes:
            raise SettingsError(
                f"{folder.name}: found the option {name}, expected none such for {family.name}; leave it out"
            )
    needs = [
        ("bitsandbytes", f"quantize={options.quantize}", options.quantize != "none"),
        ("peft", f"adapter={options.adapter}", folder.adapter is not None),
        ("flash_attn", f"attention={options.attention}", options.attention == "flash_attention_2"),
    ]
    for package, option, wanted in needs:
        if wanted and importlib.util.find_spec(package) is None:
            raise SettingsError(
                f"{folder.name}: {option} needs {package}, not installed here; "
                f"run: pip install {package.replace('_', '-')}, or leave the option out"
            )
    return family


def check_room(folder: ModelFolder, options: TransformersOptions, *, dtype: Any, device_map: Any) -> None:
    """See that the weights are whole and fit into the memory, reading their headers only.

    Raises:
        ModelError: If a file is damaged, or the memory is too small; says how much is needed and how much
            there is.
    """
    import torch

    as_stored = dtype == "auto" or "quantization_config" in folder.config
    width = None if as_stored else dtype.itemsize
    bits = BITS[options.quantize]
    files = [*folder.weights, *([] if folder.adapter is None else [folder.adapter.weights])]
    needed = sum(_bytes(tensor, width=width, bits=bits) for path in files for tensor in tensors(path))
    if device_map is None or device_map == {"": "cpu"}:
        free, place = available_bytes(), "memory"
    else:
        cards = range(torch.cuda.device_count()) if isinstance(device_map, str) else [device_map[""]]
        free, place = sum(torch.cuda.mem_get_info(card)[0] for card in cards), "GPU memory"
    if needed > free:
        raise ModelError(
            f"{folder.name}: its weights need {needed / 2**30:.1f} GiB of {place}, "
            f"found {free / 2**30:.1f} GiB free; {_smaller(options)}"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings meant for developers of the libraries, and their progress bars, away from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging as its

        level, bars = its.get_verbosity(), its.is_progress_bar_enabled()
        its.set_verbosity_error()
        its.disable_progress_bar()
        try:
            yield
        finally:
            its.set_verbosity(level)
            if bars:
                its.enable_progress_bar()


def one_line(error: object) -> str:
    """What an error of a library says, fit for an error of ours."""
    return " ".join(str(error).split())[:200]


def _bytes(tensor: Tensor, *, width: int | None, bits: int | None) -> int:
    """What a tensor will need: at `width` bytes a number, or with `bits` a number where it is quantized."""
    if bits is not None and len(tensor.shape) == 2 and not any(part in tensor.name for part in NOT_QUANTIZED):
        return tensor.numbers * bits // 8
    return tensor.bytes if width is None else tensor.numbers * width


def _smaller(options: TransformersOptions) -> str:
    """What to do about too little memory."""
    fewer = "" if options.quantize == "4bit" else ", open it with ?quantize=4bit"
    return f"free some{fewer}, use a larger computer, or open a smaller model"


def _device_map(options: TransformersOptions, folder: ModelFolder) -> Any:
    import torch

    wanted, found = options.device_map, torch.cuda.device_count()
    if wanted in ("auto", "balanced", "sequential"):
        return wanted if found else None
    kind, _, number = wanted.partition(":")
    if kind == "cpu" and not number:
        return {"": "cpu"}
    if kind != "cuda" or not (number.isdecimal() or not number):
        raise SettingsError(
            f"{folder.name}: device_map: found {wanted!r}, expected auto, balanced, sequential, cpu or cuda:0"
        )
    if int(number or 0) >= found:
        raise SettingsError(
            f"{folder.name}: device_map: found {wanted!r}, but torch sees {found} GPUs; leave the option out"
        )
    return {"": int(number or 0)}


def _dtype(options: TransformersOptions, folder: ModelFolder, *, on_gpu: bool) -> Any:
    import torch

    if options.dtype != "auto":
        return getattr(torch, DTYPES[options.dtype])
    if on_gpu:
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if options.quantize != "none":
        return torch.bfloat16
    return torch.float32 if folder.weights_bytes <= FLOAT32_BYTES else "auto"


def _attention(options: TransformersOptions, *, on_gpu: bool) -> str:
    if options.attention != "auto":
        return options.attention
    from transformers.utils import is_flash_attn_2_available

    return "flash_attention_2" if on_gpu and is_flash_attn_2_available() else "sdpa"


def _quantization(options: TransformersOptions, dtype: Any) -> Any:
    if options.quantize == "none":
        return None
    from transformers import BitsAndBytesConfig

    # It tells at each of its layers that it computes in float16 inside.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    return BitsAndBytesConfig(
        load_in_8bit=options.quantize == "8bit",
        load_in_4bit=options.quantize == "4bit",
        llm_int8_skip_modules=[f".*{name}" for name in NOT_QUANTIZED],
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
    )


def _check_keys(info: dict[str, Any], *, of: str = "its weights", to: str = "its config.json") -> None:
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            one = sorted(map(str, info[problem]))[0]
            raise ValueError(f"{of} don't fit {to}: {len(info[problem])} {problem}, such as {one}")


def _greedy(model: Any, processor: Any) -> None:
    """Forget the sampling and penalties that the folder asks for; what ends a reply stays."""
    from transformers import GenerationConfig

    stored = model.generation_config.eos_token_id
    ends = stored if stored is not None else processor.tokenizer.eos_token_id
    ends = list(ends) if isinstance(ends, list) else [ends]
    padding = processor.tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=ends, pad_token_id=ends[0] if padding is None else padding
    )


def _add(adapter: Adapter, model: Any, *, merge: bool) -> None:
    """Put an adapter into a model; where it can be merged, nothing of it is left but other weights."""
    from peft import PeftConfig
    from peft.tuners.tuners_utils import BaseTunerLayer
    from safetensors.torch import load_file

    # Given what is in the files and not where they are, transformers looks nowhere else for them.
    info = model.load_adapter(
        peft_config=PeftConfig.from_pretrained(str(adapter.path)),
        adapter_state_dict=load_file(adapter.weights),
        ignore_mismatched_sizes=True,
    )
    _check_keys(vars(info), of="its weights", to="the model")
    changed = [(name, one) for name, one in model.named_modules() if isinstance(one, BaseTunerLayer)]
    if not changed:
        raise ValueError("its adapter changes nothing of the model")
    for name, module in changed if merge else ():
        module.merge(safe_merge=True)
        model.set_submodule(name, module.get_base_layer())
