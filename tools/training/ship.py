"""Make the model folder that ships in the package from a training's checkpoint.

python -m tools.training.ship INIT RUN/checkpoint.pt OUT --version 0.2.0 --kinds ct-chest --guard G.npz
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from medmllm_plugin.guard import Guard
from medmllm_plugin.models.card import CARD
from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from medmllm_plugin.phantoms.study import KINDS
from tools.training.lessons import LESSONS, shares

KEPT = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)

GUARD = "guard.npz"


def card(
    version: str,
    kinds: tuple[str, ...],
    *,
    guard: bool = False,
    measured: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, object]:
    """The reading card: what the engine must know of a model taught these kinds."""
    lessons = [LESSONS[kind] for kind in kinds]
    words = " and ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)
    return {
        "name": "embedded",
        "version": version,
        "findings": list(dict.fromkeys(key for kind in kinds for key in KINDS[kind].findings)),
        "sites": list(dict.fromkeys(key for kind in kinds for key in KINDS[kind].sites)),
        "tasks": ["report", "question"],
        "terse": True,
        "plan": dict(lessons[0].plan),
        "plans": [
            {"for": [lesson.kind, *lesson.modalities], "plan": dict(lesson.plan)} for lesson in lessons
        ],
        "pictures": max(lesson.count for lesson in lessons),
        "boxes": True,
        "box_limit": max(lesson.side for lesson in lessons),
        "domain": f"synthetic phantoms of the kind {words} made by MedMLLM, and nothing else; "
        "it can't read a patient's images",
        "phantoms": list(kinds),
        **({"measured": measured} if measured else {}),
        **({"guard": GUARD} if guard else {}),
    }


def ship(
    init: Path,
    checkpoint: Path,
    out: Path,
    *,
    version: str,
    kinds: tuple[str, ...],
    guard: Path | None = None,
    measured: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write bfloat16 weights, tokenizer, processor, card and guard; nothing of the training.

    Raises:
        ValueError: If the guard is one of other kinds.
    """
    if guard is not None and set(Guard.load(guard).kinds) != set(kinds):
        raise ValueError(
            f"{guard}: found a guard of {Guard.load(guard).kinds}, expected {kinds}; fit another"
        )
    ensure_torchvision()
    from transformers import Qwen2_5_VLForConditionalGeneration

    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(init, dtype=torch.float32)
    model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["model"])
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    for name in KEPT:
        if not (out / name).exists():
            shutil.copy(init / name, out / name)
    if guard is not None:
        shutil.copy(guard, out / GUARD)
    content = card(version, kinds, guard=guard is not None, measured=measured)
    (out / CARD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Ship by the arguments of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("init", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--version", required=True)
    parser.add_argument("--kinds", default="ct-chest", help="kinds that the card names, joined by commas")
    parser.add_argument("--guard", type=Path, help="file of tools.training.fit_guard, of the same kinds")
    parser.add_argument("--measured", type=Path, nargs="*", default=[], help="files of evaluate --json")
    options = parser.parse_args()
    figures = [json.loads(path.read_text(encoding="utf-8")) for path in options.measured]
    ship(
        options.init,
        options.checkpoint,
        options.out,
        version=options.version,
        kinds=tuple(shares(options.kinds)),
        guard=options.guard,
        measured={one["kind"]: one["measured"] for one in figures},
    )


if __name__ == "__main__":
    main()
