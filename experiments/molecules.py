"""The molecules of a QM9 run: loaded, split, standardised, and in batches."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.data import graphs, qm9
from igb_jax.data.molecule_batches import (
  MoleculeBatch,
  MoleculeBatches,
  shuffled,
  without_labels,
)
from igb_jax.training.devices import Devices


class Molecules:
  """The molecules of a run, split and standardised.

  Attributes:
    data: all of them.
    split: which of them are for training, validation and testing.
    groups: shapes of a batch.
    std: f64[K], by which the targets were divided.
    targets: f32[M, K], standardised.
    train_targets: the same, NaN where a label is left out.
    lacks_labels: whether one is.
  """

  def __init__(self, config: Any, devices: Devices):
    """Loads, splits and standardises them.

    Args:
      config: the configuration of the run, with the options of `experiments.qm9`.
      devices: the devices of the run.

    Raises:
      ValueError: a size does not fit, or a target does not vary.
      FileNotFoundError, OSError: the data cannot be obtained or stored.
    """
    self.data = qm9.load(config.data_dir, config.source, limit=config.molecules)
    self.split = qm9.split(
      len(self.data),
      test_size=config.test_size,
      validation_size=config.validation_size,
      train_size=config.train_size,
      seed=config.split_seed,
    )
    self._part = devices.part
    self.groups = graphs.choose_groups(
      self.data.num_atoms[self.split.train],
      config.batch_size,
      num_groups=config.size_groups,
      multiple=devices.num_parts,
      largest=int(self.data.num_atoms.max()),
    )
    given = without_labels(
      self.data.targets, config.missing_labels, seed=config.split_seed
    )
    train_targets = given[self.split.train].astype(np.float64)
    self.lacks_labels = bool(np.isnan(train_targets).any())
    varies = np.fmax.reduce(train_targets) > np.fmin.reduce(train_targets)  # skip NaN
    if not varies.all():
      constant = qm9.TARGETS[int(np.argmin(varies))]
      raise ValueError(
        f"{constant} has one value in all {len(train_targets)} training molecules, so "
        "that it cannot be standardised; take a larger --train-size."
      )
    mean = np.nanmean(train_targets, axis=0)
    self.std = np.nanstd(train_targets, axis=0, ddof=1)
    self.targets, self.train_targets = (
      ((targets - mean) / self.std).astype(np.float32)
      for targets in (self.data.targets, given)
    )

  def batches(self, positions: np.ndarray, targets: np.ndarray) -> MoleculeBatches:
    """One pass over some of them.

    Args:
      positions: i64[N], which.
      targets: `targets` or `train_targets`.
    """
    return MoleculeBatches(self.data, positions, targets, self.groups, self._part)

  def train_batches(self, seed: int, epoch: int) -> MoleculeBatches:
    """The batches of an epoch, a function of the seed and the epoch."""
    order = shuffled(self.split.train, seed=seed, epoch=epoch)
    return self.batches(order, self.train_targets)


def present_of(batch: MoleculeBatch) -> jax.Array:
  """Which tasks have a label in a batch of which some may be missing: bool[K]."""
  return (jnp.asarray(batch.known) > 0).any(axis=0)


def sums_of_errors(predictions: jax.Array, batch: MoleculeBatch) -> jax.Array:
  """Sums over the molecules of a batch, f32[4, K], of standardised numbers.

  They are of the errors by size, of their squares, and of both for a prediction of the
  training mean, which is 0.

  Args:
    predictions: f32[B, K].
    batch: the molecules.
  """
  errors = predictions - batch.targets
  pairs = [(jnp.abs(each), each**2) for each in (errors, batch.targets)]
  terms = jnp.stack([term for pair in pairs for term in pair])
  return (batch.mask[:, None] * terms).sum(axis=1)
