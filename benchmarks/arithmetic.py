"""How far the steps are from their arithmetic: operations of products, convolutions.

    python -m benchmarks.arithmetic

The limit is the time that a step's matrix products (QM9) or convolutions (SegNet) would
take at the rate of one large matrix product, measured in turns with the step: float32,
all cores. A backward pass has twice the operations of a forward pass. For SegNet they
are counted so, forward x (1 + 2 K); for QM9 one by one, as they are traced.

Beside it, for each balancer on QM9, the traced operations of its matrix products and
what XLA counts of its step (operations, bytes) as ratios to ew's, which show a
regression on any machine. A gradient balancer traces products that XLA drops: the pass
through the heads alone is traced as a whole one.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import scene_step
from benchmarks.gradient_balancers import CONTENDERS, make_experiment, make_turn
from benchmarks.timing import machine

SIZE = 3072  # of the large matrix product


@dataclasses.dataclass(frozen=True)
class Options:
  """Measures steps against their matrix products and convolutions."""

  turns: int = 7
  """Turns of the QM9 step."""
  scene_turns: int = 3
  """Turns of each SegNet step."""
  data_dir: Path | None = None
  """Folder of the prepared data, as for the experiment."""


def product_operations(jaxpr: Any) -> int:
  """Multiplications and additions of the products and convolutions of a jaxpr.

  Args:
    jaxpr: of any function, closed or open; a scan counts as often as it runs.
  """
  return sum(_operations(equation) for equation in jaxpr.eqns)


def _operations(equation: Any) -> int:
  if equation.primitive.name == "dot_general":
    ((contracted, _), _) = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    summed = math.prod(left[axis] for axis in contracted)
    return 2 * summed * math.prod(equation.outvars[0].aval.shape)
  if equation.primitive.name == "conv_general_dilated":
    kernel = equation.invars[1].aval.shape
    inputs = equation.params["dimension_numbers"].rhs_spec[1:]  # all but the outputs
    summed = math.prod(kernel[axis] for axis in inputs)
    return 2 * summed * math.prod(equation.outvars[0].aval.shape)
  inner = sum(product_operations(jaxpr) for jaxpr in _inner(equation.params))
  return inner * equation.params.get("length", 1)  # of a scan


def _inner(params: dict[str, Any]) -> Iterator[Any]:
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if hasattr(item, "eqns"):
        yield item


def large_product() -> Callable[[], float]:
  """A turn of one large matrix product."""
  left = jnp.asarray(np.random.default_rng(0).normal(size=(SIZE, SIZE)), jnp.float32)
  multiply = jax.jit(jnp.matmul)
  jax.block_until_ready(multiply(left, left))

  def turn() -> float:
    start = time.perf_counter()
    jax.block_until_ready(multiply(left, left))
    return time.perf_counter() - start

  return turn


def print_row(name: str, values: np.ndarray, form: str) -> None:
  """Prints median, least and largest."""
  row = (np.median(values), values.min(), values.max())
  print(f"| {name} | {' | '.join(format(value, form) for value in row)} |")


def print_scenes(options: Options) -> None:
  """SegNet's steps against their convolutions."""
  experiment = scene_step.make_experiment(scene_step.Options())
  batches = jax.device_get(list(experiment.epoch_batches(0)))
  experiment.close()
  variables = experiment.initial_params, experiment.initial_variables
  traced = jax.jit(experiment.problem.losses_of).trace(*variables, batches[0])
  forward = product_operations(traced.jaxpr)
  on_device = [jax.device_put(batch) for batch in batches]
  steps = {
    method: scene_step.our_step(experiment, method, on_device)[0]
    for method in ("ew", "nashmtl", "pcgrad")
  }
  product = large_product()
  seconds: dict[str, list[float]] = {method: [] for method in steps}
  products = []
  for turn in range(options.scene_turns + 1):
    for method, step in steps.items():
      start = time.perf_counter()
      step()
      if turn:  # the first allocates
        seconds[method].append(time.perf_counter() - start)
    products.append(product())
  rate = 2 * SIZE**3 / np.median(products)
  print("\n| SegNet step, 2 x 288 x 384 | median | min | max |\n|---|---|---|---|")
  for method, values in seconds.items():
    operations = forward * (3 if method == "ew" else 7)
    ratio = np.array(values) * rate / operations
    name = f"{method} / its {operations / 1e9:.0f} GFLOP at {rate / 1e9:.0f} GFLOP/s"
    print_row(name, ratio, ".2f")


def print_qm9(options: Options) -> None:
  """The QM9 step against its matrix products, and the balancers against ew."""
  experiment = make_experiment(CONTENDERS["ew"], options.data_dir)
  batch = jax.device_put(experiment.problem.batches(0)[0])
  state = experiment.init_state()
  jitted: Any = experiment.step
  operations = product_operations(jitted.trace(state, batch).jaxpr)
  step, _ = make_turn(experiment, 5)
  product = large_product()
  step()
  steps, products = [], []
  for _ in range(options.turns):
    steps.append(step())
    products.append(product())
  rates = 2 * SIZE**3 / np.array(products)
  ratios = np.array(steps) * rates / operations
  print("| QM9 step, ew, batch 120 | median | min | max |\n|---|---|---|---|")
  for name, values, form in (
    ("step, s", np.array(steps), ".3f"),
    (f"product of {SIZE} x {SIZE}, GFLOP/s", rates / 1e9, ".0f"),
    (f"step / its {operations / 1e9:.1f} GFLOP at that rate", ratios, ".2f"),
  ):
    print_row(name, values, form)
  print(
    "\nratios to ew; XLA counts the body of a loop once, whose turns are the tasks\n"
  )
  print("| balancer | matrix products | XLA's operations | XLA's bytes |")
  print("|---|---|---|---|")
  of_ew: np.ndarray | None = None
  for name, contender in CONTENDERS.items():
    if "update_every=10" in contender.options:
      continue  # two branches, of which a step takes one
    contending = make_experiment(contender, options.data_dir)
    jitted: Any = contending.step
    traced = jitted.trace(contending.init_state(), batch)
    cost = traced.lower().cost_analysis()
    counts = np.array(
      [product_operations(traced.jaxpr), cost["flops"], cost["bytes accessed"]]
    )
    of_ew = counts if of_ew is None else of_ew
    print(f"| {name} | {' | '.join(f'{ratio:.2f}' for ratio in counts / of_ew)} |")


def main() -> None:
  """Measures and prints."""
  options = tyro.cli(Options, description=__doc__)
  print(f"{machine()}\n")
  print_qm9(options)
  print_scenes(options)


if __name__ == "__main__":
  main()
