"""Tests of `medmllm_plugin.guard`: it knows its own kinds, lets nothing else in, and headers come first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.geometry import plane_matrix
from medmllm_plugin.guard import STATISTICS, Guard, Likeness, outside, statistics
from medmllm_plugin.sliceset import Slice, SliceSet
from medmllm_plugin.source import DicomImage, FileImage, ImageRef
from medmllm_plugin.volume import Study

FILE = FileImage(file="a.nii.gz", index=0)
INSTANCE = DicomImage(sop_class_uid="1.2", sop_instance_uid="1.3", series_instance_uid="1.4")


def discs(seed: int) -> list[NDArray[np.uint8]]:
    """A study of a kind made up for these tests: grainy discs of varied size."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:56j, -1:1:56j]
    pictures = []
    for turn in range(4):
        disc = np.hypot(rows, columns) < 0.5 + 0.1 * turn + rng.uniform(-0.05, 0.05)
        grey = 60 + 120 * disc + rng.normal(0, 8, disc.shape)
        pictures.append(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1))
    return pictures


@pytest.fixture(scope="module")
def guard() -> Guard:
    found = np.stack([statistics(discs(seed)) for seed in range(240)])
    return Guard(likenesses=(Likeness.fit("discs", found[:200], found[200:]),))


def shown(
    pictures: list[NDArray[np.uint8]], *, phantom: str | None = None, image: ImageRef = FILE
) -> SliceSet:
    matrix = plane_matrix(position=[0, 0, 0], orientation=[1, 0, 0, 0, 1, 0], spacing=(1, 1))
    slices = tuple(
        Slice(
            pixels=one,
            source=image,
            source_shape=(one.shape[0], one.shape[1]),
            to_source=np.eye(3),
            to_patient=matrix,
            window="grey",
        )
        for one in pictures
    )
    return SliceSet(slices=slices, study=Study(modality="CT", phantom=phantom), plan="all")


def test_statistics_have_their_number_and_are_finite() -> None:
    mixed = [discs(0)[0], discs(1)[0][:40]]
    for pictures in (discs(0), discs(0)[:1], [one[:, :28] for one in discs(0)], mixed):
        found = statistics(pictures)

        assert found.shape == (STATISTICS,)
        assert np.isfinite(found).all()


def test_statistics_need_pictures_that_are_large_enough() -> None:
    for pictures in ([], [np.zeros((56, 12, 3), np.uint8)]):
        with pytest.raises(ValueError, match="at least 16 px"):
            statistics(pictures)


def test_unseen_studies_of_the_kind_are_inside(guard: Guard) -> None:
    looks = [guard.look(discs(seed)) for seed in range(1000, 1100)]

    assert sum(look.inside for look in looks) >= 99
    assert {look.kind for look in looks} == {"discs"}


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda one: 255 - one,
        lambda one: np.zeros_like(one),
        lambda one: np.random.default_rng(0).integers(0, 256, one.shape, dtype=np.uint8),
        lambda one: one // 2 + 60,
        lambda one: np.kron(one[::2, ::2], np.ones((2, 2, 1), np.uint8)),
        lambda one: one * np.array([1, 1, 0], np.uint8),
        lambda one: one[:8, :8],
    ],
    ids=["inverted", "blank", "noise", "flat", "coarse", "coloured", "too small"],
)
def test_other_pictures_are_not(guard: Guard, spoilt: object) -> None:
    assert callable(spoilt)

    assert not guard.look([spoilt(one) for one in discs(5)]).inside


