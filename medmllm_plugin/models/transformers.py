"""Vision-language models in the hub's layout, run in this process: Qwen2.5-VL, and so Lingshu, first.

Decoding is greedy and bound by the schema, so the same prompt gets the same reply, and every reply that ends
by itself satisfies the schema. torch and transformers are imported when a model is opened, not before.
"""

from __future__ import annotations

import importlib.util
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from medmllm_plugin.errors import ModelError, SettingsError
from medmllm_plugin.guard import Guard, outside
from medmllm_plugin.models import Capabilities, PlanFor, Progress, Reply
from medmllm_plugin.models.folder import ModelFolder, open_folder
from medmllm_plugin.models.qwen_inputs import model_inputs
from medmllm_plugin.prompts import Prompt
from medmllm_plugin.sliceset import SliceSet

ENGINE = ("torch", "torchvision", "transformers", "accelerate", "llguidance")
"""What the extra `engine` brings and this module needs."""

FLOAT32_BYTES = 1 << 30
"""Weights up to this size are computed in float32 on a CPU: faster there, and they fit anywhere."""

SINGLE_THREAD_BYTES = 64 << 20
"""Weights up to this size are computed by one thread on a CPU: measured three times faster than by two."""

BoxToPicture = Callable[[Any, tuple[float, ...], int, int], tuple[float, ...]]
"""(image processor, box, rows, columns of the picture) to a box in pixels of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What is the same for all models of one architecture."""

    box_to_picture: BoxToPicture
    pictures: int
    """Most pictures in one prompt, where the model's card doesn't say."""


def from_resized_pixels(
    image_processor: Any, box: tuple[float, ...], rows: int, columns: int
) -> tuple[float, ...]:
    """A Qwen2.5-VL box, x first in pixels of the resized picture, in pixels of the picture itself."""
    resized_rows, resized_columns = resized_shape(image_processor, rows=rows, columns=columns)
    across, down = columns / resized_columns, rows / resized_rows
    column_min, row_min, column_max, row_max = box
    return column_min * across, row_min * down, column_max * across, row_max * down


def resized_shape(image_processor: Any, *, rows: int, columns: int) -> tuple[int, int]:
    """(rows, columns) that a Qwen image processor gives a picture: whole patches, within its limits."""
    if not image_processor.do_resize:
        return rows, columns
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    size = image_processor.size
    resized: tuple[int, int] = smart_resize(
        rows,
        columns,
        factor=image_processor.patch_size * image_processor.merge_size,
        min_pixels=size["shortest_edge"],
        max_pixels=size["longest_edge"],
    )
    return resized


FAMILIES = {"qwen2_5_vl": Family(box_to_picture=from_resized_pixels, pictures=64)}
"""By `model_type` of config.json. 64 pictures of 512 x 512 are 20,736 tokens."""


class TransformersModel:
    """A model that was opened; its replies come one at a time, also when several threads ask."""

    def __init__(self, folder: ModelFolder, family: Family, *, model: Any, processor: Any) -> None:
        """Take what `open_model` has loaded."""
        self._folder = folder
        self._family = family
        self._model = model
        self._processor = processor
        self._vocabulary: Any = None
        self._lock = threading.Lock()
        self._capabilities = _capabilities(folder, family)
        named = folder.card.guard
        self._guard = None if named is None else Guard.load(folder.path / named)

    @property
    def name(self) -> str:
        """The name on its card, else its hub id or folder's name."""
        return self._folder.name

    @property
    def version(self) -> str:
        """The version on its card, else its commit on the hub, else the empty string."""
        return self._folder.version

    @property
    def weights_sha256(self) -> str:
        """Hash over the weight files; see `ModelFolder.weights_sha256`. The first use reads them all."""
        return self._folder.weights_sha256()

    @property
    def dtype(self) -> str:
        """Number type it computes in."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def capabilities(self) -> Capabilities:
        """What its card says, else what its family can."""
        return self._capabilities

    def outside_domain(self, slices: SliceSet) -> str | None:
        """Why these images are outside its domain, by its card's phantoms and guard; see `guard.outside`."""
        return outside(slices, model=self.name, kinds=self._folder.card.phantoms, guard=self._guard)

    def reply(
        self,
        prompt: Prompt,
        *,
        schema: dict[str, Any],
        seed: int,
        max_tokens: int,
        progress: Progress | None = None,
    ) -> Reply:
        """Answer with JSON that satisfies the schema, unless `max_tokens` cut it short.

        The choice of tokens is greedy: `seed` is set, and changes nothing as long as that is so.

        Raises:
            ModelError: If there are too many pictures or words, or the memory doesn't suffice.
        """
        import torch

        from medmllm_plugin.models.schema_bound import SchemaBound, Vocabulary

        with self._lock:
            started = time.perf_counter()
            inputs = self._inputs(prompt, max_tokens)
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(
                    self._processor.tokenizer,
                    size=self._model.get_output_embeddings().out_features,
                    ends=self._model.generation_config.eos_token_id,
                )
            bound = SchemaBound(self._vocabulary, schema, max_tokens=max_tokens, progress=progress)
            length = inputs["input_ids"].shape[1]
            try:
                cuda = [self._model.device] if self._model.device.type == "cuda" else []
                with _threads_for(self._folder), torch.random.fork_rng(devices=cuda), torch.inference_mode():
                    torch.manual_seed(seed)
                    output = self._model.generate(
                        **inputs, logits_processor=[bound], max_new_tokens=max_tokens
                    )
            except torch.OutOfMemoryError as error:
                raise ModelError(
                    f"{self.name}: found too little memory for {len(prompt.pictures)} pictures "
                    f"({length} tokens); show fewer or smaller pictures"
                ) from error
            tokens = output[0, length:].tolist()
            while tokens and tokens[-1] in self._vocabulary.ends:
                tokens.pop()
            probabilities = bound.probabilities[: len(tokens)]
            if not all(map(math.isfinite, probabilities)):
                raise ModelError(
                    f"{self.name}: its scores in {self.dtype} are not numbers; copy the model again"
                )
            texts = self._vocabulary.texts(tokens)
            return Reply(
                text="".join(texts),
                seconds=time.perf_counter() - started,
                token_texts=texts,
                token_probabilities=probabilities,
            )

    def box_to_picture(self, box: tuple[float, ...], *, rows: int, columns: int) -> tuple[float, ...]:
        """A box by the family's convention as (column_min, row_min, column_max, row_max) of the picture."""
        return self._family.box_to_picture(self._processor.image_processor, box, rows, columns)

    def _inputs(self, prompt: Prompt, max_tokens: int) -> Any:
        most = self._capabilities.pictures
        if len(prompt.pictures) > most:
            raise ModelError(
                f"{self.name}: found {len(prompt.pictures)} pictures, expected {most} at most; show fewer"
            )
        try:
            inputs = model_inputs(self._processor, prompt)
        except ValueError as error:
            raise ModelError(f"{self.name}: these pictures can't be prepared: {_one_line(error)}") from error
        length = inputs["input_ids"].shape[1]
        room = self._model.config.get_text_config().max_position_embeddings
        if length + max_tokens > room:
            raise ModelError(
                f"{self.name}: found {length} tokens of prompt and {max_tokens} for the reply, expected "
                f"{room} at most; show fewer or smaller pictures"
            )
        return inputs.to(self._model.device)


