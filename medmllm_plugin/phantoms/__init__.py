"""Synthetic studies with known findings, written as real DICOM or NIfTI.

Anatomy is procedural (`chest`, `head`, `abdomen`), seen by a scanner (`ct_chest`, `ct_head`, `ct_abdomen`,
`mr_brain`, and `xr_chest` for its projection), made a study with its truth (`study`), and written (`dicom`,
`enhanced`, `nifti`).
"""

from medmllm_plugin.phantoms.dicom import write_study
from medmllm_plugin.phantoms.study import KINDS, Form, PhantomStudy, sample_study

__all__ = ["KINDS", "Form", "PhantomStudy", "sample_study", "write_study"]
