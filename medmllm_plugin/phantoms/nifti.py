"""A phantom study as one NIfTI file."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medmllm_plugin.errors import SettingsError
from medmllm_plugin.geometry import RAS_FROM_LPS, grid_affine
from medmllm_plugin.phantoms.study import PhantomStudy


def write_nifti(study: PhantomStudy, path: Path, *, progress: Callable[[int, int], None]) -> None:
    """Write the images of a study as gzipped NIfTI, columns and rows before slices, in RAS millimetres.

    The same study makes the same bytes: the gzip header has no time and no name.

    Args:
        study: A study whose images have a place.
        path: Where.
        progress: Called with (slices drawn, slices in all).

    Raises:
        SettingsError: If nibabel is not installed.
    """
    try:
        import nibabel
    except ImportError as error:
        raise SettingsError(
            "a phantom in NIfTI needs nibabel, which is not installed: pip install 'medmllm-plugin[imaging]'"
        ) from error
    planes = [study.plane(k).to_patient for k in range(study.slices)]
    affine = RAS_FROM_LPS @ grid_affine([matrix for matrix in planes if matrix is not None])
    voxels = np.empty((study.scan.shape[1], study.scan.shape[0], study.slices), np.int16)
    for k in range(study.slices):
        voxels[:, :, k] = study.values(k).T
        progress(k + 1, study.slices)
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"MedMLLM phantom, not a patient"
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
