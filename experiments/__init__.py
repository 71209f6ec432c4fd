"""Experiments of the paper: `python -m experiments.qm9`."""
