"""A guard in front of a model: whether pictures look like those the model was made for.

A guard is fitted to pictures of each kind of study that a model knows, and to nothing else, so it needs
no examples of what it keeps out. It is a file beside the weights that the model's card names (`guard`), and
needs numpy only. `outside` is where it meets the marks of a DICOM header.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.sliceset import SliceSet
from medmllm_plugin.source import FileImage

Pictures = Sequence[NDArray[np.uint8]]
"""Pictures of one study, each of shape (rows, columns, 3)."""

Statistics = NDArray[np.float64]
"""Shape (`STATISTICS`,)."""

LEVELS = 8
"""Grey levels are counted in so many equal spans, the lowest and highest level also alone."""
CELLS = 4
"""The layout is taken in so many cells across and down."""
PARTS = 3
"""A stack is looked at in so many parts, first to last."""
SCALES = 3
"""Texture is measured at the picture's own size and at half and a quarter of it."""
MOMENTS = (0.5, 1.0, 2.0, 4.0)
"""Powers whose means describe how strong texture is: high ones feel its edges, low ones its noise."""

STATISTICS = 3 + 3 * (LEVELS + 2 + PARTS * CELLS**2 + 2 * SCALES * len(MOMENTS) + 2 * PARTS)

SHAPE = slice(3, 3 + 3 * PARTS)
"""Which of them tell the shape. They have a limit of their own: among so many others they would be lost."""

SMALLEST = 4 * 2 ** (SCALES - 1)
"""Fewest rows or columns of a picture whose texture can be measured."""

REST = 0.1
"""Variance that every direction is given at least, where that of the average statistic is 1."""
SPREAD = 0.03
"""Least spread of a statistic: what is nearly always alike, as a corner of air, may differ now and then."""
DIRECTIONS = 64
"""Most principal directions that a kind keeps."""
MARGIN, SHAPE_MARGIN = 1.5, 2.2
"""A limit lies so many times beyond the distance that 99.5 % of unseen studies of the kind keep below."""

FORMAT = "medmllm-guard/2"


