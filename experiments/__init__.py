"""Experiments of the paper: `python -m experiments.qm9`, or `igb-jax train qm9`."""

import importlib.util

from igb_jax.extras import missing_package

if importlib.util.find_spec("tyro") is None:  # none of them works without
  raise ModuleNotFoundError(missing_package("tyro"), name="tyro")
