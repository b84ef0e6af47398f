"""What a reading costs beside the model, part by part, as a share of a 7B model's work on an H100.

The parts are measured here, on one core; the model's work is computed from its sizes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.series import FULL, SMALL, uncompressed
from benchmarks.timing import Table, judged, ms
from medmllm_plugin import engine, page
from medmllm_plugin.capabilities import Capabilities
from medmllm_plugin.dicom_bridge import sr_profile
from medmllm_plugin.models import Ask, Reply, vision_part
from medmllm_plugin.models.batches import Batches
from medmllm_plugin.models.folder import open_folder
from medmllm_plugin.models.loading import load
from medmllm_plugin.models.options import TransformersOptions
from medmllm_plugin.models.prefix_memory import Memory
from medmllm_plugin.models.schema_bound import Chooser, Vocabulary
from medmllm_plugin.models.scripted import ScriptedModel
from medmllm_plugin.parsing import parse
from medmllm_plugin.prompting import prompt_for
from medmllm_plugin.reply_forms import schema_for
from medmllm_plugin.request import Request
from medmllm_plugin.tasks import task
from medmllm_plugin.transforms.patches import QWEN2_VL
from medmllm_plugin.transforms.reading import read_volume
from medmllm_plugin.transforms.slices import SlicePlan
from tests.tiny_model import tiny_folder

BAR = 0.05
"""Most of a reading that may be spent beside the model."""

WORDS, REPLY = 600, 400
"""Tokens of a prompt beside its pictures, and of a reply with some findings."""

PREFILL_FLOPS, DECODE_BYTES = 400e12, 2.0e12
"""What an H100 reaches in bfloat16: 40 % of 989 TFLOP/s while it reads, 60 % of 3.35 TB/s while it writes."""

PATCHES_OF_A_TOKEN = 4
VISION = {"layers": 32, "hidden": 1280, "mlp": 3420, "full": 4, "window": 64}
LANGUAGE = {"layers": 28, "hidden": 3584, "mlp": 18944, "kept": 512, "vocabulary": 152_064}
"""Of Qwen2.5-VL-7B, and so of Lingshu-7B: its config.json."""

REMARK = "A rounded opacity of soft-tissue density with smooth margins lies beside the hilum."


def overhead(data: Path, *, small: bool, rounds: int) -> Table:
    """Every step of a reading but the model's own, and all together as a share of the model's time."""
    parts = measured(data, small=small, rounds=rounds)
    seconds = {name: median(taken) for name, taken in parts.items()}
    total = sum(seconds.values())
    pictures, side = (4, 252) if small else (64, 504)
    reads, writes = model_seconds(pictures * (side // 28) ** 2, per_picture=(side // 14) ** 2)
    share = total / (total + reads + writes)
    lines = [(name, ms(taken), f"{taken / (total + reads + writes):.2%}") for name, taken in seconds.items()]
    lines += [
        ("all of it", ms(total), f"{share:.2%}"),
        ("the model reads the prompt (computed)", ms(reads), f"{reads / (total + reads + writes):.2%}"),
        (
            f"the model writes {REPLY} tokens (computed)",
            ms(writes),
            f"{writes / (total + reads + writes):.2%}",
        ),
    ]
    return Table(
        title=f"What a reading of {pictures} slices costs beside a 7B model",
        note=(
            f"Measured as CPU time on one core: {pictures} of a CT series as a folder, {side} px, a report "
            "of five findings. Computed: Lingshu-7B on an H100 in bfloat16, "
            f"{PREFILL_FLOPS / 1e12:.0f} TFLOP/s to read and {DECODE_BYTES / 1e12:g} TB/s to write."
        ),
        columns=("part", "CPU ms", "share"),
        lines=tuple(lines),
        bars=(
            judged(
                "beside the model, of a reading of 64 slices", 100 * share, 100 * BAR, at_most=True, unit=" %"
            ),
        ),
        figures=parts,
    )


def model_seconds(tokens: int, *, per_picture: int) -> tuple[float, float]:
    """Seconds of Lingshu-7B on an H100 to read a prompt and to write a reply.

    Args:
        tokens: Of all pictures.
        per_picture: Patches of a picture.

    >>> [round(one, 1) for one in model_seconds(20_736, per_picture=1296)]
    [1.2, 3.1]
    """
    hidden, mlp = VISION["hidden"], VISION["mlp"]
    patches = PATCHES_OF_A_TOKEN * tokens
    seeing = 2 * VISION["layers"] * (4 * hidden**2 + 3 * hidden * mlp)
    seeing += (
        4 * hidden * (VISION["full"] * per_picture + (VISION["layers"] - VISION["full"]) * VISION["window"])
    )
    merged = PATCHES_OF_A_TOKEN * hidden
    joining = 2 * merged * (merged + LANGUAGE["hidden"])
    hidden, mlp = LANGUAGE["hidden"], LANGUAGE["mlp"]
    weights = LANGUAGE["layers"] * (2 * hidden**2 + 2 * hidden * LANGUAGE["kept"] + 3 * hidden * mlp)
    length = tokens + WORDS
    reading = length * 2 * weights + 2 * LANGUAGE["layers"] * hidden * length**2
    flops = patches * seeing + tokens * joining + reading
    kept = 2 * 2 * LANGUAGE["layers"] * LANGUAGE["kept"] * length
    written = REPLY * (2 * weights + 2 * hidden * LANGUAGE["vocabulary"] + kept)
    return flops / PREFILL_FLOPS, written / DECODE_BYTES


def measured(data: Path, *, small: bool, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each round of each part, which a busy machine changes least; files are in the cache."""
    series = uncompressed(data, SMALL if small else FULL)
    count, side = (4, 252) if small else (64, 504)
    plan = SlicePlan(count=count, size=side, window="ct-soft-tissue")
    folder = series.folder("uncompressed")
    volume = read_volume([folder])
    slices = plan.apply(volume)
    pictures = [one.pixels for one in slices.slices]
    request = Request(task=task("report"), slices=slices)
    able = Capabilities(pictures=64, boxes=True, schema_bound=True)
    schema = schema_for(request, able)
    prompt = prompt_for(request, able)
    of = load(open_folder(str(tiny_folder(seed=1))), TransformersOptions(device_map="cpu"))
    batches = Batches(of, TransformersOptions(), memory=Memory(0))
    vocabulary = Vocabulary(of.processor.tokenizer, size=448, ends=of.model.generation_config.eos_token_id)
    asked = Ask(prompt=prompt, schema=schema)
    said = Reply(text=json.dumps(a_report(count)), seconds=0.0)
    model = ScriptedModel([said.text])
    report = engine.read(request, model).report
    headers = volume.headers

    return {
        "the folder: headers, order, the slices shown, windows": _timed(
            lambda: [one.pixels for one in plan.apply(read_volume([folder])).slices], rounds
        ),
        "prompt and schema": _timed(lambda: (prompt_for(request, able), schema_for(request, able)), rounds),
        "hash over the prompt": _timed(lambda: prompt.sha256, rounds),
        "tokens, positions, hashes of pictures": _timed(lambda: batches.prepare(asked), rounds),
        "pictures to patches": _timed(lambda: vision_part.grey_patches(pictures, QWEN2_VL), rounds),
        "grammar": _timed(lambda: Chooser(vocabulary, [asked]), rounds),
        "reply to findings": _timed(lambda: parse(said, request=request, schema=schema, model=model), rounds),
        "structured reports (DICOM SR)": _timed(
            lambda: sr_profile.dicom_files(report, headers, slices), rounds
        ),
        "the page, with its pictures": _timed(lambda: page.render(report, slices), rounds),
    }


def a_report(pictures: int) -> dict[str, Any]:
    """A reply with five findings on different pictures."""
    findings = [
        {
            "finding": "nodule",
            "site": "lung",
            "side": "left" if number % 2 else "right",
            "status": "present",
            "severity": None,
            "pictures": [1 + number % pictures],
            "box": {
                "picture": 1 + number % pictures,
                "bbox_2d": [40 + 10 * number, 60, 90 + 10 * number, 110],
            },
            "sentence": REMARK,
        }
        for number in range(5)
    ]
    cited = sorted({one["pictures"][0] for one in findings})
    return {"abnormal_pictures": cited, "findings": findings, "impression": ["Several nodules."]}


def _timed(run: Callable[[], object], rounds: int) -> list[float]:
    taken = []
    run()
    for _ in range(rounds):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return taken
