"""What gradient balancing costs: the QM9 step, its memory, and the solvers alone.

    python -m benchmarks.gradient_balancers

Three parts in one process, float32, all cores:

1. the whole training step on QM9 (batch 120, K = 11) with each gradient balancer, at
   all shared parameters, at one late layer or at the features, as a ratio to ew. A
   backward pass costs about twice a forward pass, so that K of them after one forward
   pass cost (1 + 2 K) / 3 steps: 7.67. Methods take turns; a ratio is that of a turn's
   mean to the mean of ew's turns beside it;
2. bytes that XLA reserves for those steps and for the task gradients, by how many tasks
   are taken at a time, beside `jax.jacrev`;
3. the solvers against the libraries that they replace, see `benchmarks.solvers`.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

from benchmarks.timing import machine
from experiments.qm9 import PRESETS, Config, make_problem
from igb_jax import balancers, value_and_task_grads
from igb_jax.data.qm9 import TARGETS
from igb_jax.training.experiment import Experiment
from igb_jax.training.step import make_train_step

NUM_TASKS = len(TARGETS)
LIMIT = (1 + 2 * NUM_TASKS) / 3
NUM_BATCHES = 5
LATE_LAYER = "set2set"  # the last that the tasks share


class Contender(NamedTuple):
  """One form of gradient balancing.

  Attributes:
    spec: of the balancer.
    steps: in a turn.
    options: of the balancer.
    at: where task gradients meet: all shared parameters, those of one late layer, or
      the features that the heads read.
    keeps: whether the task gradients exist together.
  """

  spec: str
  steps: int = 2
  options: tuple[str, ...] = ()
  at: Literal["parameters", "late layer", "features"] = "parameters"
  keeps: bool = True


CONTENDERS = {
  "ew": Contender("ew", 5),
  **{
    name: Contender(name) for name in ("mgda", "pcgrad", "cagrad", "imtlg", "nashmtl")
  },
  "nashmtl, update_every=10": Contender("nashmtl", 10, ("update_every=10",)),
  "nashmtl, keep_task_grads=False": Contender("nashmtl", keeps=False),
  "nashmtl, one late layer": Contender("nashmtl", 5, at="late layer"),
  "nashmtl, features": Contender("nashmtl", 5, at="features"),
  "nashmtl, features, update_every=10": Contender(
    "nashmtl", 10, ("update_every=10",), at="features"
  ),
  "igbv1+nashmtl": Contender("igbv1+nashmtl"),
}


@dataclasses.dataclass(frozen=True)
class Options:
  """Measures what gradient balancing costs."""

  turns: int = 5
  """Turns of each method in the first part."""
  solvers: bool = True
  """Whether to run the third part, which needs the extra `bench`."""
  data_dir: Path | None = None
  """Folder of the prepared data, as for the experiment."""


def make_experiment(contender: Contender, data_dir: Path | None) -> Experiment[Config]:
  """The QM9 experiment at the size of the paper."""
  experiment = Experiment(
    make_problem,
    dataclasses.replace(
      PRESETS["paper"],
      balancer=contender.spec,
      balancer_options=contender.options,
      balance_at="features" if contender.at == "features" else "parameters",
      keep_task_grads=contender.keeps,
      data_dir=data_dir,
    ),
  )
  if contender.at == "late layer":
    balancer = balancers.create(
      contender.spec, num_tasks=NUM_TASKS, shared=lambda path: LATE_LAYER in str(path)
    )
    experiment.balancer = balancer._replace(loss=balancers.equal(NUM_TASKS))
    experiment.step = make_train_step(
      experiment.problem.losses_of, experiment.balancer, experiment.optimizer
    )
  return experiment


def make_turn(
  experiment: Experiment[Config], count: int
) -> tuple[Callable[[], float], dict[str, float]]:
  """A turn of some steps, which returns their mean seconds; and bytes of the step."""
  batches = experiment.problem.batches(0)
  on_device = [jax.device_put(batches[i]) for i in range(NUM_BATCHES)]
  state = experiment.init_state()
  start = time.perf_counter()
  step: Any = experiment.step
  compiled = step.lower(state, on_device[0]).compile()
  seconds = time.perf_counter() - start
  memory = compiled.memory_analysis()

  def turn() -> float:
    nonlocal state
    start = time.perf_counter()
    for index in range(count):
      state = compiled(state, on_device[index % NUM_BATCHES])
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / count

  facts = {"temporary": memory.temp_size_in_bytes, "compilation": seconds}
  return turn, facts


def print_steps(options: Options, contenders: dict[str, Contender]) -> None:
  """The first part, and what the second says of the steps; "ew" is one of them."""
  turns, facts = {}, {}
  for name, contender in contenders.items():
    experiment = make_experiment(contender, options.data_dir)
    turns[name], facts[name] = make_turn(experiment, contender.steps)
  others = [name for name in contenders if name != "ew"]
  seconds: dict[str, list[float]] = {name: [] for name in contenders}
  ratios: dict[str, list[float]] = {name: [] for name in others}
  for turn in turns.values():
    turn()  # what is allocated for the first time
  for _ in range(options.turns):
    before = turns["ew"]()
    for name in others:
      value = turns[name]()
      after = turns["ew"]()
      ratios[name].append(2 * value / (before + after))
      seconds[name].append(value)
      seconds["ew"].append(after)
      before = after
  print(f"QM9 step, batch 120, K = {NUM_TASKS}; limit of the ratio {LIMIT:.2f}\n")
  print(
    "| balancer | median s | min s | max s | / ew, median [min, max] | / limit "
    "| temporary MB | compilation s |\n|---|---|---|---|---|---|---|---|"
  )
  for name, values in seconds.items():
    ratio = np.array(ratios.get(name, [1.0]))
    limit = f"{np.median(ratio) / LIMIT:.2f}" if name in ratios else ""
    print(
      f"| {name} | {np.median(values):.3f} | {min(values):.3f} | {max(values):.3f} "
      f"| {np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}] | {limit} "
      f"| {facts[name]['temporary'] / 1e6:.0f} | {facts[name]['compilation']:.1f} |"
    )


def print_memory(options: Options) -> None:
  """Bytes of the task gradients alone."""
  experiment = make_experiment(CONTENDERS["ew"], options.data_dir)
  batch = jax.device_put(experiment.problem.batches(0)[0])
  params = experiment.initial_params
  copy = sum(leaf.nbytes for leaf in jax.tree.leaves(params))

  losses = experiment.problem.losses_of
  functions: dict[str, Callable[[Any], Any]] = {
    "gradient of the sum": jax.grad(lambda params, batch: losses(params, batch).sum()),
    **{
      f"value_and_task_grads, batch_size={size}": value_and_task_grads(
        losses, batch_size=size
      )
      for size in (1, 4, NUM_TASKS)
    },
    "jax.jacrev": jax.jacrev(losses),
  }
  print(f"\nTask gradients; one copy of the parameters is {copy / 1e6:.1f} MB\n")
  print("| function | temporary MB | output MB |\n|---|---|---|")
  for name, function in functions.items():
    memory: Any = jax.jit(function).lower(params, batch).compile().memory_analysis()
    print(
      f"| {name} | {memory.temp_size_in_bytes / 1e6:.0f} "
      f"| {memory.output_size_in_bytes / 1e6:.1f} |"
    )


def main() -> None:
  """Measures and prints the tables."""
  options = tyro.cli(Options, description=__doc__)
  print(f"{jax.devices()[0].device_kind}; {machine()}\n")
  print_steps(options, CONTENDERS)
  print_memory(options)
  if options.solvers:
    from benchmarks import solvers  # which needs more packages

    print()
    solvers.report(solvers.Options())


if __name__ == "__main__":
  main()
