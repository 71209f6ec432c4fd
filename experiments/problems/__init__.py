"""The problems of the league, one a file: what is learnt, and how it is trained."""

import functools
import importlib
from typing import Any

from igb_jax.training.array_task import ArrayTask

from .base import Training

NAMES = (
  "toy",
  "helmholtz",
  "klein_gordon",
  "burgers",
  "digits",
  "diamonds",
  "teachers",
  "qm9",
)


def training_of(name: str) -> Training:
  """How a problem of this folder is trained, without loading its data.

  Raises:
    ValueError: there is no such problem.

  Example:
    >>> training_of("toy").judged_by
    'distance'
  """
  return _module(name).TRAINING


def entrants_of(name: str) -> tuple[str, ...] | None:
  """Who plays a problem of this folder that would take too long for all.

  Returns:
    Their names, as `experiments.standings.plan` reads them; None for everyone.

  Example:
    >>> entrants_of("toy")
  """
  return getattr(_module(name), "ENTRANTS", None)


@functools.lru_cache(1)
def load(name: str) -> tuple[ArrayTask, Training]:
  """Makes a problem of this folder.

  Returns:
    What is learnt, and how it is trained.

  Raises:
    ValueError: there is no such problem.

  Example:
    >>> load("toy")[0].task_names
    ('first', 'second')
  """
  module = _module(name)
  task, training = module.make_task(), module.TRAINING
  training.check(task)
  return task, training


def _module(name: str) -> Any:
  if name not in NAMES:
    raise ValueError(f"unknown problem {name!r}; there are {', '.join(NAMES)}.")
  return importlib.import_module(f".{name}", __package__)
