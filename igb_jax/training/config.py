"""The options of a run, each defined once, and how a command line is read."""

import dataclasses
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import docstring_parser
import tyro

from igb_jax import balancers

_Config = TypeVar("_Config")


def helpful(options: type[_Config]) -> type[_Config]:
  """Has --help show the docstrings of a dataclass's fields without their line breaks.

  tyro 1.0 joins the lines of a docstring only where they are not indented.
  """
  types = options.__annotations__
  for field in docstring_parser.parse_from_object(options).params:
    words = (field.description or "").split()
    shown = tyro.conf.arg(help=" ".join(words))
    types[field.arg_name] = Annotated[types[field.arg_name], shown]
  return options


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


@helpful
@dataclasses.dataclass(frozen=True)
class RunConfig:
  """The options of every run; an experiment adds options of its own."""

  balancer: Annotated[str, tyro.conf.arg(help=balancer_help())] = "igbv1"
  balancer_options: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
  """A hyper-parameter of the balancer as NAME=VALUE, where VALUE is a number, true,
  false, a list such as [1,2], a word or the name of a task, e.g. temperature=1.5,
  absent=remember, or task=NAME for stl; may be repeated."""
  out: Path | None = None
  """Folder of the run's files; by default a folder in runs/ named after data set,
  balancer, seed and time."""
  epochs: int = 10
  """Number of passes over the training data."""
  batch_size: int = 128
  """Number of examples in a batch."""
  learning_rate: float = 1e-3
  """Initial learning rate of Adam."""
  seed: int = 0
  """Seed of the initial parameters, the order of the batches and the balancer."""
  seeds: tuple[int, ...] = ()
  """Train with several seeds at once, in one vmapped step, instead of with `--seed`;
  the runs go to seed0, seed1, ... in --out. Only for loss balancers, on one device."""
  balance_at: Literal["parameters", "features"] = "parameters"
  """Where a gradient balancer works: on the gradients in all shared parameters, or on
  those in the features that the heads read, which takes K backward passes through the
  heads alone. "ntksr" and its combinations always work on the features."""
  keep_task_grads: bool = True
  """Whether to hold all task gradients at once. If not, only their inner products are
  kept, which takes less memory where parameters are larger than activations, and more
  elsewhere."""
  on_nonfinite: Literal["stop", "skip"] = "stop"
  """What happens when a loss or gradient is not finite: the run stops, or the step is
  skipped, which leaves parameters and all states as they were."""
  max_skips: int = 10
  """Maximum number of steps in a row that may be skipped; one more stops the run."""
  resume: bool = False
  """Continue the run in --out from its newest checkpoint, or start a new run if there
  is none. Options that affect the results must be the same as in that run."""
  checkpoint_every: str = "1epoch"
  """Interval between checkpoints, e.g. 5epochs, 30s, 10min or 1h. The best epoch so far
  is always saved, and so is a run that is stopped."""
  keep: int = 1
  """Number of newest checkpoints to keep besides that of the best epoch. Below 2 it
  means 2, in case one is damaged."""
  devices: int | None = None
  """Use only the first N devices; None for all, which several processes require."""
  mesh: str | None = None
  """Sizes of the mesh's axes, such as data=4,model=2: batches are divided over `data`,
  large parameters over `model`. By default all devices share the data."""
  distributed: bool = False
  """Run as one of several processes, which JAX discovers (TPU pods, Slurm, Open MPI) or
  the options below name."""
  coordinator: str | None = None
  """HOST:PORT of the first process; by default $JAX_COORDINATOR_ADDRESS."""
  num_processes: int | None = None
  """Number of processes; by default $JAX_NUM_PROCESSES."""
  process_id: int | None = None
  """Number of this process, from 0; by default $JAX_PROCESS_ID."""
  tensorboard: bool = False
  """Also log metrics.jsonl to tensorboard/ in the run's folder, for
  `tensorboard --logdir`. Needs pip install 'igb-jax[tensorboard]'."""
  wandb: bool = False
  """Also log metrics.jsonl to Weights & Biases, in the project $WANDB_PROJECT or
  igb_jax. Needs pip install 'igb-jax[wandb]' and `wandb login`, or
  WANDB_MODE=offline."""

  def check(self) -> None:
    """Checks what needs neither data nor devices.

    Raises:
      ValueError: an option is out of its range; the message names it.
    """
    minima = {"epochs": 1, "batch_size": 1, "seed": 0, "max_skips": 1, "keep": 1}
    check_at_least(self, minima)
    if not 0 < self.learning_rate < float("inf"):
      raise ValueError(f"--learning-rate must be positive, got {self.learning_rate}.")


# Options that a resumed run may change: they do not affect what it computes, as long as
# its numbers are finite.
FREE_OPTIONS = frozenset(
  {"out", "resume", "checkpoint_every", "keep", "epochs", "workers", "cache_dir"}
  | {"devices", "mesh", "distributed", "coordinator", "num_processes", "process_id"}
  | {"on_nonfinite", "max_skips", "tensorboard", "wandb"}
)
LOGGERS = ("tensorboard", "wandb")  # each an option, a package and an extra


def parse_config(
  arguments: Sequence[str], presets: Mapping[str, _Config], *, prog: str
) -> _Config:
  """Reads a command line whose option --preset says where the other defaults are from.

  Args:
    arguments: without the program's name.
    presets: name -> configuration, a dataclass with a field `preset`; the first one is
      taken where the command line names none.
    prog: what the program is called in --help.

  Returns:
    The configuration.

  Raises:
    SystemExit: an argument is wrong, or --help was asked for.
  """
  default = next(iter(presets))
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


def option_of(name: str) -> str:
  """How a field of the configuration is called on the command line.

  Example:
    >>> option_of("batch_size")
    '--batch-size'
  """
  return "--" + name.replace("_", "-")


def check_at_least(config: Any, minima: Mapping[str, int]) -> None:
  """Checks that fields of a configuration are at least `minima`; None passes.

  Raises:
    ValueError: a number is smaller; the message names the option.
  """
  for name, minimum in minima.items():
    value = getattr(config, name)
    if value is not None and value < minimum:
      raise ValueError(f"{option_of(name)} must be at least {minimum}, got {value}.")
