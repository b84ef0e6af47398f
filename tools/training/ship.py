"""Make the model folder that ships in the package from trained weights.

python -m tools.training.ship INIT RUN/weights.pt medmllm_plugin/models/weights --version 0.1.0
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from medmllm_plugin.models.folder import CARD
from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from medmllm_plugin.phantoms.chest import FINDINGS, NAME, SITES
from tools.training.examples import PLAN

KEPT = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def card(version: str) -> dict[str, object]:
    """The reading card: what the engine must know of this model."""
    return {
        "name": "embedded",
        "version": version,
        "findings": list(FINDINGS),
        "sites": list(SITES),
        "tasks": ["report"],
        "terse": True,
        "plan": PLAN,
        "pictures": PLAN["count"],
        "boxes": True,
        "box_limit": PLAN["size"],
        "domain": "synthetic chest CT phantoms made by MedMLLM, and nothing else; "
        "it can't read a patient's images",
        "phantoms": [NAME],
    }


def main() -> None:
    """Write bfloat16 weights, tokenizer, processor and card; nothing of the training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("init", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--version", required=True)
    options = parser.parse_args()
    ensure_torchvision()
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(options.init, dtype=torch.float32)
    model.load_state_dict(torch.load(options.weights, map_location="cpu")["model"])
    options.out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(options.out)
    for name in KEPT:
        if not (options.out / name).exists():
            shutil.copy(options.init / name, options.out / name)
    (options.out / CARD).write_text(json.dumps(card(options.version), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
