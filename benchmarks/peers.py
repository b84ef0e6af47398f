"""How others get from files to a model's input: each way as its users write it, ending in the same output.

Where a function takes a `Series` and a syntax, it starts from the folder and ends in uint8 `pixel_values` of
the Qwen2-VL family, shape (patches, 1176), for the same slices and the same soft-tissue window.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_rescale

from benchmarks.series import Series

LOW, SPAN = -160.0, 399.0
"""Window 40/400 by the linear function of PS3.3 C.11.2.1.2.1: grey 0 at -160 HU, 255 at 239 HU."""

MEDGEMMA = ((-1024, 1024), (-135, 215), (0, 80))
"""MedGemma's windows for red, green and blue, HU from black to full."""

UINT8 = {"return_tensors": "pt", "do_rescale": False, "do_normalize": False}
"""What vLLM asks of the processor: bytes, which the GPU normalises."""

Pixels = NDArray[np.uint8]
Placed = tuple[float, ...]
"""Image Position (Patient) in mm, and Rescale Intercept."""


def chosen(total: int, count: int) -> list[int]:
    """Slices evenly spaced from the first to the last."""
    return [int(k) for k in np.linspace(0, total - 1, count).round()]


def window(values: NDArray[Any]) -> Pixels:
    """Grey levels of Hounsfield units."""
    grey = (values.astype(np.float32) - np.float32(LOW)) * np.float32(255 / SPAN) + np.float32(0.5)
    levels: Pixels = np.clip(grey, 0, 255).astype(np.uint8)
    return levels


def rgb(grey: Pixels) -> Any:
    """A grey picture as an RGB image of Pillow."""
    from PIL import Image

    return Image.fromarray(grey).convert("RGB")


@cache
def processor() -> Any:
    """The processor of transformers for the Qwen2-VL family, torchvision backend."""
    from medmllm_plugin.models import torchvision_shim

    torchvision_shim.ensure()
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor()


def processed(images: Sequence[Any]) -> Pixels:
    """uint8 `pixel_values` of Pillow images or (3, rows, columns) tensors."""
    values: Pixels = processor()(images=images, **UINT8)["pixel_values"].numpy()
    return values


def processed_float(images: Sequence[Any]) -> NDArray[np.float32]:
    """float32 `pixel_values`, rescaled and normalised."""
    values: NDArray[np.float32] = processor()(images=images, return_tensors="pt")["pixel_values"].numpy()
    return values


def by_qwen(images: Sequence[Any]) -> Pixels:
    """As `processed`, through Qwen's own `qwen_vl_utils`, which resizes with Pillow first."""
    processor()
    from qwen_vl_utils import process_vision_info

    content = [{"type": "image", "image": image} for image in images]
    inputs, _ = process_vision_info([{"role": "user", "content": content}])
    return processed(inputs)


def tensor(grey: Pixels) -> Any:
    """A grey picture as a tensor of three channels that share their memory."""
    import torch

    return torch.from_numpy(grey)[None].expand(3, -1, -1)


def in_order(places: Sequence[Sequence[Any]]) -> list[int]:
    """Numbers of slices from the lowest along their normal to the highest.

    Args:
        places: For each slice Image Position (Patient), then Image Orientation (Patient): nine numbers.
    """
    corner, row, column = np.array(places, float).reshape(-1, 3, 3).swapaxes(0, 1)
    along = (np.cross(row, column) * corner).sum(axis=1)
    return [int(n) for n in along.argsort(kind="stable")]


def by_position(headers: Sequence[Dataset]) -> list[int]:
    """Numbers of headers in the order of position."""
    return in_order([[*one.ImagePositionPatient, *one.ImageOrientationPatient] for one in headers])


# Whole volumes


def monai_volume(folder: Path, *, reader: str | None = None) -> Any:
    """MONAI's `LoadImage`: a float32 MetaTensor (columns, rows, slices)."""
    from monai.transforms import LoadImage

    return LoadImage(reader=reader, image_only=True)(folder)


def simpleitk_volume(folder: Path) -> NDArray[np.int16]:
    """SimpleITK's series reader: Hounsfield units (slices, rows, columns)."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    values: NDArray[np.int16] = sitk.GetArrayFromImage(reader.Execute())
    return values


def pydicom_volume(folder: Path) -> NDArray[np.float32]:
    """A loop of pydicom: Hounsfield units (slices, rows, columns)."""
    datasets = [dcmread(path) for path in folder.iterdir()]
    planes = []
    for n in by_position(datasets):
        one = datasets[n]
        planes.append(
            one.pixel_array.astype(np.float32) * float(one.RescaleSlope) + float(one.RescaleIntercept)
        )
    return np.stack(planes)


def highdicom_volume(folder: Path) -> NDArray[Any]:
    """The volume that highdicom makes of a series, its slices from feet to head as the others'."""
    import highdicom

    volume = highdicom.get_volume_from_series([dcmread(path) for path in folder.iterdir()])
    array: NDArray[Any] = volume.array
    return array if volume.affine[2, 0] > 0 else array[::-1]


