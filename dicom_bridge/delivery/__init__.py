"""Where reports go: a PACS by DIMSE or DICOMweb, or a folder.

A destination can be given the same objects again at any time: they have the same UIDs and the same bytes, so
nothing is there twice. It says what it is sure of, and its errors say whether another try can help.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medmllm_plugin.dicom_bridge.delivery.values import Certainty, Delivered, Destination, Reference

if TYPE_CHECKING:
    from medmllm_plugin.dicom_bridge.commitment import Commitments
    from medmllm_plugin.dicom_bridge.node_settings import NodeSettings, Output

__all__ = ["Certainty", "Delivered", "Destination", "Reference", "destination"]


def destination(
    output: Output, settings: NodeSettings, commitments: Commitments | None = None
) -> Destination:
    """The destination that an output of the settings means.

    Args:
        output: One of `settings.outputs`.
        settings: Of the node.
        commitments: Where answers to storage commitment come in; the node's `DimseService` has the same.

    Raises:
        SettingsError: If its token, or the site's secret where it is needed, isn't there.
    """
    made = _destination(output, settings, commitments)
    if not output.deidentify:
        return made
    from medmllm_plugin.dicom_bridge.delivery.deidentifying import Deidentifying
    from medmllm_plugin.dicom_bridge.salt import salt_of

    return Deidentifying(made, salt=salt_of(settings))


def _destination(output: Output, settings: NodeSettings, commitments: Commitments | None) -> Destination:
    if output.folder is not None:
        from medmllm_plugin.dicom_bridge.delivery.folder import FolderDestination

        return FolderDestination(output.folder)
    if output.url is not None:
        from medmllm_plugin.dicom_bridge.delivery.stow import StowDestination

        return StowDestination(output.url, token_env=output.token_env)
    from medmllm_plugin.dicom_bridge.delivery.dimse import DimseDestination

    return DimseDestination(
        settings.peers[output.peer or ""],
        calling_ae=settings.ae_title,
        commitment=output.commitment,
        commitments=commitments,
    )
