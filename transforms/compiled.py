"""The compiled parts, where they were built; everything works without them, with the same results."""

from __future__ import annotations

from types import ModuleType

pictures: ModuleType | None
"""`_pictures.c`, loops of window, resize and patches; None where the package was built without a compiler."""

read: ModuleType | None
"""`_read.c`, the reading of many planes; None likewise, and where the system has no `pread`."""

scan: ModuleType | None
"""`_scan.c`, the comparison of headers; None likewise."""

try:
    from medmllm_plugin.transforms import _pictures as pictures
except ImportError:
    pictures = None
try:
    from medmllm_plugin.transforms import _read as read
except ImportError:
    read = None
try:
    from medmllm_plugin.transforms import _scan as scan
except ImportError:
    scan = None
