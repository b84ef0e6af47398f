"""The audit trail that a node's settings ask for."""

from __future__ import annotations

from medmllm_plugin import __version__
from medmllm_plugin.dicom_bridge.audit import AuditTrail, DailyFiles, Sink
from medmllm_plugin.dicom_bridge.audit_messages import Syslog
from medmllm_plugin.dicom_bridge.node_settings import NodeSettings
from medmllm_plugin.dicom_bridge.store import Store


def audit_trail(settings: NodeSettings, store: Store) -> AuditTrail:
    """Begin to follow what happens on a node, or on all nodes that share its database.

    Args:
        settings: Of the node; files lie in `audit/NODE` of its folder.
        store: Of the studies.

    Raises:
        OutputError: If the folder can't be written to.
    """
    folder = settings.folder / "audit" / settings.node
    sinks: list[Sink] = [DailyFiles(folder, keep_days=settings.audit_keep_days)]
    if settings.syslog is not None:
        syslog = Syslog(
            settings.syslog,
            node=settings.node,
            ae_title=settings.ae_title,
            cursor=folder / "syslog.sent",
            tls=settings.syslog_tls,
        )
        sinks.append(syslog)
    return AuditTrail(store, sinks, node=settings.node, version=__version__)
