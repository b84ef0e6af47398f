"""RadFM as a model of transformers: its vision half before a stock `LlamaForCausalLM`.

So it is loaded, quantized, laid over devices and asked like the other families. Imported late: it needs torch
and transformers.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from medmllm_plugin.models import torchvision_shim
from medmllm_plugin.models.radfm.architecture import FrontEnd
from medmllm_plugin.models.radfm.layout import TIED, WORDS
from medmllm_plugin.models.radfm.sizes import LANGUAGE, TYPE, VisionSizes

torchvision_shim.ensure()

from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationMixin,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling  # noqa: E402

KEY_MAPPING = {
    r"^model\.embed_tokens\.weight$": WORDS,
    r"^model\.(?!embed_tokens)": "lang_model.model.",
    r"^lm_head\.": "lang_model.lm_head.",
}
"""From the names in a converted folder to those of the modules here."""


class RadFMConfig(PreTrainedConfig):  # type: ignore[misc]
    """The content of config.json: sizes of both halves."""

    model_type = TYPE
    sub_configs = {"text_config": LlamaConfig}  # noqa: RUF012

    vision_config: dict[str, int] | None = None
    """Fields of `VisionSizes`; as published where there is none."""
    text_config: dict[str, Any] | LlamaConfig | None = None
    """Fields of `LlamaConfig`; LLaMA-13B where there is none."""
    tie_word_embeddings: bool = True
    """The language half's embeddings are those of the front end; its last layer has weights of its own."""

    def __post_init__(self, **others: Any) -> None:
        """Fill in what isn't said."""
        self.vision_config = asdict(VisionSizes(**(self.vision_config or {})))
        if not isinstance(self.text_config, LlamaConfig):
            said = {**(self.text_config or LANGUAGE)}
            said.pop("model_type", None)
            self.text_config = LlamaConfig(**said)
        super().__post_init__(**others)

    @property
    def image_token_id(self) -> int:
        """The token that stands, 32 times, for an image: the first after the two marks around it."""
        assert isinstance(self.text_config, LlamaConfig)
        return int(self.text_config.vocab_size) + 2


class RadFM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The model."""

    config_class = RadFMConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _no_split_modules = ("LlamaDecoderLayer", "FrontEnd")
    _skip_keys_device_placement = ("past_key_values",)
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _keep_in_fp32_modules_strict = ("vision_encoder", "perceiver", "fc")
    """Small beside the other half, and so exact as published."""
    _tied_weights_keys = {TIED: WORDS}  # noqa: RUF012

    def __init__(self, config: RadFMConfig) -> None:
        """Make the modules; their weights come from a checkpoint."""
        super().__init__(config)
        text = config.text_config
        assert isinstance(text, LlamaConfig)
        assert config.vision_config is not None
        self.embedding_layer = FrontEnd(
            VisionSizes(**config.vision_config), vocabulary=text.vocab_size, width=text.hidden_size
        )
        self.lang_model = LlamaForCausalLM(text)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Random weights, for a model that is made and not loaded."""
        super()._init_weights(module)
        for name in ("weight", "figure_token_weight", "latents"):
            one = getattr(module, name, None)
            if isinstance(one, nn.Parameter) and one.ndim == 2 and not isinstance(module, nn.Linear):
                nn.init.normal_(one, std=0.02)

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of words in the language half, which shares its weights."""
        embeddings: nn.Module = self.lang_model.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The last layer of the language half."""
        head: nn.Module = self.lang_model.lm_head
        return head

    def get_decoder(self) -> nn.Module:
        """The layers of the language half."""
        decoder: nn.Module = self.lang_model.model
        return decoder

    def get_image_features(self, pixel_values: torch.Tensor, **others: Any) -> BaseModelOutputWithPooling:
        """The tokens of volumes as `pooler_output`, shape (volumes, latents, hidden).

        Args:
            pixel_values: Shape (volumes, 3, rows, columns, depth), grey levels from 0 to 1.
            others: What transformers hands to all models.
        """
        return BaseModelOutputWithPooling(pooler_output=self.embedding_layer.encode(pixel_values))

    def embedded(self, input_ids: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """Embeddings of a prompt, images in the places of their tokens; shape (rows, tokens, hidden).

        Args:
            input_ids: Shape (rows, tokens).
            features: Of all images in the order of their places, shape (images, latents, hidden).

        Raises:
            ValueError: If there are other than as many tokens of images as places.
        """
        found: torch.Tensor = self.embedding_layer(input_ids)
        places = (input_ids >= self.config.image_token_id).to(found.device)
        tokens = 0 if features is None else features.shape[:-1].numel()
        if int(places.sum()) != tokens:
            raise ValueError(f"found places for {int(places.sum())} tokens of images, expected {tokens}")
        if features is None:
            return found
        return found.masked_scatter(places[..., None], features.to(found.device, found.dtype))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        pixel_values: torch.Tensor | None = None,
        **others: Any,
    ) -> Any:
        """What the language half says to the embeddings of a prompt; arguments as of `LlamaForCausalLM`.

        Args:
            input_ids: Shape (rows, tokens); the tokens of images are `RadFMConfig.image_token_id`.
            attention_mask: Shape (rows, tokens).
            position_ids: Shape (rows, tokens).
            past_key_values: The cache of what came before.
            inputs_embeds: In place of the ids.
            mm_encoder_outputs: What `get_image_features` made, under `image`.
            pixel_values: In place of that, as `get_image_features` takes it.
            others: Handed on.
        """
        if inputs_embeds is None:
            assert input_ids is not None
            seen = (mm_encoder_outputs or {}).get("image")
            if seen is None and pixel_values is not None:
                seen = self.get_image_features(pixel_values)
            inputs_embeds = self.embedded(input_ids, None if seen is None else seen.pooler_output)
        return self.lang_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **others,
        )


def register() -> None:
    """Tell transformers of the model, so that its loaders know the type."""
    AutoConfig.register(TYPE, RadFMConfig, exist_ok=True)
    AutoModelForImageTextToText.register(RadFMConfig, RadFM, exist_ok=True)
