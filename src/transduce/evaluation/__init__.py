"""Evaluation: metrics with intervals, comparison of systems, figures and reports. No torch here."""
