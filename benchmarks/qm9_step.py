"""Times a training step on QM9: ours with each balancer, and PyTorch's.

    make bench        or        python -m benchmarks.qm9_step

One process, the same 120 real molecules a batch, float32, all cores. The contenders
take turns in blocks, so that what else the machine does falls on all of them alike;
the first step of each block is not counted. Printed are seconds a step (median, least,
largest) and ratios. PyTorch builds a 64 x 64 matrix for every edge, as torch_geometric
and the published code do.
"""
# pyright: reportMissingImports=false
# torch comes with the extra `bench` alone

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import tyro

from benchmarks import torch_balancers, torch_qm9
from benchmarks.timing import (
  machine,
  measure,
  print_against_ew,
  print_against_pytorch,
  print_seconds,
)
from experiments.molecules import Molecules
from experiments.qm9 import PRESETS, Config, make_problem
from igb_jax import balancers
from igb_jax.data.qm9 import QM9
from igb_jax.data.qm9 import TARGETS as PROPERTIES
from igb_jax.training.experiment import Experiment

BATCH_SIZE = 120
NUM_BATCHES = 8
GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "mpnn.npz"


# method -> the most that ours / PyTorch may be
TARGETS = {"ew": 0.1, "nashmtl": 0.1, "pcgrad": 0.1}
LIMIT = 1.1 * (1 + 2 * len(PROPERTIES)) / 3


@dataclasses.dataclass(frozen=True)
class Options:
  """Times a training step on QM9 against PyTorch."""

  methods: tuple[str, ...] = ("ew", "igbv1", "nashmtl", "pcgrad")
  """Balancers of ours; PyTorch has those of them that it has."""
  blocks: int = 4
  """Times that each contender has its turn."""
  steps: int = 10
  """Counted steps of ours in each block; a fifth of them with a gradient balancer."""
  torch_steps: int = 2
  """Counted steps of PyTorch in each block, 1 with a gradient balancer; none leaves
  PyTorch out."""
  data_dir: Path | None = None
  """Folder of the prepared data, as for the experiment."""


def torch_molecule(data: QM9, targets: np.ndarray, position: int):
  """One molecule as a complete graph, in the form of `torch_qm9`."""
  molecule = data.molecule(position)
  senders, receivers = np.nonzero(~np.eye(len(molecule.nodes), dtype=bool))
  difference = molecule.positions[senders] - molecule.positions[receivers]
  bonds = np.eye(5, dtype=np.float32)[molecule.bonds[receivers, senders]][:, 1:]
  distance = np.linalg.norm(difference, axis=1, keepdims=True).astype(np.float32)
  return (
    molecule.nodes.astype(np.float32),
    np.stack([senders, receivers]).astype(np.int64),
    np.concatenate([bonds, distance], axis=1),
    targets[position],
  )


def our_step(experiment: Experiment[Config]) -> Callable[[], None]:
  """A step of ours on one of a few batches that are on the device already."""
  batches = experiment.problem.batches(0)
  on_device = [jax.device_put(batches[i]) for i in range(NUM_BATCHES)]
  state = experiment.init_state()
  count = 0

  def step() -> None:
    nonlocal state, count
    state = experiment.step(state, on_device[count % NUM_BATCHES])
    count += 1
    jax.block_until_ready(state.params)

  return step


def pytorch_step(experiment: Experiment[Config], method: str) -> Callable[[], None]:
  """A step of PyTorch on the same batches."""
  molecules = Molecules(experiment.config, experiment.devices)
  batches = molecules.train_batches(0, 0).positions[:NUM_BATCHES]
  joined = [
    torch_qm9.batch_from_arrays(
      [torch_molecule(molecules.data, molecules.targets, i) for i in positions]
    )
    for positions in batches
  ]
  net = torch_qm9.TorchMPNN()
  ours = sum(leaf.size for leaf in jax.tree.leaves(experiment.initial_params))
  theirs = sum(parameter.numel() for parameter in net.parameters())
  if ours != theirs:
    raise ValueError(f"the networks differ: ours has {ours} parameters, not {theirs}.")
  step_on = torch_qm9.make_step(net, method)
  count = 0

  def step() -> None:
    nonlocal count
    step_on(joined[count % NUM_BATCHES])
    count += 1

  return step


def main() -> None:
  """Measures and prints the tables."""
  options = tyro.cli(Options, description=__doc__)
  if options.torch_steps:
    torch_qm9.check(GOLDEN)  # it is the same network
  contenders = {}
  for method in options.methods:
    experiment = Experiment(
      make_problem,
      dataclasses.replace(
        PRESETS["paper"],
        balancer=method,
        batch_size=BATCH_SIZE,
        data_dir=options.data_dir,
      ),
    )
    slow = balancers.names()[method] == "gradient"
    steps = max(options.steps // 5, 1) if slow else options.steps
    contenders[f"igb_jax {method}"] = our_step(experiment), steps
    if options.torch_steps and method in torch_balancers.BALANCERS:
      steps = 1 if slow else options.torch_steps
      contenders[f"PyTorch {method}"] = pytorch_step(experiment, method), steps
  seconds = measure(contenders, options.blocks)

  print(f"QM9 step, batch {BATCH_SIZE}, {jax.devices()[0].device_kind}; {machine()}\n")
  print_seconds(seconds)
  print_against_pytorch(seconds, TARGETS)
  print_against_ew(seconds, LIMIT)


if __name__ == "__main__":
  main()
