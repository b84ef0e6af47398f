"""Where studies and their priors come from: a PACS by DIMSE or DICOMweb."""