def open_model(spec: str) -> TransformersModel:
    """A local folder or a hub id of the Qwen2.5-VL family, such as Lingshu-7B: `transformers:SPEC`.

    On a GPU it computes in bfloat16, with flash attention where that is installed; on a CPU in float32 if it
    is small, else in the type its weights are stored in.

    Raises:
        SettingsError: If the engine is not installed, or `spec` names no model of a supported family.
        ModelError: If the model is there but can't be loaded.
    """
    check_engine()
    if not spec:
        raise SettingsError(
            "transformers: found no model, expected transformers:FOLDER or transformers:HUB_ID"
        )
    folder = open_folder(spec)
    family = FAMILIES.get(folder.model_type)
    if family is None:
        raise SettingsError(
            f"{spec}: found a model of type {folder.model_type!r}, expected one of {', '.join(FAMILIES)}; "
            "open another model, or serve this one and open it over HTTP"
        )
    try:
        with _quiet():
            model, processor = _load(folder)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{folder.name}: can't be loaded: {_one_line(error)}; copy the model again"
        ) from error
    return TransformersModel(folder, family, model=model, processor=processor)


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


def _load(folder: ModelFolder) -> tuple[Any, Any]:
    from medmllm_plugin.models import torchvision_shim

    torchvision_shim.ensure()
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
    from transformers.utils import is_flash_attn_2_available

    cuda = torch.cuda.is_available()
    if cuda:
        dtype: Any = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    else:
        dtype = torch.float32 if folder.weights_bytes <= FLOAT32_BYTES else "auto"
    processor = AutoProcessor.from_pretrained(folder.path, local_files_only=True)
    # Some folders keep the template with the tokenizer.
    processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    if not processor.chat_template:
        raise ValueError("it has no chat template")
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder.path,
            dtype=dtype,
            device_map="auto" if cuda else None,
            attn_implementation="flash_attention_2" if cuda and is_flash_attn_2_available() else "sdpa",
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise ValueError(f"its weights are damaged ({error})") from error
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            one = sorted(map(str, info[problem]))[0]
            raise ValueError(
                f"its weights don't fit its config.json: {len(info[problem])} {problem}, such as {one}"
            )
    found, expected = processor.image_token_id, model.config.image_token_id
    if found != expected:
        raise ValueError(f"its tokenizer doesn't fit: a picture is token {found}, in config.json {expected}")
    # The folder's own settings ask for sampling and penalties; what we run is greedy.
    stored = model.generation_config
    ends = stored.eos_token_id if stored.eos_token_id is not None else processor.tokenizer.eos_token_id
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=list(ends) if isinstance(ends, list) else [ends],
        pad_token_id=processor.tokenizer.pad_token_id,
    )
    return model.eval(), processor


def _capabilities(folder: ModelFolder, family: Family) -> Capabilities:
    card = folder.card
    said = {
        "pictures": card.pictures or family.pictures,
        "boxes": card.boxes,
        "box_limit": card.box_limit,
        "findings": card.findings,
        "sites": card.sites,
        "tasks": card.tasks,
        "terse": card.terse,
        "plan": card.plan,
        "plans": None
        if card.plans is None
        else tuple(PlanFor(names=tuple(one["for"]), plan=one["plan"]) for one in card.plans),
        "domain": card.domain,
        "measured": card.measured,
    }
    known: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    return Capabilities(**{"boxes": True, "schema_bound": True, **known})


@contextmanager
def _threads_for(folder: ModelFolder) -> Iterator[None]:
    """One thread while a very small model computes: its steps are too short to be shared."""
    import torch

    threads = torch.get_num_threads()
    if folder.weights_bytes > SINGLE_THREAD_BYTES or threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings meant for developers of the libraries, and their progress bars, away from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging

        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200]
