"""The conformance statement says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts

from medmllm_plugin.dicom_bridge import commitment, deidentifying, dimse_service, negotiation, steps_scp
from medmllm_plugin.dicom_bridge.commands import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, Status
from medmllm_plugin.dicom_bridge.listener import Port
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.receiving import Limits
from medmllm_plugin.dicom_bridge.sr_header import CHARACTER_SET

PAGE = (Path(__file__).parents[1] / "docs" / "dicom-conformance.md").read_text("utf-8")


def row(name: str) -> str:
    """What the second column of a table says of something."""
    found = re.search(rf"^\| {re.escape(name)} \| (.*?) \|", PAGE, flags=re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_the_implementation_is_named_as_it_names_itself() -> None:
    assert row("Implementation Class UID") == f"`{IMPLEMENTATION_CLASS_UID.decode()}`"
    assert row("Implementation Version Name") == f"`{IMPLEMENTATION_VERSION.decode()}`"


def test_limits_are_those_of_the_code(tmp_path: Path) -> None:
    node = NodeSettings(folder=tmp_path)

    assert row("AE title") == f"`{node.ae_title}`, by setting"
    assert row("Maximum PDU received") == f"{negotiation.MAXIMUM_LENGTH} bytes"
    assert row("Associations at once") == f"{node.associations}, by setting"
    assert row("Ports").startswith(f"{node.port},")
    assert row("Time for an A-ASSOCIATE-RQ to come (ARTIM)") == f"{Port().request_s:g} s"
    assert row("Idle time after which an association is aborted") == f"{Limits().idle_s:g} s"


def test_every_status_of_storage_is_listed() -> None:
    section = PAGE.partition("## Storage as provider")[2].partition("\n## ")[0]

    listed = re.findall(r"^\| `([0-9A-F]{4})` \|", section, flags=re.MULTILINE)

    assert sorted(listed) == sorted(f"{status.value:04X}" for status in Status)


def test_what_is_rejected_is_listed_with_its_numbers() -> None:
    reasons = (
        negotiation.CALLING_AE_NOT_RECOGNIZED,
        negotiation.CALLED_AE_NOT_RECOGNIZED,
        negotiation.NO_REASON_GIVEN,
        negotiation.LOCAL_LIMIT_EXCEEDED,
    )

    assert [one for one in reasons if "/".join(map(str, one)) not in PAGE] == []


def test_the_contexts_are_those_that_are_taken() -> None:
    quick = {str(one.abstract_syntax): one for one in negotiation._TAKEN}
    others = {str(one.abstract_syntax): one for one in dimse_service._contexts()}
    storage = {str(one.abstract_syntax) for one in AllStoragePresentationContexts}

    assert set(quick) == storage | {negotiation.VERIFICATION}
    said = {commitment.SOP_CLASS, steps_scp.STEP, steps_scp.AVAILABILITY}
    assert set(others) == set(quick) | said
    assert all(set(one.transfer_syntax) == set(ALL_TRANSFER_SYNTAXES) for one in quick.values())
    assert {len(others[uid].transfer_syntax) for uid in said} == {4}
    for uid in (negotiation.VERIFICATION, *said):
        assert f"`{uid}`" in PAGE


def test_the_character_set_is_the_one_of_reports() -> None:
    assert f"`{CHARACTER_SET}`" in PAGE


def test_every_status_of_a_procedure_step_is_listed() -> None:
    section = PAGE.partition("## Procedure steps and instance availability")[2].partition("\n## ")[0]

    listed = re.findall(r"^\| `([0-9A-F]{4})` \|", section, flags=re.MULTILINE)

    assert sorted(listed) == sorted(
        f"{status:04X}"
        for status in (
            *(steps_scp.SUCCESS, steps_scp.INVALID_VALUE, steps_scp.PROCESSING_FAILURE),
            *(steps_scp.DUPLICATE, steps_scp.NO_SUCH_INSTANCE, steps_scp.MISSING),
        )
    )


def test_the_profile_of_de_identification_is_the_one_that_is_applied() -> None:
    edition = deidentifying.TABLE.removeprefix("dicomfields_")

    assert f"table\nE.1-1 of {edition}" in PAGE
    assert ", ".join(value for value, _ in deidentifying._METHODS) in PAGE
