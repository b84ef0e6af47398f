"""What a reader goes through in a study, step by step, by modality and part of the body.

The table is `prompt_files/checklists.toml`: keys of `codes.toml` and nothing else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from medmllm_plugin import codes
from medmllm_plugin.errors import SettingsError

FILE = Path(__file__).with_name("prompt_files") / "checklists.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Sites that are looked at together, and what for."""

    region: str
    """The part of the body, such as `chest`."""
    site: str
    """The key of that part among the sites of `codes.toml`."""
    modalities: tuple[str, ...]
    """Values of Modality (0008,0060) that show it."""
    sites: tuple[str, ...]
    """Keys of sites, the largest or first to be looked at first."""
    findings: tuple[str, ...]
    """Keys of findings that can sit there."""

    @property
    def name(self) -> str:
        """What the step is called: its first site, such as `liver`."""
        return codes.site(self.sites[0]).words


def regions(modality: str) -> tuple[str, ...]:
    """The parts of the body that a modality shows, in the order they are gone through.

    >>> regions("CT")
    ('head', 'neck', 'chest', 'abdomen', 'pelvis', 'spine')
    """
    return tuple(dict.fromkeys(step.region for step in _all_steps() if modality in step.modalities))


def steps_for(
    modality: str, *, region: str | None = None, sites: Collection[str] | None = None
) -> tuple[Step, ...]:
    """The steps of a study.

    Args:
        modality: Modality (0008,0060).
        region: One of `regions(modality)`; None for all of them. Body Part Examined (0018,0015) doesn't
            choose it, as headers often have it wrong.
        sites: Keys that the model knows or the user asked for: other sites are left out, and steps without
            any; None for all.

    Returns:
        Empty for a modality without a checklist.

    Raises:
        SettingsError: If the modality doesn't show that region.

    >>> [step.name for step in steps_for("CT", region="chest", sites=["heart", "lung", "liver"])]
    ['lung', 'heart']
    """
    known = regions(modality)
    if region is not None and region not in known:
        raise SettingsError(
            f"found the region {region!r}, expected one of {', '.join(known) or 'none'} for {modality}"
        )
    chosen = []
    for step in _all_steps():
        if modality not in step.modalities or region not in (None, step.region):
            continue
        kept = tuple(site for site in step.sites if sites is None or site in sites)
        if kept:
            findings = (one for one in step.findings if any(codes.site_allowed(one, site) for site in kept))
            chosen.append(replace(step, sites=kept, findings=tuple(findings)))
    return tuple(chosen)


@cache
def _all_steps() -> tuple[Step, ...]:
    table = tomllib.loads(FILE.read_text(encoding="utf-8"))["regions"]
    return tuple(
        Step(
            region=name,
            site=region.get("site", name),
            modalities=tuple(region["modalities"]),
            sites=tuple(step["sites"]),
            findings=tuple(step["findings"]),
        )
        for name, region in table.items()
        for step in region["steps"]
    )
