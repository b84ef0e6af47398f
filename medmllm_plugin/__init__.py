"""MedMLLM: a study in, a grounded report and valid DICOM SRs out.

    from medmllm_plugin import read

    reading = read(["study/"])
    for finding in reading.report.findings:
        print(finding.sentence, finding.center_mm)

The public names are loaded when first used, so that importing this package stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = ["Finding", "Report", "SliceSet", "Volume", "__version__", "errors", "read"]

if TYPE_CHECKING:
    from medmllm_plugin import errors
    from medmllm_plugin.findings import Finding
    from medmllm_plugin.pipeline import read
    from medmllm_plugin.report import Report
    from medmllm_plugin.sliceset import SliceSet
    from medmllm_plugin.volume import Volume
else:
    _HOMES = {
        "Finding": "findings",
        "Report": "report",
        "SliceSet": "sliceset",
        "Volume": "volume",
        "errors": "errors",
        "read": "pipeline",
    }

    def __getattr__(name):
        """A public name, from the module that defines it (PEP 562)."""
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"{__name__}.{_HOMES[name]}")
        return module if name == _HOMES[name] else getattr(module, name)

    def __dir__():
        """The public names, those not yet loaded as well."""
        return sorted({*globals(), *__all__})
