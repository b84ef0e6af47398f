"""How long RadFM's vision half takes, at its full size with random weights: `python -m benchmarks.radfm`.

Beside our way, sdpa in float32, stand the same in bfloat16 and attention written out as its formula, which is
how such code is often published. The language half is not timed: it is transformers' or vLLM's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import click
import torch

from medmllm_plugin.models.radfm import architecture
from medmllm_plugin.models.radfm.architecture import FrontEnd
from medmllm_plugin.models.radfm.sizes import VisionSizes

WAYS: dict[str, tuple[torch.dtype, bool]] = {
    "sdpa, float32": (torch.float32, True),
    "sdpa, bfloat16": (torch.bfloat16, True),
    "formula, float32": (torch.float32, False),
}


def main() -> None:
    """Print the table."""
    torch.manual_seed(0)
    front = FrontEnd(VisionSizes(), vocabulary=8, width=5120).eval()
    for weight in front.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if where.type == "cuda" else f"{torch.get_num_threads()} threads"
    load = os.getloadavg()[0]
    click.echo(f"{where.type}, {name}, load {load:.1f}; seconds, best and median of 3")
    for side, depth in ((256, 16), (256, 64), (512, 4), (512, 64)):
        for way, (kind, fused) in WAYS.items():
            if (side, depth) == (512, 64) and way != "sdpa, float32":
                continue
            seconds = list(timed(front.to(where, kind), side, depth, kind, fused=fused))
            click.echo(f"{side} x {side} x {depth:<4}{way:<20}{min(seconds):>8.2f}{median(seconds):>8.2f}")


def timed(front: FrontEnd, side: int, depth: int, kind: torch.dtype, *, fused: bool) -> Iterator[float]:
    """Seconds of each round, after one that doesn't count."""
    where = front.fc.weight.device
    volume = torch.rand((1, 3, side, side, depth), generator=torch.Generator().manual_seed(1)).to(where)
    with torch.inference_mode(), attention(None if fused else by_formula):
        for number in range(4 if depth * side**2 < 1 << 24 else 2):
            started = time.perf_counter()
            front.encode(volume)
            if where.type == "cuda":
                torch.cuda.synchronize()
            if number:
                yield time.perf_counter() - started


@contextmanager
def attention(other: Callable[..., torch.Tensor] | None) -> Iterator[None]:
    """Have another attention in the place of ours."""
    usual = architecture.scaled_dot_product_attention
    architecture.scaled_dot_product_attention = other or usual  # type: ignore[assignment]
    try:
        yield
    finally:
        architecture.scaled_dot_product_attention = usual


def by_formula(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention with all its chances in memory."""
    chances = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1)
    return chances @ value


if __name__ == "__main__":
    main()
