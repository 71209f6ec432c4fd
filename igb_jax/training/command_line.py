"""What the experiments' command lines have in common."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import tyro

from igb_jax import balancers

_Config = TypeVar("_Config")


def parse_config(
  arguments: Sequence[str], presets: Mapping[str, _Config], *, default: str, prog: str
) -> _Config:
  """Reads a command line whose option --preset says where the other defaults are from.

  Args:
    arguments: without the program's name.
    presets: name -> configuration, a dataclass with a field `preset`.
    default: the preset where the command line names none.
    prog: what the program is called in --help.

  Returns:
    The configuration.

  Raises:
    SystemExit: an argument is wrong, or --help was asked for.
  """
  parser = ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument("--preset", default=default, nargs="?")
  preset = parser.parse_known_args(arguments)[0].preset
  # an unknown preset, or none after --preset, is refused by tyro
  return tyro.cli(
    type(presets[default]),
    prog=prog,
    args=list(arguments),
    default=presets.get(preset, presets[default]),
    config=(tyro.conf.AvoidSubcommands,),
  )


def balancer_help() -> str:
  """The help of --balancer, which names every method."""
  known = {
    kind: ", ".join(name for name, value in balancers.names().items() if value == kind)
    for kind in ("loss", "gradient")
  }
  return (
    f"A loss balancer ({known['loss']}), a gradient balancer ({known['gradient']}), or "
    "both as loss+gradient. `igb-jax balancers` describes them."
  )


def options_help(task: str) -> str:
  """The help of --balancer-options.

  Args:
    task: name of a task, for the example.

  Example:
    >>> options_help("depth").partition(", e.g. ")[2]
    'temperature=1.5, absent=remember, or task=depth for stl; may be repeated.'
  """
  return (
    "A hyper-parameter of the balancer as NAME=VALUE, where VALUE is a number, true, "
    "false, a word or the name of a task, e.g. temperature=1.5, absent=remember, or "
    f"task={task} for stl; may be repeated."
  )


def option_of(name: str) -> str:
  """How a field of the configuration is called on the command line.

  Args:
    name: of the field.

  Example:
    >>> option_of("batch_size")
    '--batch-size'
  """
  return "--" + name.replace("_", "-")


def check_at_least(config: Any, minima: Mapping[str, int]) -> None:
  """Checks fields of a configuration that are numbers or None.

  Args:
    config: the configuration.
    minima: name of a field -> the least number allowed.

  Raises:
    ValueError: a number is smaller; the message names the option.
  """
  for name, minimum in minima.items():
    value = getattr(config, name)
    if value is not None and value < minimum:
      raise ValueError(f"{option_of(name)} must be at least {minimum}, got {value}.")


class PlateauConfig(Protocol):
  """The fields of a configuration that say how the learning rate is lowered."""

  @property
  def learning_rate(self) -> float:
    """The initial one."""
    ...

  @property
  def min_learning_rate(self) -> float:
    """Below which it is not lowered further."""
    ...

  @property
  def plateau_factor(self) -> float:
    """What it is multiplied by where validation stalls."""
    ...


def check_plateau(config: PlateauConfig) -> None:
  """Checks how the learning rate is to be lowered.

  Args:
    config: the configuration.

  Raises:
    ValueError: a number is out of its range; the message names the option.
  """
  if not 0 < config.min_learning_rate <= config.learning_rate < float("inf"):
    raise ValueError(
      "--learning-rate and --min-learning-rate must be positive, the first not below "
      f"the second, got {config.learning_rate} and {config.min_learning_rate}."
    )
  if not 0 < config.plateau_factor < 1:
    raise ValueError(
      f"--plateau-factor must be between 0 and 1, got {config.plateau_factor}."
    )
