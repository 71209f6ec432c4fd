"""A data set and a net of the user's own, from one Python file.

    python -m experiments.custom --task=examples/diamonds.py --balancer=igbv1

docs/custom_task.md says what the file defines. Trained by Adam, whose learning rate is
lowered where delta_m on the validation split no longer falls; the epoch with the best
validation delta_m is tested. Every epoch shuffles the training rows and takes whole
batches of them: the rows that are left over at its end, fewer than a batch, are used in
other epochs.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import optax
import optax.contrib
import tyro

from igb_jax.data.loader import prefetch
from igb_jax.data.molecule_batches import shuffled
from igb_jax.metrics import delta_m
from igb_jax.training import command_line, run
from igb_jax.training.array_task import SPLITS, ArrayBatches, load_task
from igb_jax.training.balancing import (
  BalancingConfig,
  judged_metrics,
  make_balancer,
  works_at_features,
)
from igb_jax.training.checkpoint import CheckpointConfig
from igb_jax.training.devices import DeviceConfig, Devices, initialize
from igb_jax.training.experiment import Metric
from igb_jax.training.loggers import LoggersConfig
from igb_jax.training.loop import Evaluation
from igb_jax.training.seeds import SeedsConfig
from igb_jax.training.step import (
  Batch,
  NonFiniteConfig,
  Params,
  TrainState,
  init_state,
  make_train_step,
)

PROGRAM = f"python -m {__package__}.custom"


@dataclasses.dataclass(frozen=True)
class Config(
  BalancingConfig,
  DeviceConfig,
  CheckpointConfig,
  NonFiniteConfig,
  SeedsConfig,
  LoggersConfig,
):
  """Trains the net of a task file on its data."""

  task: Path = dataclasses.field(kw_only=True)
  """The task file: Python code that defines make_task(), see docs/custom_task.md."""
  balancer: Annotated[str, tyro.conf.arg(help=command_line.balancer_help())] = "igbv1"
  balancer_options: Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(help=command_line.options_help("NAME")),
  ] = ()
  out: Path | None = None
  """Folder of the run's files; by default runs/ and a name made of data set, balancer,
  seed and time."""
  epochs: int = 10
  """Number of passes over the training rows."""
  batch_size: int = 128
  """Rows in a batch."""
  learning_rate: float = 1e-3
  """Initial learning rate of Adam."""
  plateau_factor: float = 0.7
  """What the learning rate is multiplied by where validation delta_m stalls."""
  plateau_patience: int = 5
  """Epochs without a better validation delta_m that are tolerated before that."""
  min_learning_rate: float = 1e-5
  """Learning rate below which it is not lowered further."""


def parse_config(arguments: Sequence[str], program: str = PROGRAM) -> Config:
  """Reads the command line.

  Args:
    arguments: without the program's name.
    program: what was started, as a command line has it.

  Returns:
    The configuration.

  Raises:
    SystemExit: an argument is wrong, or --help was asked for.

  Example:
    >>> parse_config(["--task=my_task.py", "--seed", "3"]).epochs
    10
  """
  return tyro.cli(
    Config,
    prog=program,
    args=list(arguments),
    config=(tyro.conf.AvoidSubcommands,),
  )


def check_config(config: Config) -> None:
  """Checks what the other parts of a run do not check by themselves.

  Args:
    config: the configuration.

  Raises:
    ValueError: a number is out of its range; the message names the option.
  """
  at_least = {
    "epochs": 1,
    "batch_size": 1,
    "seed": 0,
    "plateau_patience": 0,
    "max_skips": 1,
  }
  command_line.check_at_least(config, at_least)
  command_line.check_plateau(config)


class CustomExperiment:
  """The user's task and the balancer of one run, ready to train.

  Implements `igb_jax.training.experiment.Experiment`.
  """

  averaged_epochs = None

  def __init__(self, config: Config):
    """Prepares everything; whatever is wrong with the configuration is raised here.

    Args:
      config: the configuration.

    Raises:
      TypeError, ValueError: an option or the task file is wrong.
      FileNotFoundError: there is no such file.
    """
    check_config(config)
    self.config = config
    self.devices = Devices(config.devices, config.mesh)
    self.devices.check_batch_size(config.batch_size)
    self.task = load_task(config.task)
    self.dataset = self.task.name
    self.task_names = self.task.task_names
    num_rows = self.task.num_rows("train")
    if config.batch_size > num_rows:
      raise ValueError(
        f"--batch-size={config.batch_size} is larger than the training split, which "
        f"has {num_rows} rows."
      )
    self.steps_per_epoch = len(self.train_batches(0))
    self.balancer = make_balancer(
      config.balancer,
      config.balancer_options,
      task_names=self.task_names,
      steps_per_epoch=self.steps_per_epoch,
    )
    self.optimizer = optax.adam(config.learning_rate)
    self.plateau = optax.contrib.reduce_on_plateau(
      factor=config.plateau_factor,
      patience=config.plateau_patience + 1,  # optax counts from one
      # absolute, since delta_m may be below zero, where a rise of rtol would do
      rtol=0.0,
      atol=0.01,
      min_scale=config.min_learning_rate / config.learning_rate,
    )
    at_features = works_at_features(config, config.balancer)
    if at_features and self.task.trunk is None:
      raise ValueError(
        f"{config.balancer} at the features needs a task with a trunk, and the one of "
        f"{config.task} has none; see ArrayTask.trunk."
      )
    self.step = make_train_step(
      self.task.losses if at_features else self.task.losses_of,
      self.balancer,
      self.optimizer,
      trunk=self.task.trunk if at_features else None,
      keep_task_grads=config.keep_task_grads,
      present_of=self.task.present,
      max_skips=config.tolerated_skips,
      placement=self.devices.placement,
    )
    self._measures = jax.jit(self.task.measures, out_shardings=self.devices.whole)
    self._init = jax.jit(self.task.init)
    self.metrics = self._metrics()
    self._judged = judged_metrics(
      self.metrics,
      config.balancer,
      config.balancer_options,
      task_names=self.task_names,
    )
    self.set_seed(config.seed)
    self.init_state()  # whether the parameters are divided as the balancer needs them

  def _metrics(self) -> tuple[Metric, ...]:
    """With the task file's bases, or what the untrained network has in their place.

    That network is the same for all seeds, so that their delta_m are comparable.
    """
    bases: Sequence[float | None] = [metric.base for metric in self.task.metrics]
    self.base = "task file"
    self.notice = None
    if None in bases:
      self.base = "untrained network"
      self.notice = (
        "delta_m is the change against the untrained network, not against single-task "
        "ones; the task file may give those as base=."
      )
      params = jax.device_put(self._init(jax.random.key(0)), self.devices.whole)
      bases = self._measure(params, "validation").tolist()
    metrics = []
    for metric, base in zip(self.task.metrics, bases, strict=True):
      if base is None or not 0 < base < np.inf:
        raise ValueError(
          f"the metric {metric.name!r} of the untrained network is {base}, to which no "
          "change can be relative; give every metric a positive base= in the task file."
        )
      higher = metric.higher_is_better
      metrics.append(Metric(metric.name, metric.unit, float(base), higher, metric.task))
    return tuple(metrics)

  def set_seed(self, seed: int) -> None:
    """Sets what depends on the seed anew.

    Args:
      seed: of the run.
    """
    self.config = dataclasses.replace(self.config, seed=seed)
    params_key, self._balancer_key = jax.random.split(jax.random.key(seed))
    self.initial_params = self._init(params_key)

  def init_state(self) -> TrainState:
    """The state before the first step."""
    state = init_state(
      self.initial_params,
      balancer=self.balancer,
      optimizer=self.optimizer,
      plateau=self.plateau,
      key=self._balancer_key,
    )
    return self.devices.put_state(state)

  def train_batches(self, epoch: int) -> ArrayBatches:
    """The batches of an epoch, a function of the seed and the epoch."""
    rows = np.arange(self.task.num_rows("train"))
    order = shuffled(rows, seed=self.config.seed, epoch=epoch)
    return ArrayBatches(
      self.task.train, order, self.config.batch_size, self.devices.part
    )

  def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
    """The same from one of them on, made ahead of time and put on the devices."""
    batches = prefetch(self.train_batches(epoch), start=start)
    return map(self.devices.put_batch, batches)

  @property
  def description(self) -> str:
    """How many rows, and of which file."""
    train, validation, test = self.run_facts()["num_rows"]
    return (
      f"{train} rows to train on, {validation} to validate and {test} to test, from "
      f"{self.config.task}"
    )

  def run_facts(self) -> dict[str, Any]:
    """The task file, and how many rows its splits have."""
    return {
      "task": str(self.config.task),
      "num_rows": [self.task.num_rows(split) for split in SPLITS],
    }

  def plot(self, folder: Path, state: TrainState) -> list[Path]:
    """Nothing beyond what every run plots."""
    del folder, state
    return []

  def close(self) -> None:
    """Nothing: the loader of an epoch ends with it."""

  def epoch_facts(self, epoch: int) -> dict[str, float]:
    """Nothing beyond what every run records."""
    del epoch
    return {}

  def evaluate(
    self, state: TrainState, split: Literal["validation", "test"]
  ) -> Evaluation:
    """The metrics of a split, taken over all of its rows at once, and delta_m.

    With "stl" delta_m is that of the task alone.

    Args:
      state: whose parameters are evaluated.
      split: which rows.
    """
    values = self._measure(state.params, split)
    judged = [self.metrics[index] for index in self._judged]
    return Evaluation(
      metrics={
        metric.name: float(value)
        for metric, value in zip(self.metrics, values, strict=True)
      },
      score=delta_m(
        values[self._judged],
        [metric.single_task for metric in judged],
        [metric.higher_is_better for metric in judged],
      ),
    )

  def _measure(self, params: Params, split: str) -> np.ndarray:
    """The metrics f64[M] of a split, which every device gets whole."""
    rows = jax.device_put(getattr(self.task, split), self.devices.whole)
    return np.asarray(jax.device_get(self._measures(params, rows)), np.float64)


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
  """Runs the experiment that the command line describes, and exits.

  Args:
    arguments: of the command line; None for those of this process.
    program: what was started, as a command line has it.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  config = parse_config(arguments, program)
  run.main(
    lambda: CustomExperiment(config),
    config,
    program=program,
    arguments=arguments,
    join=lambda: initialize(config),
  )


if __name__ == "__main__":
  main()
