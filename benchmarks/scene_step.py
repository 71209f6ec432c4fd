"""Times a training step of SegNet: ours with each balancer, and PyTorch's.

    python -m benchmarks.scene_step

One process, the same augmented batches of generated rooms, float32, all cores. The
contenders take turns in blocks, so that what else the machine does falls on all of
them alike; the first step of each block is not counted. Printed are seconds a step
(median, least, largest), what XLA compiles and reserves for ours, and ratios.

A backward pass costs about twice a forward pass, so that K of them after one forward
pass cost (1 + 2 K) / 3 steps of ew: 2.33; the limit printed is 1.1 times that. PyTorch
solves for Nash-MTL's weights with a few Newton steps, as we do; the published code
solves 20 convex problems for them.
"""
# pyright: reportMissingImports=false
# torch comes with the extra `bench` alone

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import tyro

from benchmarks import torch_balancers, torch_segnet
from benchmarks.timing import (
  machine,
  measure,
  print_against_ew,
  print_against_pytorch,
  print_seconds,
)
from experiments.nyuv2 import PRESETS, Config, make_problem
from igb_jax.data.scene_batches import SceneBatch
from igb_jax.nets import segnet
from igb_jax.training.balancing import make_balancer
from igb_jax.training.experiment import Experiment
from igb_jax.training.step import init_state, make_train_step

GOLDEN = Path(__file__).parents[1] / "tests" / "golden" / "segnet.npz"
NUM_BATCHES = 4
LIMIT = 1.1 * (1 + 2 * torch_segnet.NUM_TASKS) / 3
# method -> the most that ours / PyTorch may be
TARGETS = {"ew": 1.0, "nashmtl": 0.7, "pcgrad": 0.8}


@dataclasses.dataclass(frozen=True)
class Options:
  """Times a training step of SegNet against PyTorch."""

  methods: tuple[str, ...] = ("ew", "nashmtl", "pcgrad", "igbv1")
  """Balancers of ours; PyTorch has those of them that it has."""
  blocks: int = 4
  """Times that each contender has its turn."""
  steps: int = 3
  """Counted steps of ours in each block."""
  torch_steps: int = 3
  """Counted steps of PyTorch in each block; none leaves PyTorch out."""
  width: float = 1.0
  """Factor on the network's numbers of channels."""
  resolution: tuple[int, int] = (288, 384)
  """Height and width of the scenes, multiples of 32."""
  batch_size: int = 2
  """Scenes in a batch."""
  channels_last: bool = False
  """Whether PyTorch gets its images with the channels last, not as published."""


class Compilation(NamedTuple):
  """What a step of ours costs apart from its time.

  Attributes:
    seconds: to trace and compile it.
    temporary: bytes that XLA reserves beside arguments and results.
  """

  seconds: float
  temporary: int


def make_experiment(options: Options) -> Experiment[Config]:
  """The experiment at the paper's size, unless options say otherwise, on few rooms."""
  return Experiment(
    make_problem,
    dataclasses.replace(
      PRESETS["paper"],
      balancer="ew",
      batch_size=options.batch_size,
      width=options.width,
      resolution=options.resolution,
      rooms=(NUM_BATCHES * options.batch_size, 1, 1),
      workers=0,
    ),
  )


def our_step(
  experiment: Experiment[Config], method: str, batches: Sequence[SceneBatch]
) -> tuple[Callable[[], None], Compilation]:
  """A step of ours.

  Args:
    experiment: whose network, initial parameters and optimiser are used; an experiment
      for each method would compile its own initialisation.
    method: the balancer.
    batches: on the device.

  Returns:
    The step, and what its compilation cost.
  """
  balancer = make_balancer(
    method,
    (),
    task_names=experiment.problem.task_names,
    steps_per_epoch=experiment.problem.steps_per_epoch,
  )
  state = init_state(
    experiment.initial_params,
    variables=experiment.initial_variables,
    balancer=balancer,
    optimizer=experiment.optimizer,
    key=jax.random.key(0),
  )
  jitted: Any = make_train_step(
    experiment.problem.losses_of, balancer, experiment.optimizer, stateful=True
  )
  start = time.perf_counter()
  compiled = jitted.lower(state, batches[0]).compile()
  seconds = time.perf_counter() - start
  count = 0

  def step() -> None:
    nonlocal state, count
    state = compiled(state, batches[count % len(batches)])
    count += 1
    jax.block_until_ready(state)

  temporary = compiled.memory_analysis().temp_size_in_bytes
  return step, Compilation(seconds, temporary)


