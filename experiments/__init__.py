"""Experiments of the paper: `python -m experiments.qm9`, or `igb-jax train qm9`."""

import importlib.util
import sys

from igb_jax.extras import EXIT_MISSING, missing_package

if importlib.util.find_spec("tyro") is None:  # none of them works without
  if sys.argv[0] == "-m":  # so it is while Python looks for what to run with -m
    print(f"error: {missing_package('tyro')}", file=sys.stderr)
    sys.exit(EXIT_MISSING)
  raise ModuleNotFoundError(missing_package("tyro"), name="tyro")
