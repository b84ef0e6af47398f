"""vLLM's engine in this process: started, given prompts, and asked for their tokens one step at a time.

Everything that knows vLLM's own names is here. It is imported late; vLLM itself when an engine is started.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medmllm_plugin.errors import CancelledError, ModelError, SettingsError
from medmllm_plugin.models import Ask, Cancel, Progress
from medmllm_plugin.models.folder import Adapter, ModelFolder
from medmllm_plugin.models.weight_files import tensors

ALTERNATIVES = 8
"""How many of the likeliest tokens are asked for at each place."""

CONTEXT = 32_768
"""Longest prompt and reply together, unless more are asked for: 64 pictures of 512 x 512 make 20,736."""

CPU_MEMORY = 2048
"""MiB for keys and values on a CPU, where vLLM alone would take nearly all the memory of the machine."""

FLOAT32_BYTES = 1 << 30
"""Weights up to this size are computed in float32 on a CPU, as by `transformers:`."""

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}

VISION_PARTS = ("visual.", "vision_tower.", "vision_model.", "multi_modal_projector.")
"""Begin the names of what is no part of the language model, in some family or other."""

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest rank of an adapter that vLLM can be opened for."""

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no other process: so it can be cancelled between two tokens
    "VLLM_LOGGING_LEVEL": "CRITICAL",  # errors are ours to tell, in one line
    "VLLM_NO_USAGE_STATS": "1",  # nothing leaves the machine unasked
}
"""vLLM reads these only from the environment; what is set there already stays."""

_alive: weakref.WeakSet[Any] = weakref.WeakSet()
_kept: list[Any] = []
"""Engines that stay until the process ends: vLLM's engines share what the first to go takes down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VllmOptions:
    """How `vllm:PLACE?…` is opened."""

    dtype: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """Number type; auto: as the weights are stored, on a CPU fp32 for a small model."""
    max_model_len: int | None = None
    """Most tokens of a prompt and its reply; None: 32,768, or what the model takes if that is less."""
    max_pictures: int | None = None
    """Most pictures in a prompt; None: what its card or its family says."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory that vLLM takes."""
    memory: int | None = None
    """MiB for keys and values; None: what is left of that share, on a CPU 2048."""
    tensor_parallel_size: int = 1
    """Over how many GPUs the model is laid."""
    batch: int | None = None
    """Most prompts computed together; None: as vLLM thinks best."""
    quantization: str | None = None
    """As vLLM calls it, such as `fp8`, `awq` or `bitsandbytes`."""
    adapter: str | None = None
    """Folder of a LoRA adapter, as peft saves it."""
    eager: bool | None = None
    """True: no compiled graphs, so a quicker start and slower tokens; None: only on a CPU."""
    local_files_only: bool = False
    """True: a hub id is looked up in the local cache, and the hub is never asked."""

    def __post_init__(self) -> None:
        for name in ("max_model_len", "max_pictures", "memory", "tensor_parallel_size", "batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: found {value}, expected a number from 1")
        if not 0 < self.gpu_memory_utilization <= 1:
            found = self.gpu_memory_utilization
            raise ValueError(f"gpu_memory_utilization: found {found}, expected a share above 0 up to 1")


@dataclass(kw_only=True, slots=True, eq=False)
class Written:
    """A reply as it comes."""

    tokens: list[int] = field(default_factory=list)
    places: list[dict[int, float]] = field(default_factory=list)
    """For each token the natural logarithms of the probabilities of the likeliest there, it among them."""
    first_token: float | None = None
    """When its first token came, by `time.perf_counter`."""
    prompt: Sequence[int] = ()
    """The tokens of its prompt, pictures with all of theirs."""
    remembered: int = 0
    """How many of them were not computed again."""
    reason: str | None = None
    """Why it ended, as vLLM calls it: `stop`, `length`, `error`."""


def check_installed() -> None:
    """See that vLLM and what our part of it needs are installed, importing nothing.

    Raises:
        SettingsError: If not.
    """
    missing = [name for name in ("vllm", "torch", "llguidance") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"vllm: needs {', '.join(missing)}, not installed here; run: pip install "
            '"medmllm-plugin[vllm]", or ask a vLLM server by chat:URL, which needs none of it here'
        )


