"""A sanity check: the network learns eight real scenes by heart.

    python -m benchmarks.overfits_scenes --data-dir DIR

Trains on the first eight training images without augmentation, and prints the metrics
on those very images, with their own batch statistics and with the running ones. Exits
with 1 unless both reach a pixel accuracy of 90 %.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.nyuv2 import NETS, Config, make_problem
from igb_jax import scene_tasks
from igb_jax.training.experiment import Experiment

NUM_SCENES = 8
ACCURACY = 90.0  # percent


@dataclasses.dataclass(frozen=True)
class Options:
  """Trains on eight scenes until they are learnt."""

  data_dir: Path
  """NYUv2, in one of the formats of the experiment."""
  cache_dir: Path | None = None
  """Folder of what is prepared from it."""
  steps: int = 300
  """Training steps on all eight scenes."""
  balancer: str = "ew"
  """Specification of the balancer."""


def main() -> None:
  """Trains, and prints the metrics as they rise."""
  options = tyro.cli(Options, description=__doc__)
  experiment = Experiment(
    make_problem,
    Config(
      data_dir=options.data_dir,
      cache_dir=options.cache_dir,
      limit=NUM_SCENES,
      batch_size=NUM_SCENES,
      epochs=options.steps,
      balancer=options.balancer,
      augment=False,
    ),
  )
  state = experiment.init_state()
  (batch,) = experiment.epoch_batches(0)
  batch = jax.device_put(batch)
  net = NETS[experiment.config.model](width=experiment.config.width)
  everything = jnp.ones(NUM_SCENES, bool)

  @jax.jit
  def metrics_of(state, batch):
    leaves = {"params": state.params, **state.variables}
    own, _ = net.apply(leaves, batch.image, train=True, mutable=["batch_stats"])
    running = net.apply(leaves, batch.image, train=False)
    zero = scene_tasks.SceneMetrics.zeros()
    return zero.plus(own, batch, everything), zero.plus(running, batch, everything)

  accuracies = []
  for step in range(1, options.steps + 1):
    state = experiment.step(state, batch)
    if step % 50 == 0 or step == options.steps:
      own, running = (total.compute() for total in metrics_of(state, batch))
      losses = np.round(np.asarray(state.sums.losses / state.sums.steps), 3)
      state = state._replace(sums=optax.tree.zeros_like(state.sums))
      print(f"step {step}: mean losses of the last steps {losses}")
      accuracies = [metrics["pixel_accuracy"] for metrics in (own, running)]
      for name, metrics in (("own statistics", own), ("running", running)):
        text = ", ".join(f"{key} {value:.3g}" for key, value in metrics.items())
        print(f"  {name}: {text}")
  if min(accuracies) < ACCURACY:
    sys.exit(f"the pixel accuracy is below {ACCURACY:g} %")


if __name__ == "__main__":
  main()
