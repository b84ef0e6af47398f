"""The benchmarks of this package, a small file each, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from medmllm_plugin.errors import MedMLLMError, SettingsError
from medmllm_plugin.evaluation.benchmark import Benchmark

GROUP = "medmllm.benchmarks"

SAMPLES = Path(str(files("medmllm_plugin.evaluation").joinpath("samples")))
"""Five synthetic items for each, in its published format; a folder that is no benchmark of anything."""


@cache
def ours() -> Mapping[str, Benchmark]:
    """The benchmarks of this package by name, in the order to list them."""
    from medmllm_plugin.evaluation.benchmarks import (
        chexpert_plus,
        health_bench,
        iu_xray,
        medbullets,
        medframe_qa,
        medmcqa,
        medqa,
        medxpert_qa,
        mimic_cxr,
        mmlu_medical,
        mmmu_med,
        omnimed_vqa,
        path_vqa,
        phantoms,
        pmc_vqa,
        pubmed_qa,
        rad_bench,
        rad_restruct,
        slake,
        super_gpqa,
        vqa_rad,
    )

    modules = (
        *(vqa_rad, slake, path_vqa, pmc_vqa, omnimed_vqa, mmmu_med, medxpert_qa, medframe_qa),
        *(medqa, medmcqa, pubmed_qa, mmlu_medical, medbullets, super_gpqa, health_bench),
        *(iu_xray, mimic_cxr, chexpert_plus, rad_restruct, rad_bench, phantoms),
    )
    return {one.name: one for module in modules for one in module.BENCHMARKS}


def benchmark(name: str) -> Benchmark:
    """The benchmark of a name: ours, else one that an installed package brings.

    Raises:
        SettingsError: If there is none, or its package is broken.

    >>> benchmark("vqa-rad").summary
    'questions by clinicians on radiology pictures: yes or no, and open'
    """
    if name in ours():
        return ours()[name]
    others = {one.name: one for one in entry_points(group=GROUP)}
    if name not in others:
        raise SettingsError(
            f"no benchmark is named {name!r}; there are: {', '.join([*ours(), *others])}; see medmllm eval "
            "list"
        )
    try:
        loaded = others[name].load()
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise SettingsError(
            f"benchmark {name}: its package can't be loaded ({type(error).__name__}: {reason}); install it "
            "again"
        ) from error
    if not isinstance(loaded, Benchmark):
        raise SettingsError(
            f"benchmark {name}: found a {type(loaded).__name__}, expected a Benchmark of "
            "medmllm_plugin.evaluation.benchmark; tell the author of that package"
        )
    return loaded


def all_benchmarks() -> list[Benchmark]:
    """All of them, ours first; one whose package is broken is left out."""
    found = list(ours().values())
    for name in sorted({one.name for one in entry_points(group=GROUP)} - ours().keys()):
        try:
            found.append(benchmark(name))
        except MedMLLMError:
            continue
    return found


def sample(one: Benchmark) -> Path:
    """The folder of five synthetic items in the format of a benchmark of ours."""
    return SAMPLES / (one.sample or one.name)
