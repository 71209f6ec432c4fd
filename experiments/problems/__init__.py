"""The problems of the league, one a file: what is learnt, and how it is trained."""

import functools
import importlib

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
)


@functools.lru_cache(1)
def load(name: str) -> tuple[ArrayTask, Training]:
  """Makes a problem of this folder.

  Args:
    name: the name of its file.

  Returns:
    What is learnt, and how it is trained.

  Raises:
    ValueError: there is no such problem.

  Example:
    >>> load("toy")[0].task_names
    ('first', 'second')
  """
  if name not in NAMES:
    raise ValueError(f"unknown problem {name!r}; there are {', '.join(NAMES)}.")
  module = importlib.import_module(f".{name}", __package__)
  task, training = module.make_task(), module.TRAINING
  training.check(task)
  return task, training
