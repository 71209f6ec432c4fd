"""Task gradients that strain gradient balancers, and what each makes of them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.balancers.contract import (
  gradient_traits,
  init,
  make_gradient,
  mapped,
  to_numpy,
)

NUM_PARAMETERS = 200
TASK_COUNTS = [1, 2, 3, 11, 64]
SEVERAL = [2, 3, 11, 64]
MANY = [16, 20, 64]
SAMPLES = [
  "gaussian", "few dimensions", "rank one", "rank one, both signs", "opposite pairs",
  "duplicates", "one zero", "all zero", "common direction", "sum to zero", "scales",
  "scales, few dimensions", "scales, opposite pairs", "tiny", "huge",
]  # fmt: skip
# whose solution is unique and far from any border of degeneracy
REGULAR = ["gaussian", "common direction", "tiny", "huge"]
PERMUTED = [*REGULAR, "scales", "one zero"]
COMMON_SCALES = [1e-12, 1e-3, 1e6, 1e12]
OTHER_KEY = "sum to zero, another key"


class Solved(NamedTuple):
  """What a balancer makes of a Jacobian at its first step.

  Attributes:
    jacobian: f64[K, P].
    result: f32[P].
    state: the state after the step.
  """

  jacobian: np.ndarray
  result: np.ndarray
  state: Any


def sample(kind: str, num_tasks: int) -> np.ndarray:
  """A Jacobian f64[K, 200]; one of three dimensions is zero in the others."""
  generator = np.random.default_rng(num_tasks)
  gauss = generator.normal(size=(num_tasks, NUM_PARAMETERS))
  opposite = gauss.copy()
  opposite[1::2] = -opposite[0 : 2 * (num_tasks // 2) : 2]
  scales = 10 ** generator.uniform(-15, 15, size=(num_tasks, 1))
  if num_tasks > 1:
    scales[0], scales[-1] = 1e-15, 1e15
  one_zero = gauss.copy()
  one_zero[0] = 0

  def in_three_dimensions() -> np.ndarray:
    rest = ((0, 0), (0, NUM_PARAMETERS - 3))
    return np.pad(generator.normal(size=(num_tasks, 3)), rest)

  return {
    "gaussian": gauss,
    "few dimensions": in_three_dimensions(),
    "rank one": generator.uniform(0.5, 2, size=(num_tasks, 1)) * gauss[:1],
    "rank one, both signs": generator.normal(size=(num_tasks, 1)) * gauss[:1],
    "opposite pairs": opposite,
    "duplicates": np.repeat(gauss[: (num_tasks + 1) // 2], 2, axis=0)[:num_tasks],
    "one zero": one_zero,
    "all zero": np.zeros_like(gauss),
    "common direction": gauss + 3,
    "sum to zero": gauss - gauss.mean(axis=0),
    "scales": gauss * scales,
    "scales, few dimensions": in_three_dimensions() * scales,
    "scales, opposite pairs": opposite * scales,
    "tiny": gauss * 1e-15,
    "huge": gauss * 1e15,
  }[kind]


def order_of(num_tasks: int) -> np.ndarray:
  """The order in which tasks are permuted."""
  return np.random.default_rng(1).permutation(num_tasks)


@functools.cache
def rotation() -> np.ndarray:
  """An orthogonal matrix, under which no Gramian changes."""
  gauss = np.random.default_rng(2).normal(size=(NUM_PARAMETERS, NUM_PARAMETERS))
  return np.linalg.qr(gauss)[0]


@functools.cache
def variants(num_tasks: int) -> dict[str, np.ndarray]:
  """The samples, and what one or the other property compares with them."""
  found = {kind: sample(kind, num_tasks) for kind in SAMPLES}
  gauss = found["gaussian"]
  order = order_of(num_tasks)
  more = {f"{kind}, permuted": found[kind][order] for kind in PERMUTED}
  more |= {f"gaussian times {scale:g}": gauss * scale for scale in COMMON_SCALES}
  factors = np.logspace(-6, 6, num_tasks)[:, None]
  more["gaussian, each on its scale"] = gauss * factors
  more["gaussian, rotated"] = gauss @ rotation()
  more["gaussian, rounded"] = gauss.astype(jnp.bfloat16).astype(np.float64)
  more["in agreement"] = np.repeat(gauss[:1], num_tasks, axis=0)
  more[OTHER_KEY] = found["sum to zero"]
  return found | more


@functools.cache
def of_any_rank(num_tasks: int) -> dict[str, np.ndarray]:
  """Jacobians where plain pivoting goes in circles."""
  found = {}
  quarters = [num_tasks // 4, num_tasks // 2, 3 * num_tasks // 4]
  for rank in [2, *quarters, num_tasks - 1]:
    generator = np.random.default_rng([rank, num_tasks])
    factors = generator.normal(size=(16, num_tasks, rank))
    mixing = np.linalg.qr(generator.normal(size=(NUM_PARAMETERS, rank)))[0].T
    found |= {f"rank {rank}, {i}": each @ mixing for i, each in enumerate(factors)}
  return found


def first_step(balancer: Any, jacobian: jax.Array, seed: Any, present: Any = None):
  """The result for a Jacobian, and the state."""
  state = init(balancer, jacobian[0], seed)
  losses = jnp.ones(len(jacobian))  # for methods that ask for them
  return balancer.update(jacobian, state, present=present, losses=losses)


def solve_each(
  balancer: Any, inputs: dict[str, np.ndarray], masks: dict[str, np.ndarray] | None
) -> dict[str, Solved]:
  """What a balancer makes of Jacobians of one shape, in one compiled function."""
  jacobians = np.stack(list(inputs.values())).astype(np.float32)
  seeds = np.array([label == OTHER_KEY for label in inputs], np.int32)
  if masks is None:
    results, states = mapped(functools.partial(first_step, balancer))(jacobians, seeds)
  else:
    stacked = np.stack([masks[label] for label in inputs])
    results, states = mapped(functools.partial(first_step, balancer))(
      jacobians, seeds, stacked
    )
  results, states = to_numpy((results, states))
  return {
    label: Solved(
      jacobian, results[index], jax.tree.map(lambda leaf, i=index: leaf[i], states)
    )
    for index, (label, jacobian) in enumerate(inputs.items())
  }


@functools.cache
def solved(name: str, num_tasks: int) -> dict[str, Solved]:
  """What a method makes of every variant."""
  inputs = variants(num_tasks) if num_tasks in TASK_COUNTS else {}
  if num_tasks in MANY and gradient_traits(name).solves:
    inputs = inputs | of_any_rank(num_tasks)
  return solve_each(make_gradient(name, num_tasks), inputs, None)


def solve(name: str, jacobian: np.ndarray, **options: Any) -> Solved:
  """What a method makes of one Jacobian."""
  balancer = make_gradient(name, len(jacobian), **options)
  return solve_each(balancer, {"": np.asarray(jacobian, np.float64)}, None)[""]


def solve_many(name: str, jacobians: np.ndarray, **options: Any) -> Solved:
  """The same for Jacobians f[N, K, P]; all of the answer is stacked."""
  balancer = make_gradient(name, jacobians.shape[1], **options)
  stacked = jacobians.astype(np.float32)
  seeds = np.zeros(len(stacked), np.int32)
  results, states = mapped(functools.partial(first_step, balancer))(stacked, seeds)
  return Solved(np.asarray(jacobians, np.float64), *to_numpy((results, states)))
