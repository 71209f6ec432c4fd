"""Eleven molecular properties of QM9, learnt together by one graph network.

    python -m experiments.qm9 --balancer=igbv1                   (minutes, a laptop)
    python -m experiments.qm9 --balancer=igbv1 --preset=paper    (the published run)

Protocol: Dai et al., "Improvable Gap Balancing for Multi-Task Learning", UAI 2023,
section 5.2, which follows Navon et al., "Multi-Task Learning as a Bargaining Game",
ICML 2022. Standardised targets, mean squared error a task, Adam, learning rate lowered
where delta_m on the validation molecules no longer falls, and the epoch with the best
validation delta_m tested.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import tyro

from igb_jax import balancers
from igb_jax.data import graphs, qm9
from igb_jax.data.loader import prefetch
from igb_jax.data.molecule_batches import (
  MoleculeBatch,
  MoleculeBatches,
  shuffled,
  without_labels,
)
from igb_jax.metrics import delta_m
from igb_jax.nets.mpnn import MPNN
from igb_jax.training import command_line, run
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
  NonFiniteConfig,
  Params,
  TrainState,
  init_state,
  make_train_step,
)

PROGRAM = f"python -m {__package__}.qm9"
# The base of delta_m, in the order and units of qm9.TARGETS: test errors of single-task
# runs as the published code has them; Table 2 of Dai et al., UAI 2023, rounds them.
SINGLE_TASK_ERRORS = (
  *(0.0671, 0.1814, 60.576, 53.915, 0.5027, 4.539),
  *(58.838, 64.244, 63.852, 66.223, 0.07212),
)


@dataclasses.dataclass(frozen=True)
class Config(
  BalancingConfig,
  DeviceConfig,
  CheckpointConfig,
  NonFiniteConfig,
  SeedsConfig,
  LoggersConfig,
):
  """Trains one graph network on eleven properties of QM9's molecules."""

  preset: Literal["quick", "paper"] = "quick"
  """Where the other defaults come from: `quick` ends within minutes on two cores,
  `paper` is the published protocol (300 epochs of all molecules; of the learning rates
  1e-3, 5e-4 and 1e-4 that the paper searches, the first)."""
  balancer: Annotated[str, tyro.conf.arg(help=command_line.balancer_help())] = "igbv1"
  balancer_options: Annotated[
    tuple[str, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(help=command_line.options_help("homo")),
  ] = ()
  out: Path | None = None
  """Folder of the run's files; by default runs/ and a name made of data set, balancer,
  seed and time."""
  epochs: int = 8
  """Number of passes over the training molecules."""
  batch_size: int = 40
  """Molecules in a batch."""
  learning_rate: float = 1e-3
  """Initial learning rate of Adam."""
  plateau_factor: float = 0.7
  """What the learning rate is multiplied by where validation delta_m stalls."""
  plateau_patience: int = 5
  """Epochs without a better validation delta_m that are tolerated before that."""
  min_learning_rate: float = 1e-5
  """Learning rate below which it is not lowered further."""
  train_size: int | None = 6_000
  """Number of training molecules; None for all that are left."""
  validation_size: int = 2_000
  """Number of validation molecules."""
  test_size: int = 10_000
  """Number of test molecules."""
  split_seed: int = 0
  """Seed of the split; apart from `seed`, so that runs are comparable."""
  missing_labels: float = 0.0
  """Share of the training molecules' labels that is left out at random, as a function
  of the split's seed."""
  dim: int = 64
  """Width of the network's node state."""
  size_groups: int = 5
  """Groups of like size in which a batch is padded; more waste less work, and take
  longer to compile."""
  source: Literal["qm9pack", "tfds"] = "qm9pack"
  """Where the molecules come from: the package qm9pack, or the TFDS catalogue's qm9
  for those who have it."""
  molecules: int | None = None
  """Use only the first molecules of the source; None for all 130,831."""
  data_dir: Path | None = None
  """Folder of the prepared data; by default $IGB_JAX_DATA, else the platform's cache
  folder."""


PRESETS = {
  "quick": Config(),
  "paper": Config(
    preset="paper",
    epochs=300,
    batch_size=120,
    train_size=None,
    validation_size=10_000,
  ),
}


def parse_config(arguments: Sequence[str], program: str = PROGRAM) -> Config:
  """Reads the command line; fields that it does not name come from the preset.

  Args:
    arguments: without the program's name.
    program: what was started, as a command line has it.

  Returns:
    The configuration.

  Raises:
    SystemExit: an argument is wrong, or --help was asked for.

  Example:
    >>> parse_config(["--preset=paper", "--seed", "3"]).epochs
    300
  """
  return command_line.parse_config(arguments, PRESETS, default="quick", prog=program)


def check_config(config: Config) -> None:
  """Checks what the other parts of a run do not check by themselves.

  Args:
    config: the configuration.

  Raises:
    ValueError: a number is out of its range; the message names the option.
  """
  at_least = {
    "epochs": 1,
    "train_size": 2,
    "molecules": 1,
    "batch_size": 1,
    "validation_size": 1,
    "test_size": 1,
    "dim": 1,
    "size_groups": 1,
    "seed": 0,
    "split_seed": 0,
    "plateau_patience": 0,
    "max_skips": 1,
  }
  command_line.check_at_least(config, at_least)
  if not 0 <= config.missing_labels < 1:
    raise ValueError(
      f"--missing-labels must be at least 0 and below 1, got {config.missing_labels}."
    )
  command_line.check_plateau(config)


def features_of(net: MPNN, params: Params, batch: MoleculeBatch) -> jax.Array:
  """What the heads read: f32[B, dim].

  Args:
    net: the network.
    params: its parameters.
    batch: the molecules.
  """
  return cast(jax.Array, net.apply({"params": params}, batch.graphs, method="features"))


def losses_of(
  net: MPNN, params: Params, batch: MoleculeBatch, features: jax.Array | None = None
) -> jax.Array:
  """Mean squared error of every task over the molecules of a batch that have its label.

  Args:
    net: the network.
    params: its parameters.
    batch: the molecules, with standardised targets.
    features: what `features_of` returns, if it is known.

  Returns:
    f32[K]; 0 for a task without any label.
  """
  if features is None:
    features = features_of(net, params, batch)
  errors = net.apply({"params": params}, features, method="predict") - batch.targets
  known = batch.mask[:, None] if batch.known is None else batch.known
  return (known * errors**2).sum(axis=0) / jnp.maximum(known.sum(axis=0), 1)


def present_of(batch: MoleculeBatch) -> jax.Array:
  """Which tasks have a label in a batch of which some may be missing: bool[K].

  Args:
    batch: the molecules.
  """
  return (jnp.asarray(batch.known) > 0).any(axis=0)


class QM9Experiment:
  """The data, the net and the balancer of one run, ready to train.

  Implements `igb_jax.training.experiment.Experiment`.
  """

  dataset = "qm9"
  notice = None
  base = "paper"
  averaged_epochs = None
  task_names = qm9.TARGETS
  metrics = tuple(
    Metric(name, qm9.UNITS[name], single_task=error, task=name)
    for name, error in zip(qm9.TARGETS, SINGLE_TASK_ERRORS, strict=True)
  )

  def __init__(self, config: Config):
    """Prepares everything; whatever is wrong with the configuration is raised here.

    Args:
      config: the configuration.

    Raises:
      TypeError, ValueError: an option is wrong.
      FileNotFoundError, OSError: the data cannot be had or stored.
    """
    check_config(config)
    self.config = config
    self.devices = Devices(config.devices, config.mesh)
    self.devices.check_batch_size(config.batch_size)
    self._make_balancer(steps_per_epoch=1)  # wrong names fail before the data loads
    self.data = qm9.load(config.data_dir, config.source, limit=config.molecules)
    self.split = qm9.split(
      len(self.data),
      test_size=config.test_size,
      validation_size=config.validation_size,
      train_size=config.train_size,
      seed=config.split_seed,
    )
    self.groups = graphs.choose_groups(
      self.data.num_atoms[self.split.train],
      config.batch_size,
      num_groups=config.size_groups,
      multiple=self.devices.num_parts,
      largest=int(self.data.num_atoms.max()),
    )
    given = without_labels(
      self.data.targets, config.missing_labels, seed=config.split_seed
    )
    train_targets = given[self.split.train].astype(np.float64)
    lacks_labels = np.isnan(train_targets).any()
    varies = np.fmax.reduce(train_targets) > np.fmin.reduce(train_targets)  # skip NaN
    if not varies.all():
      constant = qm9.TARGETS[int(np.argmin(varies))]
      raise ValueError(
        f"{constant} has one value in all {len(train_targets)} training molecules, so "
        "that it cannot be standardised; take a larger --train-size."
      )
    self.target_mean = np.nanmean(train_targets, axis=0)
    self.target_std = np.nanstd(train_targets, axis=0, ddof=1)
    self.targets, self.train_targets = (
      ((targets - self.target_mean) / self.target_std).astype(np.float32)
      for targets in (self.data.targets, given)
    )
    self.steps_per_epoch = len(self.train_batches(0))

    self.net = MPNN(num_tasks=len(qm9.TARGETS), dim=config.dim)
    self.balancer = self._make_balancer(self.steps_per_epoch)
    self.optimizer = optax.adam(config.learning_rate)
    self.plateau = optax.contrib.reduce_on_plateau(
      factor=config.plateau_factor,
      # optax lowers the rate at the patience-th epoch without progress, PyTorch, whose
      # count is published, after it
      patience=config.plateau_patience + 1,
      rtol=1e-4,
      min_scale=config.min_learning_rate / config.learning_rate,
    )
    at_features = works_at_features(config, config.balancer)
    self.step = make_train_step(
      self.losses_from if at_features else self.losses_of,
      self.balancer,
      self.optimizer,
      trunk=functools.partial(features_of, self.net) if at_features else None,
      keep_task_grads=config.keep_task_grads,
      present_of=present_of if lacks_labels else None,
      max_skips=config.tolerated_skips,
      placement=self.devices.placement,
    )
    self._absolute_errors = jax.jit(
      self._absolute_errors_of, out_shardings=self.devices.whole
    )
    self._init = jax.jit(self.net.init)
    self._judged = judged_metrics(
      self.metrics,
      config.balancer,
      config.balancer_options,
      task_names=self.task_names,
    )
    self.set_seed(config.seed)

  def set_seed(self, seed: int) -> None:
    """Sets what depends on the seed anew.

    Args:
      seed: of the run.
    """
    self.config = dataclasses.replace(self.config, seed=seed)
    params_key, self._balancer_key = jax.random.split(jax.random.key(seed))
    shown = self.train_batches(0)[0].graphs
    self.initial_params = self._init(params_key, shown)["params"]

  def _make_balancer(self, steps_per_epoch: int) -> balancers.Balancer:
    return make_balancer(
      self.config.balancer,
      self.config.balancer_options,
      task_names=self.task_names,
      steps_per_epoch=steps_per_epoch,
    )

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

  def train_batches(self, epoch: int) -> MoleculeBatches:
    """The batches of an epoch, a function of the seed and the epoch."""
    order = shuffled(self.split.train, seed=self.config.seed, epoch=epoch)
    return self._batches(order, self.train_targets)

  def epoch_batches(self, epoch: int, start: int = 0) -> Iterator[MoleculeBatch]:
    """The same from one of them on, made ahead of time and put on the devices."""
    batches = prefetch(self.train_batches(epoch), start=start)
    return map(self.devices.put_batch, batches)

  @property
  def description(self) -> str:
    """How many molecules, and where they come from."""
    return f"{len(self.data)} molecules of QM9 from {self.config.source}"

  def run_facts(self) -> dict[str, Any]:
    """Where the molecules come from."""
    return {"source": self.config.source}

  def plot(self, folder: Path, state: TrainState) -> list[Path]:
    """Nothing beyond what every run plots."""
    del folder, state
    return []

  def close(self) -> None:
    """Nothing: the loader of an epoch ends with it."""

  def epoch_facts(self, epoch: int) -> dict[str, float]:
    """How many batches of the epoch did not fit the size groups."""
    return {"oversized_batches": self.train_batches(epoch).num_oversized}

  def evaluate(
    self, state: TrainState, split: Literal["validation", "test"]
  ) -> Evaluation:
    """Mean absolute errors over a split, in the reported units, and delta_m.

    With "stl" delta_m is that of the task alone.

    Args:
      state: whose parameters are evaluated.
      split: which molecules.
    """
    positions = getattr(self.split, split)
    total = jax.device_put(np.zeros(len(qm9.TARGETS), np.float32), self.devices.whole)
    for batch in prefetch(self._batches(positions, self.targets)):
      total = self._absolute_errors(state.params, self.devices.put_batch(batch), total)
    standardised = np.asarray(jax.device_get(total), np.float64) / len(positions)
    errors = standardised * self.target_std * qm9.REPORT_SCALE
    return Evaluation(
      metrics=dict(zip(qm9.TARGETS, errors.tolist(), strict=True)),
      score=delta_m(errors[self._judged], np.array(SINGLE_TASK_ERRORS)[self._judged]),
    )

  def _batches(self, positions: np.ndarray, targets: np.ndarray) -> MoleculeBatches:
    return MoleculeBatches(
      self.data, positions, targets, self.groups, self.devices.part
    )

  def losses_of(self, params: Params, batch: MoleculeBatch) -> jax.Array:
    """Task losses f32[K] of a batch; see the function of this name."""
    return losses_of(self.net, params, batch)

  def losses_from(
    self, params: Params, features: jax.Array, batch: MoleculeBatch
  ) -> jax.Array:
    """The same from what the heads read."""
    return losses_of(self.net, params, batch, features)

  def _absolute_errors_of(
    self, params: Params, batch: MoleculeBatch, total: jax.Array
  ) -> jax.Array:
    errors = self.net.apply({"params": params}, batch.graphs) - batch.targets
    return total + (batch.mask[:, None] * jnp.abs(errors)).sum(axis=0)


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> None:
  """Runs the experiment that the command line describes, and exits.

  Args:
    arguments: of the command line; None for those of this process.
    program: what was started, as a command line has it.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  config = parse_config(arguments, program)
  run.main(
    lambda: QM9Experiment(config),
    config,
    program=program,
    arguments=arguments,
    join=lambda: initialize(config),
  )


if __name__ == "__main__":
  main()