def dicomsdl_volume(folder: Path) -> NDArray[np.int16]:
    """dicomsdl, sorted by position, into one array, then the rescale in place."""
    import dicomsdl

    files = sorted(
        (dicomsdl.open(str(path)) for path in folder.iterdir()), key=lambda f: f.ImagePositionPatient[2]
    )
    volume = np.empty((len(files), files[0].Rows, files[0].Columns), np.uint16)
    for file, plane in zip(files, volume, strict=True):
        file.copyFrameData(0, plane)
    values = volume.view(np.int16)
    values += np.int16(files[0].RescaleIntercept)
    return values


# Folder to pixel_values: those who load everything


def monai(series: Series, syntax: str, *, reader: str | None = None) -> Pixels:
    """LoadImage, Orientation, ScaleIntensityRange; then Pillow, qwen_vl_utils and the processor."""
    return _by_monai(series, series.folder(syntax), reader)


def _by_monai(series: Series, path: Path, reader: str | None) -> Pixels:
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, ScaleIntensityRange

    load = Compose(
        [
            LoadImage(reader=reader, image_only=True),
            EnsureChannelFirst(),
            Orientation("RAS", labels=None),
            ScaleIntensityRange(LOW, LOW + SPAN, 0.5, 255.5, clip=True),
        ]
    )
    volume = load(path).numpy()[0]
    # RAS columns run to the right of the patient's left, rows to the front: both turned for display
    shown = chosen(volume.shape[2], series.scale.shown)
    return by_qwen([rgb(np.ascontiguousarray(volume[::-1, ::-1, k].T).astype(np.uint8)) for k in shown])


def simpleitk(series: Series, syntax: str) -> Pixels:
    """SimpleITK's series reader; then Pillow, qwen_vl_utils and the processor."""
    volume = simpleitk_volume(series.folder(syntax))
    return by_qwen([rgb(window(volume[k])) for k in chosen(len(volume), series.scale.shown)])


def pydicom(series: Series, syntax: str) -> Pixels:
    """A loop of pydicom; then Pillow, qwen_vl_utils and the processor."""
    volume = pydicom_volume(series.folder(syntax))
    return by_qwen([rgb(window(volume[k])) for k in chosen(len(volume), series.scale.shown)])


def over_http(series: Series, syntax: str) -> Pixels:
    """A loop of pydicom; PNG data URLs in the JSON of a chat request; and how the server opens them.

    Nothing is sent: the body is made and parsed.
    """
    from PIL import Image

    volume = pydicom_volume(series.folder(syntax))
    content = []
    for k in chosen(len(volume), series.scale.shown):
        file = io.BytesIO()
        rgb(window(volume[k])).save(file, "PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        content.append({"type": "image_url", "image_url": {"url": url}})
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]})
    images = []
    for part in json.loads(body)["messages"][0]["content"]:
        data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
        images.append(Image.open(io.BytesIO(data)).convert("RGB"))
    return processed(images)


# Folder to pixel_values: those who decode only what they show


def careful_dicomsdl(series: Series, syntax: str) -> Pixels:
    """Headers up to the pixels by dicomsdl, then the slices shown; tensors to the processor."""
    import dicomsdl

    files = sorted(
        (dicomsdl.open(str(path), 0x7FE00000).ImagePositionPatient[2], str(path))
        for path in series.folder(syntax).iterdir()
    )
    images = []
    for k in chosen(len(files), series.scale.shown):
        file = dicomsdl.open(files[k][1])
        stored = np.empty((file.Rows, file.Columns), np.uint16)
        file.copyFrameData(0, stored)
        values = stored.view(np.int16)
        values += np.int16(file.RescaleIntercept)
        images.append(tensor(window(values)))
    return processed(images)


def careful_simpleitk(series: Series, syntax: str) -> Pixels:
    """SimpleITK's sorted names, then a series of the slices shown; Pillow images to the processor."""
    import SimpleITK as sitk  # noqa: N813

    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series.folder(syntax)))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([names[k] for k in chosen(len(names), series.scale.shown)])
    image = reader.Execute()  # kept, as the view is of its memory
    return processed([rgb(window(values)) for values in sitk.GetArrayViewFromImage(image)])


