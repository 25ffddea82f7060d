"""Recall, false alarms, delay and cost of the detectors: `make bench-detection`."""
