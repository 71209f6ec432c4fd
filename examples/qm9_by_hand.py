"""Eleven properties of QM9's molecules with one network, in one file to fork.

    python examples/qm9_by_hand.py --molecules 9000 --epochs 8

What `python -m experiments.qm9` trains with is here in the open: data, batches, net,
balancer, step and evaluation; `--out` saves the best parameters. That experiment adds
what a long run needs: it can be killed and resumed, it skips bad steps, uses many
devices, lowers the learning rate on a plateau, leaves out missing labels, and takes
methods that need options, features or a second look at the losses.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from igb_jax import balancers, value_and_balanced_grad
from igb_jax.data import graphs, qm9
from igb_jax.data.molecule_batches import MoleculeBatch, MoleculeBatches, shuffled
from igb_jax.metrics import delta_m
from igb_jax.nets.mpnn import MPNN

NUM_TASKS = len(qm9.TARGETS)
# Test errors of single-task networks, which delta_m is relative to, as the published
# code has them; Table 2 of Dai et al., UAI 2023, rounds them.
SINGLE_TASK_ERRORS = np.array(
  (
    *(0.0671, 0.1814, 60.576, 53.915, 0.5027, 4.539),
    *(58.838, 64.244, 63.852, 66.223, 0.07212),
  )
)


class Data(NamedTuple):
  """Molecules with standardised targets.

  Attributes:
    molecules: all of them.
    split: which of them are for training, validation and testing.
    targets: f32[M, K], standardised by the training molecules.
    std: f64[K], by which they were divided.
    groups: the fixed shapes of a batch.
  """

  molecules: qm9.QM9
  split: qm9.Split
  targets: np.ndarray
  std: np.ndarray
  groups: graphs.SizeGroups

  def batches(self, positions: np.ndarray) -> Iterator[MoleculeBatch]:
    """One pass over some of the molecules, in their order."""
    source = MoleculeBatches(self.molecules, positions, self.targets, self.groups)
    return (source[index] for index in range(len(source)))


def load(
  data_dir: Path | None = None,
  *,
  molecules: int | None = None,
  validation_size: int = 2_000,
  test_size: int = 2_000,
  batch_size: int = 10,
  num_groups: int = 5,
) -> Data:
  """Loads, splits and standardises the molecules.

  Args:
    data_dir: where the prepared molecules are kept; by default a cache folder.
    molecules: use only the first ones; None for all.
    validation_size: number of validation molecules.
    test_size: number of test molecules.
    batch_size: B.
    num_groups: groups of like size in which a batch is padded.
  """
  data = qm9.load(data_dir, limit=molecules)
  split = qm9.split(len(data), test_size=test_size, validation_size=validation_size)
  train = data.targets[split.train].astype(np.float64)
  mean, std = train.mean(axis=0), train.std(axis=0, ddof=1)
  groups = graphs.choose_groups(
    data.num_atoms[split.train],
    batch_size,
    num_groups=num_groups,
    largest=int(data.num_atoms.max()),
  )
  targets = ((data.targets - mean) / std).astype(np.float32)
  return Data(data, split, targets, std, groups)


def train(
  data: Data,
  *,
  epochs: int,
  balancer_name: str = "igbv1",
  schedule: optax.Schedule | None = None,
  dim: int = 64,
  edge_dim: int = 32,
  seed: int = 0,
  out: Path | None = None,
) -> list[np.ndarray]:
  """Trains, and prints validation delta_m after every epoch.

  Args:
    data: the molecules.
    epochs: passes over the training molecules.
    balancer_name: one of `igb_jax.balancers.names()` that needs no option, or two as
      loss+gradient.
    schedule: number of steps -> learning rate; by default a cosine from 4e-3 to 0.
    dim: width of the network's node state.
    edge_dim: width of its edge state.
    seed: of the initial parameters, the order of the batches and the balancer.
    out: where the parameters of the best epoch are saved; None for nowhere.

  Returns:
    The task losses f32[K] of every step.
  """
  steps_per_epoch = len(list(data.batches(data.split.train)))
  schedule = schedule or optax.cosine_decay_schedule(4e-3, epochs * steps_per_epoch)
  net = MPNN(num_tasks=NUM_TASKS, dim=dim, edge_dim=edge_dim)
  params_key, balancer_key = jax.random.split(jax.random.key(seed))
  example = next(data.batches(data.split.train))
  params = jax.jit(net.init)(params_key, example.graphs)["params"]

  def losses_of(params: Any, batch: MoleculeBatch) -> jax.Array:
    errors = net.apply({"params": params}, batch.graphs) - batch.targets
    return (batch.mask[:, None] * errors**2).sum(axis=0) / batch.mask.sum()

  balancer = balancers.create(
    balancer_name,
    num_tasks=NUM_TASKS,
    steps_per_epoch=steps_per_epoch,
    shared={"shared": True, "heads": False},  # at the top level of the parameters
  )
  balanced = value_and_balanced_grad(losses_of, balancer)
  optimizer = optax.adam(schedule)

  @jax.jit
  def step(params, opt_state, state, batch, count):
    ratio = schedule(0) / schedule(count)  # which igbv2 alone reads
    losses, gradient, state = balanced(
      params, batch, state=state, learning_rate_ratio=ratio
    )
    updates, opt_state = optimizer.update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, state, losses

  @jax.jit
  def absolute_errors(params, batch):
    errors = net.apply({"params": params}, batch.graphs) - batch.targets
    return (batch.mask[:, None] * jnp.abs(errors)).sum(axis=0)

  def errors_on(params: Any, positions: np.ndarray) -> np.ndarray:
    """Mean absolute errors f64[K], in the units of `qm9.UNITS`."""
    total = sum(np.asarray(absolute_errors(params, b)) for b in data.batches(positions))
    return total / len(positions) * data.std * qm9.REPORT_SCALE

  opt_state, state = optimizer.init(params), balancer.init(params, balancer_key)
  history, best, best_params = [], np.inf, params
  for epoch in range(epochs):
    for batch in data.batches(shuffled(data.split.train, seed=seed, epoch=epoch)):
      params, opt_state, state, losses = step(
        params, opt_state, state, batch, len(history)
      )
      history.append(losses)
    score = delta_m(errors_on(params, data.split.validation), SINGLE_TASK_ERRORS)
    print(f"epoch {epoch + 1}/{epochs}: validation delta_m {score:.1f}%")
    if score < best:
      best, best_params = score, params
  errors = errors_on(best_params, data.split.test)
  print(f"test delta_m {delta_m(errors, SINGLE_TASK_ERRORS):.1f}%")
  for name, error in zip(qm9.TARGETS, errors, strict=True):
    print(f"  {name} {error:.4g} {qm9.UNITS[name]}")
  if out is not None:
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(out.absolute(), best_params)
  return history


def main() -> None:
  """Trains as the command line says."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--balancer", default="igbv1")
  parser.add_argument("--epochs", type=int, default=8)
  parser.add_argument("--molecules", type=int)
  parser.add_argument("--out", type=Path)
  options = parser.parse_args()
  data = load(molecules=options.molecules)
  train(data, epochs=options.epochs, balancer_name=options.balancer, out=options.out)


if __name__ == "__main__":
  main()