def careful_pydicom(series: Series, syntax: str) -> Pixels:
    """Headers up to the pixels by pydicom, then the slices shown; Pillow images to the processor."""
    files = list(series.folder(syntax).iterdir())
    order = by_position([dcmread(path, stop_before_pixels=True) for path in files])
    images = []
    for k in chosen(len(files), series.scale.shown):
        dataset = dcmread(files[order[k]])
        images.append(rgb(window(apply_rescale(dataset.pixel_array, dataset))))
    return processed(images)


# NIfTI to pixel_values


def nifti_monai(series: Series, path: Path) -> Pixels:
    """As `monai`, from a NIfTI file."""
    return _by_monai(series, path, None)


def nifti_nibabel(series: Series, path: Path) -> Pixels:
    """The whole array by nibabel's get_fdata, in float32; Pillow images to the processor."""
    import nibabel

    volume = nibabel.load(path).get_fdata(dtype=np.float32)
    shown = chosen(volume.shape[2], series.scale.shown)
    return processed([rgb(window(np.ascontiguousarray(volume[:, :, k].T))) for k in shown])


def nifti_careful(series: Series, path: Path) -> Pixels:
    """Only the slices shown, by nibabel's lazy array; tensors to the processor."""
    import nibabel

    lazy = nibabel.load(path).dataobj
    shown = chosen(lazy.shape[2], series.scale.shown)
    return processed([tensor(window(np.ascontiguousarray(lazy[:, :, k].T))) for k in shown])


# Headers


def pydicom_headers(files: Iterable[Path]) -> list[Placed]:
    """The place and intercept of each file, by pydicom up to the pixels."""
    headers = (dcmread(path, stop_before_pixels=True) for path in files)
    return [(*map(float, one.ImagePositionPatient), float(one.RescaleIntercept)) for one in headers]


def dicomsdl_headers(files: Iterable[Path]) -> list[Placed]:
    """The same by dicomsdl."""
    import dicomsdl

    headers = (dicomsdl.open(str(path), 0x7FE00000) for path in files)
    return [(*map(float, one.ImagePositionPatient), float(one.RescaleIntercept)) for one in headers]


# MedGemma's notebook, from its description: whole-study sampling, three windows as colours, JPEG data URLs


def medgemma_pictures(series: Series) -> Iterator[Pixels]:
    """Headers, sorted; evenly spaced slices read and rescaled; three windows as RGB."""
    files = series.files()
    order = by_position([dcmread(path, stop_before_pixels=True) for path in files])
    for k in chosen(len(files), series.scale.recipe):
        dataset = dcmread(files[order[k]])
        values = apply_rescale(dataset.pixel_array, dataset)
        channels = [(np.clip(values, low, high) - low) * (255.0 / (high - low)) for low, high in MEDGEMMA]
        yield np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def medgemma(series: Series) -> list[str]:
    """The pictures as JPEG data URLs."""
    from PIL import Image

    urls = []
    for picture in medgemma_pictures(series):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG")
        urls.append("data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode())
    return urls


# What must be done in any case


def pixel_offsets(series: Series) -> list[tuple[Path, int]]:
    """File and offset of the uncompressed pixels of each slice, in the order of position."""
    headers, found = [], []
    for path in series.files():
        header = dcmread(path, stop_before_pixels=True)
        headers.append(header)
        found.append((path, path.stat().st_size - 2 * header.Rows * header.Columns))
    return [found[n] for n in by_position(headers)]


def read_at(path: Path, offset: int, into: NDArray[Any]) -> None:
    """Fill an array with the bytes from an offset on."""
    file = os.open(path, os.O_RDONLY)
    try:
        count = os.preadv(file, [into.data.cast("B")], offset)
    finally:
        os.close(file)
    if count != into.nbytes:
        raise OSError(f"{path.name}: {count} bytes at {offset}, expected {into.nbytes}")


def first_bytes(files: Iterable[Path]) -> None:
    """Open each file and read 8 KB of it."""
    for path in files:
        file = os.open(path, os.O_RDONLY)
        os.pread(file, 8192, 0)
        os.close(file)


def all_bytes(files: Iterable[Path], buffer: bytearray) -> int:
    """Read every byte into one small buffer, and count them."""
    total = 0
    for path in files:
        file = os.open(path, os.O_RDONLY)
        while count := os.readv(file, [buffer]):
            total += count
        os.close(file)
    return total
