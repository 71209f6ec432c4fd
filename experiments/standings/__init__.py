"""The parts of `python -m experiments.league`: runs, files, statistics and report."""
