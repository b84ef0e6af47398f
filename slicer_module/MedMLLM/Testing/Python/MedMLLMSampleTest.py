"""Runs the module's own test inside Slicer: ctest finds it through `slicer_add_python_unittest`."""

import unittest


class MedMLLMSampleTest(unittest.TestCase):
    """The sample's report, reviewed and verified."""

    def test_sample_is_reviewed_and_verified(self):
        """As `MedMLLMTest` has it."""
        from MedMLLM import MedMLLMTest

        MedMLLMTest().runTest()
