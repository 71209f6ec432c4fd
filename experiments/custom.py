"""A data set and a net of the user's own, from one Python file.

    task=experiments/problems/diamonds.py
    python -m experiments.custom --task=$task --balancer=igbv1

docs/custom_task.md says what the file defines. The net is trained by Adam, whose
learning rate is lowered where delta_m on the validation split no longer falls, or along
a cosine; the epoch with the best validation delta_m is tested. Every epoch shuffles the
training rows and takes whole batches of them: the rows that are left over at its end,
fewer than a batch, are used in other epochs.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from igb_jax.training.array_problem import problem_of
from igb_jax.training.config import helpful
from igb_jax.training.devices import Devices
from igb_jax.training.learning_rate import LearningRateConfig
from igb_jax.training.main import main as train
from igb_jax.training.problem import Problem
from igb_jax.training.task_file import load_task

PROGRAM = f"python -m {__package__}.custom"


@helpful
@dataclasses.dataclass(frozen=True)
class Config(LearningRateConfig):
  """Trains the net of a task file on its data."""

  task: Path = dataclasses.field(kw_only=True)
  """The task file: Python code that defines make_task(); see docs/custom_task.md."""


def parse_config(arguments: Sequence[str], program: str = PROGRAM) -> Config:
  """Reads the command line; SystemExit where it is wrong, or after --help.

  Example:
    >>> parse_config(["--task=my_task.py", "--seed", "3"]).epochs
    10
  """
  options = (tyro.conf.AvoidSubcommands,)
  return tyro.cli(Config, prog=program, args=list(arguments), config=options)


def make_problem(config: Config, devices: Devices) -> Problem:
  """What the task file defines.

  Raises:
    TypeError, ValueError: an option or the task file is wrong.
    FileNotFoundError: there is no such file.
  """
  return problem_of(load_task(config.task), config.task, config, devices)


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
  """Runs the experiment of a command line, by default of this process, and exits."""
  train(make_problem, parse_config, arguments, program)


if __name__ == "__main__":
  main()
