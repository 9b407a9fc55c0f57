"""Helpers that know nothing of detectors: values, files, devices, scikit-learn."""
