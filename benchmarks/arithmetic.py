"""How far the QM9 step is from its arithmetic: operations of its matrix products.

    python -m benchmarks.arithmetic

The limit is the time that the step's matrix products would take at the rate of one
large matrix product, measured in turns with the step: float32, all cores. Beside it,
for each balancer, the operations of its matrix products and what XLA counts of its
step (operations, bytes) as ratios to ew's, which show a regression on any machine.
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

from benchmarks.gradient_balancers import CONTENDERS, make_experiment, make_turn
from benchmarks.timing import machine

SIZE = 3072  # of the large matrix product


@dataclasses.dataclass(frozen=True)
class Options:
  """Measures the QM9 step against its matrix products."""

  turns: int = 7
  """Turns of each."""
  data_dir: Path | None = None
  """Folder of the prepared data, as for the experiment."""


def product_operations(jaxpr: Any) -> int:
  """Multiplications and additions of the matrix products of a jaxpr.

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


def main() -> None:
  """Measures and prints."""
  options = tyro.cli(Options, description=__doc__)
  experiment = make_experiment("ew", (), options.data_dir)
  batch = jax.device_put(experiment.train_batches(0)[0])
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
  print(f"{machine()}\n")
  print("| QM9 step, ew, batch 120 | median | min | max |\n|---|---|---|---|")
  for name, values, form in (
    ("step, s", np.array(steps), ".3f"),
    (f"product of {SIZE} x {SIZE}, GFLOP/s", rates / 1e9, ".0f"),
    (f"step / its {operations / 1e9:.1f} GFLOP at that rate", ratios, ".2f"),
  ):
    row = (np.median(values), values.min(), values.max())
    print(f"| {name} | {' | '.join(format(value, form) for value in row)} |")

  print(
    "\nratios to ew; XLA counts the body of a loop once, whose turns are the tasks\n"
  )
  print("| balancer | matrix products | XLA's operations | XLA's bytes |")
  print("|---|---|---|---|")
  of_ew: np.ndarray | None = None
  for name, (spec, balancer_options, _) in CONTENDERS.items():
    if "update_every=10" in balancer_options:
      continue  # two branches, of which a step takes one
    contender = make_experiment(spec, balancer_options, options.data_dir)
    jitted: Any = contender.step
    traced = jitted.trace(contender.init_state(), batch)
    cost = traced.lower().cost_analysis()
    counts = np.array(
      [product_operations(traced.jaxpr), cost["flops"], cost["bytes accessed"]]
    )
    of_ew = counts if of_ew is None else of_ew
    print(f"| {name} | {' | '.join(f'{ratio:.2f}' for ratio in counts / of_ew)} |")


if __name__ == "__main__":
  main()
