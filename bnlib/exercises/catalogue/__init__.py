"""One exercise a file, each extracted from its chapter."""
