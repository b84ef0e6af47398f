"""Windows on a line: computed with whole numbers, the grey levels are those of the window itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmllm_plugin.transforms import compiled
from medmllm_plugin.transforms.render import render
from medmllm_plugin.transforms.stored_bits import Bits, value_table
from medmllm_plugin.transforms.straight import NONE, line_of
from medmllm_plugin.transforms.voi import Padded
from medmllm_plugin.transforms.window import PRESETS, Ramp
from medmllm_plugin.volume import Stored
from tests.routes import only

PATTERNS = np.arange(1 << 16, dtype=np.uint16)
SIGNED = Bits(16, 16, 15, signed=True)

ramps = st.builds(
    Ramp.of_window,
    st.integers(-2000, 3000),
    st.integers(1, 70000),
    exact=st.booleans(),
    inverted=st.booleans(),
)
bits = st.builds(
    lambda stored, signed: Bits(16, stored, stored - 1, signed), st.integers(8, 16), st.booleans()
)


def computed(line: np.ndarray) -> np.ndarray:
    mask, flip, base, most, slope, start, fraction = line.tolist()
    numbers = np.clip(((PATTERNS.astype(np.int64) & mask) ^ flip) - base, 0, most)
    return np.clip((numbers * slope + start) >> fraction, 0, 255).astype(np.uint8)


@given(ramp=ramps, bits=bits, intercept=st.integers(-3000, 3000))
def test_a_line_gives_the_levels_of_the_window_and_fits_its_numbers(
    ramp: Ramp, bits: Bits, intercept: int
) -> None:
    table = value_table(bits, (1.0, float(intercept)))

    line = line_of(table, ramp, ramp(table))

    assert (line == NONE).all() or np.array_equal(computed(line), ramp(table))
    _, _, base, most, slope, start, _ = line.tolist()
    assert 0 <= base < 1 << 16
    assert 0 <= most < 1 << 16
    assert -(1 << 31) <= most * slope + start < 1 << 31


@pytest.mark.parametrize("bits", [SIGNED, Bits(16, 12, 11, signed=False), Bits(16, 12, 11, signed=True)])
@pytest.mark.parametrize("name", [name for name in PRESETS if len(PRESETS[name].windows) == 1])
def test_the_windows_of_ct_are_lines(name: str, bits: Bits) -> None:
    (ramp,) = PRESETS[name].ramps
    table = value_table(bits, (1.0, -1024.0))

    assert line_of(table, ramp, ramp(table))[0] != 0


def test_what_is_no_ramp_of_values_one_apart_is_looked_up() -> None:
    ramp = Ramp.of_window(40, 400)
    table, halves = value_table(SIGNED, (1.0, 0.0)), value_table(SIGNED, (0.5, 0.0))
    padded = Padded(grey=ramp, padding=(-2000.0, -2000.0))

    assert line_of(halves, ramp, ramp(halves)) is NONE
    assert line_of(table, padded, padded(table)) is NONE
    assert line_of(table, ramp, ramp(table) // 2) is NONE


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("bits", [SIGNED, Bits(16, 12, 11, signed=False), Bits(16, 12, 11, signed=True)])
@pytest.mark.parametrize("columns", [1, 15, 16, 50])
def test_every_kernel_draws_the_levels_of_the_window(columns: int, bits: Bits, inverted: bool) -> None:
    ramp = Ramp.of_window(40, 400, inverted=inverted)
    table = value_table(bits, (1.0, -1024.0))
    assert line_of(table, ramp, ramp(table)) is not NONE
    raw = np.resize(np.random.default_rng(0).permutation(PATTERNS), (3, 1400, columns))
    stored = Stored(raw=raw, tables=(table,) * 3)

    with only("compiled"), pytest.MonkeyPatch.context() as patched:
        assert compiled.pictures is not None
        for kernels in range(1, compiled.pictures.KERNELS + 1):
            patched.setattr(compiled.pictures, "KERNELS", kernels)
            assert np.array_equal(render(stored, [[ramp]]), ramp(table)[raw]), kernels
