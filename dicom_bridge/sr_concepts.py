"""The concept names of our SR trees, each with the meaning that viewers compare (PS3.16 Annex D).

OHIF and Slicer look for the meaning and not only the value: change no letter of it.
"""

from __future__ import annotations

from medmllm_plugin.codes import Code


def _code(value: str, scheme: str, meaning: str) -> Code:
    return Code(value=value, scheme=scheme, meaning=meaning)


# Titles and headings
IMAGING_MEASUREMENT_REPORT = _code("126000", "DCM", "Imaging Measurement Report")
DIAGNOSTIC_IMAGING_REPORT = _code("18748-4", "LN", "Diagnostic Imaging Report")
OF_INTEREST = _code("113000", "DCM", "Of Interest")
IMAGE_LIBRARY = _code("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = _code("126200", "DCM", "Image Library Group")
IMAGING_MEASUREMENTS = _code("126010", "DCM", "Imaging Measurements")
MEASUREMENT_GROUP = _code("125007", "DCM", "Measurement Group")
QUALITATIVE_EVALUATIONS = _code("C0034375", "UMLS", "Qualitative Evaluations")
FINDINGS = _code("59776-5", "LN", "Findings")
IMPRESSIONS = _code("19005-8", "LN", "Impressions")
SUMMARY = _code("55112-7", "LN", "Summary")

# Language, observer, procedure (TID 1204, 1002, 1004)
LANGUAGE = _code("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = _code("en-US", "RFC5646", "English (United States)")
UNDETERMINED_LANGUAGE = _code("und", "RFC5646", "Undetermined")
OBSERVER_TYPE = _code("121005", "DCM", "Observer Type")
DEVICE = _code("121007", "DCM", "Device")
DEVICE_UID = _code("121012", "DCM", "Device Observer UID")
DEVICE_NAME = _code("121013", "DCM", "Device Observer Name")
DEVICE_MANUFACTURER = _code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_MODEL = _code("121015", "DCM", "Device Observer Model Name")
DEVICE_SERIAL = _code("121016", "DCM", "Device Observer Serial Number")
PERSON = _code("121006", "DCM", "Person")
PERSON_NAME = _code("121008", "DCM", "Person Observer Name")
PERSON_ORGANIZATION = _code("121009", "DCM", "Person Observer's Organization Name")
PROCEDURE_REPORTED = _code("121058", "DCM", "Procedure reported")
PROCESSING_EQUIPMENT = _code("109102", "DCM", "Processing Equipment")

# Image library (TID 1600, 1602)
MODALITY = _code("121139", "DCM", "Modality")
FRAME_OF_REFERENCE = _code("112227", "DCM", "Frame of Reference UID")
ROWS = _code("110910", "DCM", "Pixel Data Rows")
COLUMNS = _code("110911", "DCM", "Pixel Data Columns")
SOURCE = _code("260753009", "SCT", "Source")

# Measurement group (TID 1410, 4019, 320)
TRACKING_IDENTIFIER = _code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = _code("112040", "DCM", "Tracking Unique Identifier")
FINDING_CATEGORY = _code("276214006", "SCT", "Finding category")
ABNORMAL_STRUCTURE = _code("49755003", "SCT", "Morphologically Abnormal Structure")
FINDING = _code("121071", "DCM", "Finding")
FINDING_SITE = _code("363698007", "SCT", "Finding Site")
LATERALITY = _code("272741003", "SCT", "Laterality")
SEVERITY = _code("246112005", "SCT", "Severity")
CHANGE = _code("111021", "DCM", "Description of Change")
ALGORITHM_NAME = _code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = _code("111003", "DCM", "Algorithm Version")
ALGORITHM_MANUFACTURER = _code("122405", "DCM", "Algorithm Manufacturer")
ALGORITHM_PARAMETERS = _code("111002", "DCM", "Algorithm Parameters")
ALGORITHM_FAMILY = _code("111000", "DCM", "Algorithm Family")
ARTIFICIAL_INTELLIGENCE = _code("123110", "DCM", "Artificial Intelligence")
LONG_AXIS = _code("103339001", "SCT", "Long axis")
CERTAINTY = _code("111012", "DCM", "Certainty of Finding")
GEOMETRIC_PURPOSE = _code("130400", "DCM", "Geometric purpose of region")
BOUNDED_BY = _code("75958009", "SCT", "Bounded by")
CENTER = _code("111010", "DCM", "Center")
IMAGE_REGION = _code("111030", "DCM", "Image Region")
COMMENT = _code("121106", "DCM", "Comment")

# Key objects (TID 2010)
KEY_OBJECT_DESCRIPTION = _code("113012", "DCM", "Key Object Description")

# Outcome and sentences (TID 1500 row 12, CID 6047, TID 2000)
OUTCOME = _code("111017", "DCM", "CAD Processing and Findings Summary")
BASELINE = _code("121079", "DCM", "Baseline")
BEST_ILLUSTRATION = _code("121080", "DCM", "Best illustration of finding")
IMPRESSION = _code("121073", "DCM", "Impression")
CONCLUSION = _code("121077", "DCM", "Conclusion")

# Units
MILLIMETER = _code("mm", "UCUM", "mm")
PERCENT = _code("%", "UCUM", "Percent")
PIXELS = _code("{pixels}", "UCUM", "Pixels")
