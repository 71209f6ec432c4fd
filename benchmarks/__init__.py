"""Benchmarks: every figure is a ratio of times that were taken in one run."""