def ovals(seed: int, *, turned: bool = False) -> list[NDArray[np.uint8]]:
    """Grainy ovals, longer than wide; or turned by a right angle."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1:1:56j, -1:1:56j]
    long = rng.uniform(1.25, 1.35)
    pictures = []
    for part in range(4):
        size = 0.5 + 0.1 * part + rng.uniform(-0.15, 0.15)
        oval = np.hypot(rows / long + rng.uniform(-0.1, 0.1), columns * long) < size
        grey = 60 + rng.uniform(60, 140) * oval + rng.normal(0, rng.uniform(4, 16), oval.shape)
        pictures.append(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1))
    return [np.ascontiguousarray(np.rot90(one)) for one in pictures] if turned else pictures


def test_what_lies_on_its_side_is_told_by_its_shape() -> None:
    found = np.stack([statistics(ovals(seed)) for seed in range(300)])
    guard = Guard(likenesses=(Likeness.fit("ovals", found[:225], found[225:]),))
    (one,) = guard.likenesses
    by_shape = replace(one, whole=replace(one.whole, limit=np.inf))

    upright = [guard.look(ovals(seed)) for seed in range(1000, 1040)]
    turned = [statistics(ovals(seed, turned=True)) for seed in range(1000, 1040)]

    assert all(look.inside for look in upright)
    assert min(map(by_shape.ratio, turned)) > 1
    assert all(one.ratio(each) >= by_shape.ratio(each) for each in turned)


def test_nothing_shown_is_not_inside(guard: Guard) -> None:
    assert not guard.look([]).inside


def test_a_guard_is_the_same_after_a_file(guard: Guard, tmp_path: Path) -> None:
    guard.save(tmp_path / "guard.npz")

    again = Guard.load(tmp_path / "guard.npz")

    assert again.kinds == guard.kinds
    for seed in (2000, 2001):
        assert again.look(discs(seed)).ratio == pytest.approx(guard.look(discs(seed)).ratio, rel=1e-3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not one", b"{}"])
def test_a_file_that_is_no_guard_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "guard.npz").write_bytes(content)

    with pytest.raises(SettingsError, match=r"found no guard of the format medmllm-guard/2"):
        Guard.load(tmp_path / "guard.npz")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", np.array("medmllm-guard/9")),
        ("0.whole.mean", np.zeros(3)),
        ("0.shape.limit", np.array(np.nan)),
    ],
)
def test_a_guard_that_does_not_fit_is_refused(
    guard: Guard, tmp_path: Path, name: str, value: NDArray[np.float64]
) -> None:
    guard.save(tmp_path / "good.npz")
    content = dict(np.load(tmp_path / "good.npz"))
    np.savez(tmp_path / "bad.npz", **{**content, name: value})

    with pytest.raises(SettingsError, match="found no guard of the format"):
        Guard.load(tmp_path / "bad.npz")


def test_a_guard_that_is_missing_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.npz: found no such file"):
        Guard.load(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("phantom", "image", "looks_right", "reason"),
    [
        ("discs", INSTANCE, True, None),
        ("discs", INSTANCE, False, "these pictures look otherwise"),
        ("ct-head", INSTANCE, True, "these are a phantom of the kind ct-head"),
        (None, INSTANCE, True, "these are CT images of another origin"),
        (None, INSTANCE, False, "these are CT images of another origin"),
        (None, FILE, True, None),
        (None, FILE, False, "these pictures look like none"),
    ],
)
def test_a_header_without_the_mark_is_outside_and_pictures_must_fit_too(
    guard: Guard, phantom: str | None, image: ImageRef, looks_right: bool, reason: str | None
) -> None:
    pictures = discs(7) if looks_right else [255 - one for one in discs(7)]

    said = outside(shown(pictures, phantom=phantom, image=image), model="m", kinds=("discs",), guard=guard)

    assert said is None if reason is None else said is not None and reason in said


def test_without_a_guard_only_the_mark_of_a_header_is_inside() -> None:
    def said(phantom: str | None, image: ImageRef) -> str | None:
        return outside(shown(discs(1), phantom=phantom, image=image), model="m", kinds=("discs",), guard=None)

    assert said("discs", INSTANCE) is None
    assert said(None, FILE) is not None
    assert said(None, INSTANCE) is not None


def test_a_model_of_no_phantoms_may_bring_a_guard(guard: Guard) -> None:
    right, wrong = shown(discs(3), image=INSTANCE), shown([255 - one for one in discs(3)], image=INSTANCE)

    assert outside(right, model="m", kinds=None, guard=guard) is None
    assert "made for studies of the kind discs" in str(outside(wrong, model="m", kinds=None, guard=guard))
    assert outside(wrong, model="m", kinds=None, guard=None) is None
