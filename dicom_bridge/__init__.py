"""DICOM in and out: Structured Reports, and the node that speaks with a PACS."""
