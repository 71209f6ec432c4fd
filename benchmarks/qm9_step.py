"""Times a training step on QM9: ours with EW and IGBv1, and PyTorch's with EW.

    make bench        or        python -m benchmarks.qm9_step

One process, the same 120 real molecules a batch, float32, all cores. The contenders
take turns in blocks, so that what else the machine does falls on all of them alike;
the first step of each block is not counted. Printed are seconds a step (median, least,
largest) and ratios of medians.
"""
# pyright: reportMissingImports=false
# torch comes with the extra `bench` alone

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import tyro

from benchmarks import torch_qm9
from benchmarks.timing import machine, measure, print_seconds
from experiments.qm9 import Config, QM9Experiment
from igb_jax.data.qm9 import QM9

BATCH_SIZE = 120
NUM_BATCHES = 8
GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "mpnn.npz"


@dataclasses.dataclass(frozen=True)
class Options:
  """Times a training step on QM9 against PyTorch."""

  blocks: int = 4
  """Times that each contender has its turn."""
  steps: int = 10
  """Counted steps of ours in each block."""
  torch_steps: int = 2
  """Counted steps of PyTorch in each block; none leaves PyTorch out."""
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


def our_step(experiment: QM9Experiment) -> Callable[[], None]:
  """A step of ours on one of a few batches that are on the device already."""
  batches = experiment.train_batches(0)
  on_device = [jax.device_put(batches[i]) for i in range(NUM_BATCHES)]
  state = experiment.init_state()
  count = 0

  def step() -> None:
    nonlocal state, count
    state = experiment.step(state, on_device[count % NUM_BATCHES])
    count += 1
    jax.block_until_ready(state.params)

  return step


def pytorch_step(experiment: QM9Experiment) -> Callable[[], None]:
  """A step of PyTorch on the same batches."""
  batches = experiment.train_batches(0).positions[:NUM_BATCHES]
  joined = [
    torch_qm9.batch_from_arrays(
      [torch_molecule(experiment.data, experiment.targets, i) for i in positions]
    )
    for positions in batches
  ]
  step_on = torch_qm9.make_step(torch_qm9.TorchMPNN())
  count = 0

  def step() -> None:
    nonlocal count
    step_on(joined[count % NUM_BATCHES])
    count += 1

  return step


def main() -> None:
  """Measures and prints the table."""
  options = tyro.cli(Options, description=__doc__)
  if options.torch_steps:
    torch_qm9.check(GOLDEN)  # it is the same network
  experiments = {
    name: QM9Experiment(
      Config(
        preset="paper",
        balancer=name,
        batch_size=BATCH_SIZE,
        train_size=None,
        data_dir=options.data_dir,
      )
    )
    for name in ("ew", "igbv1")
  }
  contenders = {
    f"igb_jax {name}": (our_step(experiment), options.steps)
    for name, experiment in experiments.items()
  }
  if options.torch_steps:
    contenders["PyTorch ew"] = pytorch_step(experiments["ew"]), options.torch_steps
  seconds = measure(contenders, options.blocks)

  print(f"QM9 step, batch {BATCH_SIZE}, {jax.devices()[0].device_kind}; {machine()}\n")
  print_seconds(seconds)
  ours, igbv1 = seconds["igb_jax ew"], seconds["igb_jax igbv1"]
  print(f"\nigbv1 / ew: {np.median(igbv1) / np.median(ours):.3f} (medians), ", end="")
  print(f"{igbv1.min() / ours.min():.3f} (minima)")
  if options.torch_steps:
    theirs = seconds["PyTorch ew"]
    print(f"PyTorch / ours, ew: {np.median(theirs) / np.median(ours):.1f} ", end="")
    print(f"(medians), {theirs.min() / ours.min():.1f} (minima)")


if __name__ == "__main__":
  main()
