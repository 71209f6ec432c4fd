"""What gradient balancing costs on SegNet, by where the task gradients meet.

    python -m benchmarks.scene_forms

The training step on generated rooms at the paper's size (batch 2, 288 x 384, K = 3),
with Nash-MTL at the parameters of the last block that the tasks share, and at the
features; `benchmarks.scene_step` has it at all parameters. Steps take turns with those
of ew.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.timing import machine, measure
from experiments.nyuv2 import PRESETS, Config, make_problem
from igb_jax import balancers
from igb_jax.training.experiment import Experiment
from igb_jax.training.step import init_state, make_train_step

NUM_TASKS, NUM_BATCHES = 3, 4
BLOCKS, COUNT = 5, 1


def make_experiment() -> Experiment[Config]:
  """The experiment of the paper on few rooms."""
  preset = dataclasses.replace(PRESETS["paper"], balancer="ew")
  rooms = (NUM_BATCHES * preset.batch_size, 1, 1)
  return Experiment(make_problem, dataclasses.replace(preset, rooms=rooms, workers=0))


def make_step(
  experiment: Experiment[Config], spec: str, shared: Any, at_features: bool
) -> tuple[Callable[[], Any], float]:
  """A step, and the megabytes of temporary memory that it takes."""
  balancer = balancers.create(spec, num_tasks=NUM_TASKS, shared=shared)
  if balancer.loss is None:
    balancer = balancer._replace(loss=balancers.equal(NUM_TASKS))
  state = init_state(
    experiment.initial_params,
    variables=experiment.initial_variables,
    balancer=balancer,
    optimizer=experiment.optimizer,
    key=jax.random.key(0),
  )
  jitted: Any = make_train_step(
    experiment.problem.losses if at_features else experiment.problem.losses_of,
    balancer,
    experiment.optimizer,
    trunk=experiment.problem.trunk if at_features else None,
    stateful=True,
  )
  batches = jax.device_put(jax.device_get(list(experiment.epoch_batches(0))))
  compiled = jitted.lower(state, batches[0]).compile()
  memory = compiled.memory_analysis().temp_size_in_bytes / 1e6
  count = 0

  def step() -> None:
    nonlocal state, count
    state = compiled(state, batches[count % len(batches)])
    count += 1
    jax.block_until_ready(state)

  return step, memory


def print_forms() -> None:
  """The table."""
  experiment = make_experiment()
  every = {"shared": True, "heads": False}
  forms = {
    "ew": ("ew", every, False),
    "nashmtl, one late layer": ("nashmtl", is_late, False),
    "nashmtl, features": ("nashmtl", every, True),
  }
  made = {name: make_step(experiment, *form) for name, form in forms.items()}
  times = measure({name: (step, COUNT) for name, (step, _) in made.items()}, BLOCKS)
  print("| form | / ew, median [min, max] | temporary MB |\n|---|---|---|")
  for name, (_, memory) in made.items():
    ratio = times[name] / np.median(times["ew"])
    print(
      f"| {name} | {np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}] "
      f"| {memory:.0f} |"
    )


def is_late(path: Any) -> bool:
  """Whether a parameter is of the last block that the tasks share."""
  return "decoder_block_0" in jax.tree_util.keystr(path)


if __name__ == "__main__":
  print(machine())
  print_forms()
