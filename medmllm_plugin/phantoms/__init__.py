"""Synthetic studies with known findings, written as real DICOM series."""
