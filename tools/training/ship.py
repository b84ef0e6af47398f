r"""Make the folder that ships in the package from checkpoints of trainings, one for each kind of phantom.

    python -m tools.training.ship INIT OUT ct-chest=RUN/checkpoint.pt ct-chest/closer=NEAR/checkpoint.pt \
        xr-chest=OTHER/checkpoint.pt --version 0.2.0 --guard GUARD.npz --measured CHEST.json FILM.json

OUT/KIND is a model's folder by itself, and OUT all of them as one, see `models.specialists`; OUT/KIND/closer
is the one for close looks, see `medmllm_plugin.closer`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from medmllm_plugin.guard import Guard
from medmllm_plugin.models.card import CARD
from medmllm_plugin.models.torchvision_shim import ensure as ensure_torchvision
from medmllm_plugin.phantoms.study import KINDS
from tools.training.lessons import CLOSER, LESSONS

KEPT = (
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)

NAME, GUARD, CLOSER_FOLDER = "embedded", "guard.npz", "closer"


def card(
    version: str,
    kind: str,
    *,
    guard: bool = False,
    closer: bool = False,
    answers: bool = False,
    measured: Mapping[str, float] | None = None,
) -> dict[str, object]:
    """The reading card: what the engine must know of a model taught a kind."""
    lesson = LESSONS[kind]
    near = {"folder": CLOSER_FOLDER, "findings": list(lesson.closer)}
    return {
        "name": NAME,
        "version": version,
        "findings": list(KINDS[kind].findings),
        "sites": list(KINDS[kind].sites),
        "tasks": ["report", "question"] if answers else ["report"],
        "terse": True,
        "plan": dict(lesson.plan),
        "plans": [{"for": [kind, *lesson.modalities], "plan": dict(lesson.plan)}],
        "pictures": lesson.count,
        "boxes": True,
        "box_limit": lesson.side,
        "domain": domain((kind,)),
        "phantoms": [kind],
        **({"measured": {kind: measured}} if measured else {}),
        **({"guard": GUARD} if guard else {}),
        **({"closer": near} if closer else {}),
    }


def closer_card(version: str, kind: str) -> dict[str, object]:
    """The card of a model taught close looks at findings of a kind."""
    whole = card(version, kind)
    kept = ("name", "version", "findings", "sites", "tasks", "terse", "boxes", "box_limit", "domain")
    return {**{key: whole[key] for key in kept}, "pictures": CLOSER}


def domain(kinds: Sequence[str]) -> str:
    """What a model of some kinds reads, in words.

    >>> domain(["ct-chest", "ct-head", "xr-chest"]).partition(" made")[0]
    'synthetic phantoms of the kind ct-chest, ct-head and xr-chest'
    """
    words = " and ".join([", ".join(kinds[:-1]), kinds[-1]] if len(kinds) > 1 else kinds)
    return (
        f"synthetic phantoms of the kind {words} made by MedMLLM, and nothing else; "
        "it can't read a patient's images"
    )


def ship(
    init: Path,
    out: Path,
    checkpoints: Mapping[str, Path],
    *,
    version: str,
    guard: Path | None = None,
    answers: Collection[str] = (),
    measured: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write bfloat16 weights, tokenizer, processor, cards and guards; nothing of the training.

    Kinds that the folder holds already stay as they are. What was calibrated is forgotten: it was another's.

    Args:
        init: The untrained model's folder.
        out: Where.
        checkpoints: Of each kind, and of close looks at one as `KIND/closer`.
        version: Of these, and of all.
        guard: Of these kinds. Without one each kind's folder can be opened, but not all as one.
        answers: Kinds that answer questions well enough to be asked any, see `tools.training.answers`.
        measured: By kind, what it reached.

    Raises:
        ValueError: If the guard lacks a kind.
    """
    likenesses = {one.kind: one for one in Guard.load(guard).likenesses} if guard else {}
    kinds = [name for name in checkpoints if name in LESSONS]
    if guard is not None and not set(kinds) <= likenesses.keys():
        found, expected = ", ".join(likenesses), ", ".join(kinds)
        raise ValueError(f"{guard}: found a guard of {found}, expected {expected}; fit another")
    for kind in kinds:
        _ship_one(init, out / kind, checkpoints[kind])
        near = checkpoints.get(f"{kind}/{CLOSER_FOLDER}")
        if near is not None:
            _ship_one(init, out / kind / CLOSER_FOLDER, near)
            _write_card(out / kind / CLOSER_FOLDER, closer_card(version, kind))
        if guard is not None:
            Guard(likenesses=(likenesses[kind],)).save(out / kind / GUARD)
        figures = (measured or {}).get(kind)
        about = card(
            version,
            kind,
            guard=guard is not None,
            closer=near is not None,
            answers=kind in answers,
            measured=figures,
        )
        _write_card(out / kind, about)
    there = sorted(one.parent.name for one in out.glob(f"*/{CARD}"))
    _write_card(out, {"name": NAME, "version": version, "domain": domain(there), "specialists": there})


def _ship_one(init: Path, out: Path, checkpoint: Path) -> None:
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


def _write_card(folder: Path, content: Mapping[str, object]) -> None:
    (folder / CARD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _part(text: str) -> tuple[str, Path]:
    """A kind, or its close looks, and the checkpoint, from `KIND=FILE`."""
    name, _, path = text.partition("=")
    kind, slash, inside = name.partition("/")
    if kind not in LESSONS or (slash and inside != CLOSER_FOLDER) or not Path(path).is_file():
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected KIND=FILE or KIND/{CLOSER_FOLDER}=FILE with a kind of: "
            f"{', '.join(LESSONS)}"
        )
    return name, Path(path)


def main() -> None:
    """Ship by the arguments of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("init", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", type=_part, nargs="+", metavar="KIND=CHECKPOINT")
    parser.add_argument("--version", required=True)
    parser.add_argument("--guard", type=Path, help="file of tools.training.fit_guard")
    parser.add_argument("--answers", choices=list(LESSONS), nargs="*", default=[], help="kinds to question")
    parser.add_argument("--measured", type=Path, nargs="*", default=[], help="files of evaluate --json")
    options = parser.parse_args()
    figures = [json.loads(path.read_text(encoding="utf-8")) for path in options.measured]
    ship(
        options.init,
        options.out,
        dict(options.parts),
        version=options.version,
        guard=options.guard,
        answers=options.answers,
        measured={one["kind"]: one["measured"] for one in figures},
    )


if __name__ == "__main__":
    main()