class VllmEngine:
    """An engine that was started; one thread at a time may use it."""

    def __init__(self, llm: Any, *, name: str, adapter: Adapter | None) -> None:
        """Take what `start` made."""
        from vllm.lora.request import LoRARequest

        self._llm = llm
        self._engine = llm.llm_engine
        self._name = name
        self._adapter = None if adapter is None else LoRARequest("adapter", 1, str(adapter.path.resolve()))
        self._asked = 0

    @property
    def dtype(self) -> str:
        """Number type it computes in."""
        return str(self._engine.model_config.dtype).removeprefix("torch.")

    @property
    def context_tokens(self) -> int:
        """Most tokens of a prompt and its reply."""
        return int(self._engine.model_config.max_model_len)

    @property
    def vocabulary_size(self) -> int:
        """How many scores the model gives."""
        return int(self._engine.model_config.get_vocab_size())

    def write(
        self,
        prompts: Sequence[Mapping[str, Any]],
        asks: Sequence[Ask],
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> list[Written]:
        """The replies to prompts, computed together.

        Args:
            prompts: For each ask what vLLM calls a text prompt: `prompt`, and `multi_modal_data` with the
                pictures.
            asks: Their schemas, seeds, temperatures and limits.
            progress: Called after each step with (tokens of the longest reply, tokens at most).
            cancel: Asked before each step.

        Raises:
            ModelError: If vLLM refuses a prompt or a schema, or the memory doesn't suffice.
            CancelledError: If `cancel` said so.
        """
        written: dict[str, Written] = {}
        most = max(ask.max_tokens for ask in asks)
        try:
            for prompt, ask in zip(prompts, asks, strict=True):
                self._check(cancel)
                self._asked += 1
                written[str(self._asked)] = Written()
                self._add(str(self._asked), prompt, ask)
            while self._engine.has_unfinished_requests():
                self._check(cancel)
                for output in self._engine.step():
                    _take(written[output.request_id], output)
                longest = max(len(one.tokens) for one in written.values())
                if progress is not None and longest:
                    progress(min(longest, most), most)
        except CancelledError:
            raise
        except Exception as error:  # of many kinds, from version to version
            reason = one_line(error)
            if "memory" in reason.lower():
                reason += "; show fewer or smaller pictures, or open it with a smaller batch"
            raise ModelError(f"{self._name}: vLLM can't answer: {reason}") from error
        finally:
            if any(one.reason is None for one in written.values()):
                self._forget(list(written))
        return list(written.values())

    def _forget(self, requests: list[str]) -> None:
        """Leave requests where they are.

        vLLM may have noted pictures as sent that never arrived, and would miss them the next time.
        """
        self._engine.abort_request(requests)
        self._llm.reset_mm_cache()

    def _check(self, cancel: Cancel | None) -> None:
        if cancel is not None and cancel():
            raise CancelledError(f"{self._name}: stopped before its reply was complete")

    def _add(self, number: str, prompt: Mapping[str, Any], ask: Ask) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        params = SamplingParams(
            temperature=ask.temperature,
            seed=ask.seed if ask.temperature > 0 else None,
            max_tokens=ask.max_tokens,
            logprobs=ALTERNATIVES,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            structured_outputs=None if ask.schema is None else StructuredOutputsParams(json=ask.schema),
        )
        renderer = self._engine.renderer
        # The template has written what begins a conversation already.
        tokenize = renderer.default_cmpl_tok_params.with_kwargs(add_special_tokens=False)
        (rendered,) = renderer.render_cmpl([dict(prompt)], tokenize)
        self._engine.add_request(number, rendered, params, lora_request=self._adapter)


def start(
    folder: ModelFolder,
    options: VllmOptions,
    *,
    context: int,
    pictures: int,
    cutting: Mapping[str, Any],
    embeddings: bool = False,
) -> VllmEngine:
    """Start vLLM with a model's folder; on a GPU if vLLM was built for one, else on the CPU.

    Replies are bound by llguidance, as with `transformers:`; what was computed of a prompt's beginning is
    kept for the next prompt that begins so.

    Args:
        folder: The model's.
        options: As the user gave them.
        context: Most tokens of a prompt and its reply.
        pictures: Most pictures in a prompt.
        cutting: Settings of the picture processor that must not be the folder's.
        embeddings: Whether prompts come as embeddings, which a language model by itself takes.

    Raises:
        SettingsError: If this vLLM has no device here, or can't take the adapter.
        ModelError: If the model can't be opened.
    """
    adapter = None if folder.adapter is None else _checked(folder.adapter)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise SettingsError(
                f"vllm: is installed but can't be imported: {one_line(error)}; install it again"
            ) from error
        if not current_platform.device_type:
            raise SettingsError(
                "vllm: found no GPU that the vLLM installed here was built for; use transformers: on this "
                "machine, or ask a vLLM server by chat:URL"
            )
        cpu = bool(current_platform.is_cpu())
        arguments = _arguments(options, folder, cpu=cpu)
        gc.collect()  # takes down an engine that was dropped
        if embeddings:
            arguments["enable_prompt_embeds"] = True
        else:
            arguments["limit_mm_per_prompt"] = {"image": pictures, "video": 0}
            arguments["mm_processor_kwargs"] = dict(cutting) or None
        others = list(_alive)
        try:
            llm = LLM(model=str(folder.path), max_model_len=context, **arguments)
        except Exception as error:  # of many kinds, from version to version
            raise ModelError(_refusal(folder.name, error)) from error
    _alive.add(llm)
    if others:
        _kept.extend([*others, llm])
    return VllmEngine(llm, name=folder.name, adapter=adapter)


def _checked(adapter: Adapter) -> Adapter:
    """An adapter that vLLM takes whole: what is for the vision part it would leave out, without a word."""
    for tensor in tensors(adapter.weights):
        if any(part in tensor.name for part in VISION_PARTS):
            raise SettingsError(
                f"{adapter.path}: found an adapter for the vision part ({tensor.name}), which vLLM leaves "
                "out; open it with transformers:, or merge it into the model first"
            )
    if adapter.rank > LORA_RANKS[-1]:
        raise SettingsError(
            f"{adapter.path}: found rank {adapter.rank}, expected {LORA_RANKS[-1]} at most with vLLM; "
            "open it with transformers:, or merge it into the model first"
        )
    return adapter


def _arguments(options: VllmOptions, folder: ModelFolder, *, cpu: bool) -> dict[str, Any]:
    """What vLLM calls engine arguments."""
    small = cpu and folder.weights_bytes <= FLOAT32_BYTES
    memory = options.memory or (CPU_MEMORY if cpu else None)
    found: dict[str, Any] = {
        "dtype": DTYPES.get(options.dtype, "float32" if small else "auto"),
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_cache_memory_bytes": None if memory is None else memory << 20,
        "tensor_parallel_size": options.tensor_parallel_size,
        "quantization": options.quantization,
        "enforce_eager": cpu if options.eager is None else options.eager,
        "enable_prefix_caching": True,
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        "seed": 0,
        "trust_remote_code": False,
        "use_tqdm_on_load": False,
    }
    if options.batch is not None:
        found["max_num_seqs"] = options.batch
    if folder.adapter is not None:
        fitting = min(rank for rank in LORA_RANKS if rank >= folder.adapter.rank)
        found |= {"enable_lora": True, "max_lora_rank": fitting}
    return found


def _refusal(name: str, error: Exception) -> str:
    reason = one_line(error)
    if "memory" in reason.lower():
        return (
            f"{name}: found too little memory for vLLM: {reason}; set max_model_len or max_pictures lower, "
            "or memory or gpu_memory_utilization higher"
        )
    return f"{name}: vLLM can't open it: {reason}"


def _take(written: Written, output: Any) -> None:
    """Add what a step brought; vLLM sends each token once."""
    (piece,) = output.outputs
    if piece.token_ids and written.first_token is None:
        written.first_token = time.perf_counter()
    written.tokens += piece.token_ids
    written.places += [{token: one.logprob for token, one in place.items()} for place in piece.logprobs or ()]
    written.prompt = output.prompt_token_ids or written.prompt
    written.remembered = output.num_cached_tokens or written.remembered
    written.reason = piece.finish_reason


def one_line(error: object) -> str:
    """The words of an error of somebody else's, in one line."""
    return " ".join(str(error).split())[:300]