def torch_batch(batch: SceneBatch, channels_last: bool) -> torch_segnet.SceneTensors:
  """A batch in the form of `torch_segnet`.

  Args:
    batch: scenes.
    channels_last: how the image, and with it all features, lie in memory.
  """
  image, normal = (
    torch.from_numpy(np.ascontiguousarray(array.transpose(0, 3, 1, 2)))
    for array in (batch.image, batch.normal)
  )
  if channels_last:
    image = image.contiguous(memory_format=torch.channels_last)
  return torch_segnet.SceneTensors(
    image=image,
    label=torch.from_numpy(batch.label.astype(np.int64)),
    depth=torch.from_numpy(batch.depth),
    normal=normal,
  )


def pytorch_step(
  width: float, method: str, batches: Sequence[torch_segnet.SceneTensors]
) -> Callable[[], None]:
  """A step of PyTorch on the same batches.

  Args:
    width: factor on the network's numbers of channels.
    method: one of `torch_balancers.BALANCERS`.
    batches: as `torch_batch` gives them.
  """
  torch.manual_seed(0)
  net = torch_segnet.TorchSegNet(segnet.filters(width))
  step_on = torch_segnet.make_step(net, method)
  count = 0

  def step() -> None:
    nonlocal count
    step_on(batches[count % len(batches)])
    count += 1

  return step


def report(
  seconds: dict[str, np.ndarray], compilations: dict[str, Compilation]
) -> None:
  """Prints the tables.

  Args:
    seconds: of every counted step, by `igb_jax METHOD` and `PyTorch METHOD`.
    compilations: of ours, by method.
  """
  print_seconds(seconds)
  print("\n| igb_jax | compilation s | temporary MB |\n|---|---|---|")
  for method, compilation in compilations.items():
    print(
      f"| {method} | {compilation.seconds:.1f} | {compilation.temporary / 1e6:.0f} |"
    )

  print_against_pytorch(seconds, TARGETS)
  print_against_ew(seconds, LIMIT)


def main() -> None:
  """Measures and prints the tables."""
  options = tyro.cli(Options, description=__doc__)
  if options.torch_steps:
    torch_segnet.check(GOLDEN)  # it is the same network
  experiment = make_experiment(options)
  batches = jax.device_get(list(experiment.epoch_batches(0)))
  experiment.close()
  on_device = [jax.device_put(batch) for batch in batches]
  for_torch = [torch_batch(batch, options.channels_last) for batch in batches]

  contenders: dict[str, tuple[Callable[[], None], int]] = {}
  compilations: dict[str, Compilation] = {}
  for method in options.methods:
    step, compilations[method] = our_step(experiment, method, on_device)
    contenders[f"igb_jax {method}"] = step, options.steps
    if options.torch_steps and method in torch_balancers.BALANCERS:
      theirs = pytorch_step(options.width, method, for_torch)
      contenders[f"PyTorch {method}"] = theirs, options.torch_steps
  seconds = measure(contenders, options.blocks)

  height, width = options.resolution
  print(
    f"SegNet step, width {options.width:g}, batch {options.batch_size}, {height} x "
    f"{width}, {jax.devices()[0].device_kind}; PyTorch with {torch.get_num_threads()} "
    f"threads, channels {'last' if options.channels_last else 'first'}; {machine()}\n"
  )
  report(seconds, compilations)


if __name__ == "__main__":
  main()
