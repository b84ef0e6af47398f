"""Scanners: the planes of an acquisition, and the blur and noise it puts on them."""

from __future__ import annotations

import numpy as np

from medmllm_plugin.phantoms.anatomy import Finish, Scan
from medmllm_plugin.phantoms.sections import Values, Vector
from medmllm_plugin.phantoms.texture import grain

PATIENT_POSITIONS = {
    "HFS": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "FFS": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "HFP": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "FFP": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
}
"""Directions of rows and columns (LPS) by Patient Position: the couch is at the bottom of the picture."""


def blur(values: Values) -> Values:
    """The point spread of a scanner: 1-2-1 along rows and columns."""
    padded = np.pad(values, 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16, np.float32)


def softened(values: Values) -> Values:
    """What `blur` gives, but for the outermost pixels, which stay; and quicker."""
    soft = values.copy()
    soft[1:-1] *= 2
    soft[1:-1] += values[:-2]
    soft[1:-1] += values[2:]
    soft[1:-1] *= np.float32(0.25)
    out = soft.copy()
    inner = out[:, 1:-1]
    inner *= 2
    inner += soft[:, :-2]
    inner += soft[:, 2:]
    inner *= np.float32(0.25)
    return out


def ct_finish(noise: float, *, smooth: bool) -> Finish:
    """Whole Hounsfield units of 12 bits, with correlated noise.

    Args:
        noise: Standard deviation, HU.
        smooth: Whether the kernel blurs (soft tissue) or not (bone, lung).
    """

    def finish(clean: Values, rng: np.random.Generator) -> Values:
        values = grain(rng, (clean.shape[0], clean.shape[1]))
        values *= np.float32(noise)
        values += softened(clean) if smooth else clean
        np.rint(values, out=values)
        return np.clip(values, -1024, 3071, out=values)

    return finish


def mr_finish(noise: float, *, bias: tuple[float, float], gain: float) -> Finish:
    """Signal of 12 bits: a coil's shading, and noise of a magnitude image (Rice), never below 0.

    Args:
        noise: Standard deviation, in units of the clean signal.
        bias: How much the coil's sensitivity rises from the first column to the last, and row.
        gain: Stored units for a clean signal of 1.
    """

    def finish(clean: Values, rng: np.random.Generator) -> Values:
        rows, columns = clean.shape
        across = np.linspace(-bias[0], bias[0], columns, dtype=np.float32)
        down = np.linspace(-bias[1], bias[1], rows, dtype=np.float32)
        signal = softened(clean)
        signal *= (1 + across)[None, :] + down[:, None]
        real, other = (grain(rng, (rows, columns), ramp=False) for _ in range(2))
        real *= np.float32(noise)
        other *= np.float32(noise)
        real += signal
        grey = np.hypot(real, other)
        grey *= np.float32(gain)
        np.rint(grey, out=grey)
        return np.clip(grey, 0, 4095, out=grey)

    return finish


def axial_scan(
    rng: np.random.Generator,
    *,
    slices: int,
    matrix: int,
    field_of_view: float,
    middle: tuple[float, float],
    span: tuple[float, float],
    window: tuple[float, float],
    finish: Finish,
    body_part: str,
    kvp: int,
    prone: float = 0.0,
    tilt: float = 0.0,
) -> Scan:
    """An axial CT.

    Args:
        rng: Draws the position, the numbering, the thickness and where the table stands.
        slices: How many.
        matrix: Rows and columns.
        field_of_view: Width of the image, mm.
        middle: x and y of the image's centre at the middle slice, mm.
        span: z of the lowest and the highest slice, mm.
        window: Center and width for the header.
        finish: Blur and noise.
        body_part: Body Part Examined.
        kvp: Tube voltage, kV.
        prone: Share of studies with the patient prone.
        tilt: Gantry tilt, degrees about x; the table still moves along z.
    """
    position = str(rng.choice(["HFP", "FFP"] if rng.random() < prone else ["HFS", "HFS", "FFS"]))
    across, down = (np.array(way) for way in PATIENT_POSITIONS[position])
    c, s = round(float(np.cos(np.radians(tilt))), 8), round(float(np.sin(np.radians(tilt))), 8)
    if tilt:
        down = np.array([0.0, c * down[1], s * down[1]])
    pixel = round(field_of_view / matrix, 4)
    step = round((span[1] - span[0]) / (slices - 1), 2)
    first = (span[0] + span[1] - step * (slices - 1)) / 2
    half = pixel * (matrix - 1) / 2
    origin = np.array([middle[0], middle[1], first]) - half * (across + down)
    header = {"KVP": str(kvp)}
    if tilt:
        header["GantryDetectorTilt"] = f"{tilt:.1f}"
    return Scan(
        modality="CT",
        slices=slices,
        shape=(matrix, matrix),
        spacing=(pixel, pixel),
        origin=np.round(origin, 3),
        across=across,
        down=down,
        step=np.array([0.0, 0.0, step]),
        thickness=round(float(step * c * rng.choice([1.0, 1.0, 1.25, 0.8])), 2),
        shift=table(rng),
        window=window,
        finish=finish,
        body_part=body_part,
        position=position,
        downwards=bool(rng.random() < 0.5),
        header=header,
    )


def table(rng: np.random.Generator) -> tuple[float, float, float]:
    """Where a table stands, LPS mm."""
    return 0.0, round(float(rng.uniform(-150, 20)), 1), round(float(rng.uniform(-900, 200)), 1)


def turned(way: Vector) -> Vector:
    """A direction as a header keeps it: eight decimals."""
    return np.asarray(np.round(way / np.linalg.norm(way), 8), np.float64)
