"""What `medmllm serve --check` tells: what is right and wrong, and which rule would fire for a study."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmllm_plugin.cli_common import print_json, print_lines
from medmllm_plugin.config import Settings
from medmllm_plugin.errors import SettingsError

if TYPE_CHECKING:
    from medmllm_plugin.dicom_bridge.checking import Checked
    from medmllm_plugin.dicom_bridge.explaining import Explained
    from medmllm_plugin.dicom_bridge.node_settings import NodeSettings


def tell(
    settings: Settings, node: NodeSettings, study: Path | None, *, calling_ae: str, peers: bool, as_json: bool
) -> int:
    """Check the settings, or explain what would be done with a study; the exit code.

    Args:
        settings: Where models have names of the user's.
        node: What the node is told.
        study: A folder of a study; None to check the settings.
        calling_ae: As whom the study's sender would call; empty for nobody in particular.
        peers: Whether other systems are asked for an echo.
        as_json: Whether machines read it.
    """
    if study is not None:
        from medmllm_plugin.dicom_bridge.explaining import explain_study

        explained = explain_study(study, node, calling_ae=calling_ae)
        if as_json:
            print_json(_explained_json(explained))
        else:
            print_lines(_explained_lines(explained))
        return 0
    from medmllm_plugin.dicom_bridge.checking import Verdict, check

    found = check(settings, node, peers=peers)
    wrong = sum(one.verdict is Verdict.WRONG for one in found)
    if as_json:
        print_json({"node": node.node, "wrong": wrong, "checks": list(map(_checked_json, found))})
    else:
        print_lines(f"{one.verdict.value:<8} {one.what}: {one.found}" for one in found)
        print_lines([f"{wrong or 'nothing'} wrong, {len(found)} looked at"])
    return SettingsError.exit_code if wrong else 0


def _checked_json(one: Checked) -> dict[str, str]:
    return {"what": one.what, "verdict": one.verdict.value, "found": one.found}


def _explained_lines(explained: Explained) -> Iterator[str]:
    for number, series in enumerate(explained.series, 1):
        said = ", ".join(f"{key} {value!r}" for key, value in series.items())
        yield f"series {number}: {said}"
    for number, one in enumerate(explained.rules):
        fires = any(one.rule is each for each in explained.fires)
        verdict = "fires" if fires else "fits too, after another" if one.fits else "doesn't fit"
        yield f"rules[{number}] {one.rule.name!r} {verdict}: {one.why}"
    yield f"{explained.action.value}: {explained.why}"


def _explained_json(explained: Explained) -> dict[str, Any]:
    return {
        "series": [dict(one) for one in explained.series],
        "rules": [{"name": one.rule.name, "fits": one.fits, "why": one.why} for one in explained.rules],
        "fires": [one.name for one in explained.fires],
        "action": explained.action.value,
        "why": explained.why,
    }
