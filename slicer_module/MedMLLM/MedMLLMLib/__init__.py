"""What the module MedMLLM is made of. Imports neither Slicer nor Qt by itself; see the modules."""
