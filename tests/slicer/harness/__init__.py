"""Enough of 3D Slicer around `slicer-core` to run a scripted module as it is, without the application.

The MRML libraries, `slicer.util` and the displayable managers are the real ones. What the wheel lacks, which
is all that is Qt, is supplied here, from Slicer's public API documentation: PySide6 with the manners of
PythonQt, the base classes of scripted modules, the application object, the DICOM database, offscreen views.
"""
