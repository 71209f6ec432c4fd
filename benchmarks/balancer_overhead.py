"""What loss balancing costs: each update alone, the QM9 step, and many tasks.

    python -m benchmarks.balancer_overhead

Three measurements in one process, float32, all cores:

1. each loss balancer's update at K = 11, amortised over 1,000 steps in one scan;
2. the whole QM9 step (batch 120) against ew, in turns, IGBv2 with its agent at work;
3. igbv1 and igbv2 for K from 2 to 1,000: time of an update, amortised likewise, and
   bytes of the state.

IGBv2 is measured with a full buffer and its agent learning, 50 updates on 256
transitions every 50 steps: the most that it ever does.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from benchmarks.timing import machine
from experiments.qm9 import PRESETS, make_problem
from igb_jax import balancers
from igb_jax.training.experiment import Experiment
from igb_jax.training.step import init_state, make_train_step

NUM_STEPS = 1000
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "balancer_overhead.png"
TASK_COUNTS = (2, 11, 40, 100, 300, 1000)


@dataclasses.dataclass(frozen=True)
class Options:
  """Measures what loss balancing costs."""

  figure: Path = FIGURE
  """Where the figure of the third measurement goes, a PNG."""
  repeats: int = 5
  """Counted repeats of the first and third measurement."""
  blocks: int = 3
  """Turns of each method in the second measurement; none leaves it out."""
  data_dir: Path | None = None
  """Folder of the prepared data, as for the experiment."""


def make(name: str, num_tasks: int) -> balancers.LossBalancer:
  """A balancer whose epochs are so short that IGBv2 learns at once."""
  options = {"task": 0} if name == "stl" else {}
  balancer = balancers.create(name, num_tasks=num_tasks, steps_per_epoch=1, **options)
  assert balancer.loss is not None
  return balancer.loss


def at_work(state):
  """The state with IGBv2's buffer full; others as they are."""
  if not hasattr(state, "replay"):
    return state
  capacity = len(state.replay.transitions.reward)
  generator = np.random.default_rng(0)
  transitions = jax.tree.map(
    lambda leaf: jnp.asarray(generator.uniform(0.5, 1.5, leaf.shape), jnp.float32),
    state.replay.transitions,
  )
  return state._replace(
    replay=state.replay._replace(
      transitions=transitions, size=jnp.full((), capacity, jnp.int32)
    ),
    # past every epoch of the schedule
    step=jnp.full((), 10, jnp.int32),
    base_count=jnp.ones_like(state.base_count),
    base_losses=jnp.ones_like(state.base_losses),
  )


def seconds_of_update(
  name: str, num_tasks: int, repeats: int
) -> tuple[np.ndarray, int]:
  """Seconds of an update, amortised over a scan; and bytes of the state."""
  balancer = make(name, num_tasks)
  generator = np.random.default_rng(0)
  losses = jnp.asarray(
    np.exp(0.1 * generator.normal(size=(NUM_STEPS, num_tasks))), jnp.float32
  )

  def run(state):
    def step(state, losses):
      weighted, state = balancer.update(losses, state)
      return state, weighted.sum()

    return jax.lax.scan(step, state, losses)

  state = at_work(balancer.init(jax.random.key(0)))
  num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  compiled = jax.jit(run, donate_argnums=0)
  seconds = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    state, _ = jax.block_until_ready(compiled(state))
    seconds.append((time.perf_counter() - start) / NUM_STEPS)
  return np.array(seconds[1:]), num_bytes  # the first compiles


def qm9_step(name: str, data_dir: Path | None) -> Callable[[], None]:
  """Fifty QM9 steps, so that a round of IGBv2's updates is among them."""
  experiment = Experiment(
    make_problem,
    dataclasses.replace(PRESETS["paper"], balancer=name, data_dir=data_dir),
  )
  # the schedule must lie behind it, as in all but the first epochs of a run
  balancer = balancers.Balancer(make(name, 11), None)
  step = make_train_step(
    experiment.problem.losses_of,
    balancer,
    experiment.optimizer,
  )
  state = init_state(
    experiment.initial_params,
    balancer=balancer,
    optimizer=experiment.optimizer,
    plateau=experiment.problem.plateau,
    key=jax.random.key(0),
  )
  state = state._replace(
    balancer=state.balancer._replace(loss=at_work(state.balancer.loss))
  )
  batches = experiment.problem.batches(0)
  on_device = [jax.device_put(batches[i]) for i in range(5)]

  def steps() -> None:
    nonlocal state
    for index in range(50):
      state = step(state, on_device[index % 5])
    jax.block_until_ready(state)

  return steps


def print_row(name: str, seconds: np.ndarray, more: str = "") -> None:
  """Prints a row of a table, in microseconds."""
  median, least, largest = 1e6 * np.array(
    [np.median(seconds), seconds.min(), seconds.max()]
  )
  print(f"| {name} | {median:.1f} | {least:.1f} | {largest:.1f} |{more}")


def main() -> None:
  """Measures, prints the tables and draws the figure."""
  options = tyro.cli(Options, description=__doc__)
  print(
    f"{machine()}\n\nupdate alone, K = 11, mean of {NUM_STEPS} steps, microseconds\n"
  )
  print("| method | median | min | max |\n|---|---|---|---|")
  for name, kind in balancers.names().items():
    if kind == "loss":
      print_row(name, seconds_of_update(name, 11, options.repeats)[0])

  if options.blocks:
    contenders = {
      name: qm9_step(name, options.data_dir) for name in ("ew", "igbv1", "igbv2")
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for block in range(options.blocks + 1):
      order = list(contenders)[:: 1 if block % 2 else -1]  # no one always first
      for name in order:
        start = time.perf_counter()
        contenders[name]()
        if block:  # the first compiles
          seconds[name].append((time.perf_counter() - start) / 50)
    print("\nQM9 step, batch 120, mean of 50 steps, microseconds\n")
    print("| method | median | min | max | / ew, median [min, max] of blocks |")
    print("|---|---|---|---|---|")
    for name, values in seconds.items():
      ratios = np.array(values) / np.array(seconds["ew"])
      text = f" {np.median(ratios):.3f} [{ratios.min():.3f}, {ratios.max():.3f}] |"
      print_row(name, np.array(values), text)

  print("\nmany tasks: update in microseconds, state in bytes\n")
  print("| method and K | median | min | max | bytes |\n|---|---|---|---|---|")
  figure = Figure(figsize=(9, 3.5), layout="constrained")
  time_axes, bytes_axes = figure.subplots(1, 2)
  for name in ("igbv1", "igbv2"):
    measured = [seconds_of_update(name, k, options.repeats) for k in TASK_COUNTS]
    for num_tasks, (values, num_bytes) in zip(TASK_COUNTS, measured, strict=True):
      print_row(f"{name}, {num_tasks}", values, f" {num_bytes} |")
    medians = [1e6 * np.median(values) for values, _ in measured]
    time_axes.loglog(TASK_COUNTS, medians, "o-", label=name)
    bytes_axes.loglog(TASK_COUNTS, [size for _, size in measured], "o-", label=name)
  time_axes.set(xlabel="tasks", ylabel="microseconds an update, amortised")
  bytes_axes.set(xlabel="tasks", ylabel="bytes of the state")
  for axes in (time_axes, bytes_axes):
    axes.grid(alpha=0.3, which="both")
    axes.legend()
  options.figure.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(options.figure, dpi=120)


if __name__ == "__main__":
  main()