def statistics(pictures: Pictures) -> Statistics:
    """What a guard looks at: number and size, shades, layout, shape, texture, change between pictures.

    Raises:
        ValueError: If there is no picture, or one is too small.
    """
    if not pictures or any(min(one.shape[:2]) < SMALLEST for one in pictures):
        raise ValueError(f"a guard needs pictures of at least {SMALLEST} px")
    # channel by channel, so that sums run along memory
    values = [np.moveaxis(one, -1, 0).astype(np.float32, order="C") / np.float32(255) for one in pictures]
    shades = np.sqrt(np.mean([_shades(one) for one in pictures], axis=0))
    layout = np.stack([_layout(one) for one in values])
    shape = np.stack([_shape(one) for one in values])
    texture = np.stack([_texture(one) for one in values])
    change = [np.zeros(3)] if len(values) == 1 else [_change(*pair) for pair in pairwise(values)]
    return np.concatenate(
        [
            np.log([len(pictures), *np.mean([one.shape[:2] for one in pictures], axis=0)]),
            _by_parts(shape),
            shades,
            _by_parts(layout),
            texture.mean(axis=0),
            texture.std(axis=0),
            _by_parts(np.log(np.stack(change) + 0.004)),
        ]
    )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Normal:
    """How statistics are spread, as a normal distribution, and how far is too far."""

    mean: Statistics
    scale: Statistics
    """Standard deviation of each statistic."""
    directions: NDArray[np.float64]
    """Shape (directions, statistics): orthonormal, of statistics in units of `scale`."""
    variances: NDArray[np.float64]
    """Along each direction."""
    limit: float
    """The distance from which on a study is none of these."""

    @classmethod
    def fit(cls, fitted: NDArray[np.float64], unseen: NDArray[np.float64], *, margin: float) -> Normal:
        """The distribution of statistics; arguments as of `Likeness.fit`."""
        mean = fitted.mean(axis=0)
        scale = np.hypot(fitted.std(axis=0), SPREAD)
        _, singular, directions = np.linalg.svd((fitted - mean) / scale, full_matrices=False)
        variances = singular**2 / len(fitted)
        kept = min(DIRECTIONS, int(np.count_nonzero(variances > REST / 10)))
        without = cls(
            mean=mean, scale=scale, directions=directions[:kept], variances=variances[:kept], limit=np.inf
        )
        usual = float(np.quantile([without.distance(one) for one in unseen], 0.995))
        return replace(without, limit=margin * usual)

    def distance(self, found: Statistics) -> float:
        """How far statistics lie from the mean, in standard deviations (Mahalanobis)."""
        z = (found - self.mean) / self.scale
        along = self.directions @ z
        beside = max(0.0, float(z @ z - along @ along))
        return float(np.sqrt(np.sum(along**2 / (self.variances + REST)) + beside / REST))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Likeness:
    """What studies of a kind look like."""

    kind: str
    whole: Normal
    """Of all statistics."""
    shape: Normal
    """Of those of `SHAPE`."""

    @classmethod
    def fit(cls, kind: str, fitted: NDArray[np.float64], unseen: NDArray[np.float64]) -> Likeness:
        """The likeness of a kind.

        Args:
            kind: What to call it.
            fitted: Shape (studies, `STATISTICS`): statistics it is fitted to, some hundred studies or more.
            unseen: Statistics of other studies of the kind, which set the limits.
        """
        return cls(
            kind=kind,
            whole=Normal.fit(fitted, unseen, margin=MARGIN),
            shape=Normal.fit(fitted[:, SHAPE], unseen[:, SHAPE], margin=SHAPE_MARGIN),
        )

    def ratio(self, found: Statistics) -> float:
        """How far statistics lie from the kind, as a part of the limit that they come nearest to."""
        return max(
            self.whole.distance(found) / self.whole.limit,
            self.shape.distance(found[SHAPE]) / self.shape.limit,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a guard says of a study."""

    kind: str
    """The kind it is most like."""
    ratio: float
    """How far it lies from that kind, as a part of the limit: above 1 it is none of them."""

    @property
    def inside(self) -> bool:
        """Whether it is one of the kinds."""
        return self.ratio <= 1


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Guard:
    """What a model's kinds of studies look like."""

    likenesses: tuple[Likeness, ...]
    """At least one."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds it knows."""
        return tuple(one.kind for one in self.likenesses)

    def look(self, pictures: Pictures, *, kind: str | None = None) -> Look:
        """How like its kinds a study is.

        Args:
            pictures: Those that the model is shown; none, or one too small to be looked at, is like nothing.
            kind: The only kind that counts; None for any.
        """
        if not pictures or any(min(one.shape[:2]) < SMALLEST for one in pictures):
            return Look(kind=self.likenesses[0].kind, ratio=np.inf)
        found = statistics(pictures)
        return min(
            (
                Look(kind=one.kind, ratio=one.ratio(found))
                for one in self.likenesses
                if kind in (None, one.kind)
            ),
            key=lambda look: look.ratio,
        )

    def save(self, path: Path) -> None:
        """Write it as a file of a hundred kilobytes or less for each kind."""
        content: dict[str, NDArray[np.float32] | NDArray[np.str_]] = {
            "format": np.array(FORMAT),
            "kinds": np.array(self.kinds),
        }
        for number, one in enumerate(self.likenesses):
            for part in _PARTS:
                for name in _ARRAYS:
                    array = getattr(getattr(one, part), name)
                    content[f"{number}.{part}.{name}"] = np.asarray(array, np.float32)
        np.savez_compressed(path, allow_pickle=False, **content)

    @classmethod
    def load(cls, path: Path) -> Guard:
        """The guard of a file that `save` wrote.

        Raises:
            SettingsError: If it isn't there or isn't one.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                return cls(likenesses=_likenesses(content))
        except FileNotFoundError as error:
            raise SettingsError(
                f"{path}: found no such file, expected the guard that the card names; copy the model again"
            ) from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:160]
            raise SettingsError(
                f"{path}: found no guard of the format {FORMAT} ({reason}); copy the model again"
            ) from error


def outside(slices: SliceSet, *, model: str, kinds: Sequence[str] | None, guard: Guard | None) -> str | None:
    """Why a study is outside a model's domain, in a sentence; None if it is inside.

    A DICOM study must have the mark of one of the `kinds` of phantoms in its header, whatever it looks like.
    A file without a header is judged by its pictures alone, and is outside if there is no guard. Where there
    is one, the pictures of both must look like their kind.

    Args:
        slices: What the model is shown.
        model: Its name.
        kinds: The only kinds of phantoms it was made for; None if its domain isn't phantoms.
        guard: Its guard, if it has one.
    """
    phantom = slices.study.phantom
    # All slices of a set are of one kind of file.
    without_header = any(isinstance(image, FileImage) for one in slices.slices[:1] for image in one.images)
    if kinds is not None and phantom not in kinds and (guard is None or not without_header):
        images = f"{slices.study.modality} images of another origin"
        found = f"a phantom of the kind {phantom}" if phantom else images
        known = f"synthetic phantoms of the kind {', '.join(kinds)}"
        return f"{model} was trained on {known} only; these are {found}."
    if guard is None:
        return None
    pictures = [one.pixels for one in slices.slices]
    look = guard.look(pictures, kind=phantom if phantom in guard.kinds else None)
    if look.inside:
        return None
    if phantom in guard.kinds:
        return (
            f"{model} knows phantoms of the kind {phantom} as its own slice plan shows them; these pictures "
            f"look otherwise ({look.ratio:.1f} times the distance allowed): read the study without a plan of "
            "your own."
        )
    known = "synthetic phantoms of the kind " if kinds is not None else "studies of the kind "
    nearest = f"nearest to {look.kind}, {look.ratio:.1f} times the distance allowed"
    return f"{model} was made for {known}{', '.join(guard.kinds)}; these pictures look like none ({nearest})."


_ARRAYS = ("mean", "scale", "directions", "variances", "limit")
_PARTS = {"whole": STATISTICS, "shape": SHAPE.stop - SHAPE.start}
"""Distributions of a likeness, and how many statistics each is of."""


def _likenesses(content: np.lib.npyio.NpzFile) -> tuple[Likeness, ...]:
    if str(content["format"]) != FORMAT:
        raise ValueError(f"its format is {str(content['format'])[:40]!r}")
    made = []
    for number, kind in enumerate(content["kinds"].tolist()):
        parts = {part: _normal(content, f"{number}.{part}", kind, size) for part, size in _PARTS.items()}
        made.append(Likeness(kind=kind, whole=parts["whole"], shape=parts["shape"]))
    if not made:
        raise ValueError("it knows no kind")
    return tuple(made)


def _normal(content: np.lib.npyio.NpzFile, part: str, kind: str, size: int) -> Normal:
    arrays = {name: np.asarray(content[f"{part}.{name}"], np.float64) for name in _ARRAYS}
    count = len(arrays["variances"])
    shapes = [(size,), (size,), (count, size), (count,), ()]
    if [array.shape for array in arrays.values()] != shapes or not all(
        np.isfinite(array).all() for array in arrays.values()
    ):
        raise ValueError(f"its arrays of the kind {kind!r} don't fit")
    return Normal(
        mean=arrays["mean"],
        scale=arrays["scale"],
        directions=arrays["directions"],
        variances=arrays["variances"],
        limit=float(arrays["limit"]),
    )


def _shades(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Shares of the spans of grey levels, and of level 0 and 255, for each channel."""
    shares = []
    for channel in range(3):
        counts = np.bincount(picture[..., channel].ravel(), minlength=256)
        shares += [*counts.reshape(LEVELS, -1).sum(axis=1), counts[0], counts[255]]
    return np.array(shares) / picture[..., 0].size


def _layout(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of each cell and channel; of values (channels, rows, columns)."""
    shape = values.shape[1:]
    rows, columns = (np.linspace(0, n, CELLS, endpoint=False).astype(int) for n in shape)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2)
    ones = np.outer(*(np.diff([*edges, n]) for edges, n in zip((rows, columns), shape, strict=True)))
    return np.asarray(np.moveaxis(sums / ones, 0, -1), np.float64).ravel()


def _shape(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much further what is bright spreads down than across, as a logarithm; each channel's.

    It tells which way a body lies that is longer than wide. Of values (channels, rows, columns).
    """
    down, across = (_spread(values.sum(axis=axis, dtype=np.float64)) for axis in (2, 1))
    return np.asarray(np.log(down / across))


def _spread(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation of the place, in parts of the side, by weights (channels, places)."""
    places = (np.arange(weights.shape[1]) + 0.5) / weights.shape[1]
    total = weights.sum(axis=1) + 1e-6
    middle = weights @ places / total
    return np.asarray(np.sqrt(np.maximum(weights @ places**2 / total - middle**2, 1e-6)))


def _texture(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logarithms of the power means of what a pixel differs by from its four neighbours, at each scale.

    Of values (channels, rows, columns).
    """
    found = []
    for _ in range(SCALES):
        around = values[:, :-2, 1:-1] + values[:, 2:, 1:-1] + values[:, 1:-1, :-2] + values[:, 1:-1, 2:]
        differs = np.abs(values[:, 1:-1, 1:-1] - around / 4).reshape(3, -1)
        squares = differs * differs
        powers = np.sqrt(differs), differs, squares, squares * squares
        found += [one.mean(axis=1) ** (1 / power) for power, one in zip(MOMENTS, powers, strict=True)]
        rows, columns = (n // 2 * 2 for n in values.shape[1:])
        left, right = values[:, :rows, :columns:2], values[:, :rows, 1:columns:2]
        values = np.float32(0.25) * (left[:, ::2] + left[:, 1::2] + right[:, ::2] + right[:, 1::2])
    return np.log(np.concatenate(found).astype(np.float64) + 1e-3)


def _change(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean difference of two pictures for each channel; 1 if they differ in shape."""
    if one.shape != other.shape:
        return np.ones(3)
    return np.asarray(np.abs(one - other).reshape(3, -1).mean(axis=1), np.float64)


def _by_parts(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over each part of a stack; a stack of fewer than `PARTS` is its own every part."""
    if len(rows) < PARTS:
        return np.tile(rows.mean(axis=0), PARTS)
    return np.concatenate([part.mean(axis=0) for part in np.array_split(rows, PARTS)])
