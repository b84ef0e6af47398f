"""Synthetic studies with known findings, written as real DICOM series.

Anatomy is procedural (`chest`), put on a scanner by `study`, and written by `dicom`.
"""

from medmllm_plugin.phantoms.dicom import write_study
from medmllm_plugin.phantoms.study import KINDS, PhantomStudy, sample_study

__all__ = ["KINDS", "PhantomStudy", "sample_study", "write_study"]
