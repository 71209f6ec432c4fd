"""PCD: one primary task, and some progress for each of the others.

    h_k = g_k / sqrt(v_k + 1e-8),    v_k the bias-corrected moving mean of |g_k|^2
    d = argmin |d - h_0|^2   subject to  h_j . d >= tau |h_j|^2 for every j > 0
    result: |g_0| d / |d|

with task 0 as the primary one. d = h_0 + sum_j mu_j h_j with mu >= 0. Where no d
fulfils all constraints the result is g_0. Reference: "Not All Objectives Are Born
Equal: Priority-Constrained Descent for Hierarchical Multi-Objective Optimization", TMLR
2026, in the form of TorchJD. The 1e-8 is theirs too: gradients shorter than 1e-4 count
less than their moving means say.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_index, check_positive
from igb_jax.balancers.common import increment
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.gradient.weighting import EVERY_STEP, LARGEST_WEIGHT, weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Combination, Gramian, Solution
from igb_jax.balancers.solvers.combination import refine
from igb_jax.balancers.solvers.complementarity import nonnegative
from igb_jax.balancers.solvers.linear import dot, solve

_DECAY = 0.999  # of the moving means
_SHORTEST = 1e-4  # sqrt(1e-8)
_EPS = float(jnp.finfo(jnp.float32).eps)


class PCDMemory(NamedTuple):
  """What `pcd` keeps beside, in `GradientState.memory`.

  Attributes:
    root_mean_squares: f32[K], sqrt(v) without its correction of the bias.
    counts: i32[K], how many gradients are in them.
    infeasible: i32[], in how many updates the constraints contradicted each other.
  """

  root_mean_squares: jax.Array
  counts: jax.Array
  infeasible: jax.Array


@method(
  "pcd",
  "gradient",
  paper="TMLR 2026",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=False,
  degree=None,
  scale_invariant=False,
  gramian_only=True,
  solves=True,
  avoids_conflict=False,
  heads="summed",
  fewest_tasks=1,
  needs=(),
)
def pcd(
  num_tasks: int,
  *,
  primary: int = 0,
  tau: jax.typing.ArrayLike = 0.02,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
) -> GradientBalancer:
  """Follows the primary task as far as every other task makes progress too.

  For a main task with auxiliary ones: the result conflicts with no auxiliary task where
  that is possible, but may conflict with the primary one where an auxiliary gradient
  opposes it. It is zero where the gradient of the primary task is, or the task absent.
  `memory` is a `PCDMemory`, which counts the updates whose constraints had no solution.

  Args:
    num_tasks: K.
    primary: index of the primary task, from 0 to K - 1.
    tau: progress that is asked for each other task, 0 or more.
    shared: see `weighting`; other leaves get the plain sum, or the heads of tasks that
      make progress anyway would learn nothing.
    update_every: see `weighting`.

  Raises:
    ValueError: `primary` is not below K.

  Example:
    >>> balancer = pcd(num_tasks=2, tau=0.0)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 1.0], [-2.0, 0.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print([f"{value:.3f}" for value in gradient["x"]])
    ['0.000', '1.414']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  primary = check_index("primary", primary, num_tasks)
  tau = check_positive("tau", tau, or_zero=True)

  def memory(*_: object) -> PCDMemory:
    return PCDMemory(
      root_mean_squares=jnp.zeros(num_tasks, jnp.float32),
      counts=jnp.zeros(num_tasks, jnp.int32),
      infeasible=jnp.zeros((), jnp.int32),
    )

  def rule(
    grads: TaskGrads, gramian: Gramian, *, memory: PCDMemory
  ) -> tuple[Solution, PCDMemory]:
    here = grads.here
    scales, memory = _follow(memory, gramian.norms, here)
    lengths = gramian.norms / scales
    # the problem has no scale of its own, and squares of these must not underflow
    lengths /= jnp.where(gramian.nonzero.any(), lengths.max(), 1.0)
    y, residual, feasible = _nearest(grads, gramian, lengths, tau, primary)
    norm = Combination.of(y, gramian, grads.shared).norm
    main = gramian.norms[primary]
    length = main / jnp.where(norm > 0, norm, 1.0) * (norm > 0)
    weights = length * (y / gramian.divisors)
    alone = (jnp.arange(num_tasks) == primary) & (main > 0)
    weights = jnp.where(feasible, weights, alone.astype(jnp.float32))
    missed = (~feasible).astype(jnp.int32)
    memory = memory._replace(infeasible=memory.infeasible + missed)
    return Solution(jnp.minimum(weights, LARGEST_WEIGHT), residual), memory

  return weighting(
    num_tasks,
    rule,
    shared=shared,
    update_every=update_every,
    heads="summed",
    memory=memory,
  )


def _follow(
  memory: PCDMemory, norms: jax.Array, here: jax.Array
) -> tuple[jax.Array, PCDMemory]:
  """f32[K], sqrt(v + 1e-8), and the memory with these norms in it."""
  old = memory.root_mean_squares
  # no square, which might not fit float32
  moved = jnp.hypot((_DECAY**0.5) * old, ((1 - _DECAY) ** 0.5) * norms)
  roots = jnp.where(here, moved, old)
  counts = jnp.where(here, increment(memory.counts), memory.counts)
  known = -jnp.expm1(counts * jnp.log(_DECAY))
  scales = roots / jnp.sqrt(jnp.where(counts > 0, known, 1.0))
  return jnp.hypot(scales, _SHORTEST), PCDMemory(roots, counts, memory.infeasible)


def _nearest(
  grads: TaskGrads, gramian: Gramian, lengths: jax.Array, tau: Any, primary: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Solves for d on unit gradients: d = sum_k y_k g_k / |g_k|.

  Args:
    grads: the gradients.
    gramian: theirs.
    lengths: f32[K], |h|.
    tau: f32[].
    primary: the primary task.

  Returns:
    y, f32[K]; by how much the conditions of optimality fail, f32[]; and whether there
    is a solution, bool[].
  """
  others = (jnp.arange(len(lengths)) != primary) & gramian.nonzero
  pairs = others[:, None] & others
  of_others = Gramian(
    jnp.where(others, gramian.norms, 0.0), jnp.where(pairs, gramian.cosines, 0.0)
  )
  start = jnp.zeros_like(lengths).at[primary].set(lengths[primary])
  asked = jnp.where(others, tau * lengths, 0.0)
  q = jnp.where(others, asked - gramian.product(start), 0.0)
  z, support = nonnegative(of_others, q, q > 0)

  def slack_of(y: jax.Array, leaves: list[Any] | None) -> jax.Array:
    products = Combination.of(y, gramian, leaves).products
    return jnp.where(others, products - asked, 0.0)

  def improve(y: jax.Array, leaves: list[Any] | None) -> tuple[Solution, jax.Array]:
    slack = slack_of(y, leaves)
    terms = dot(jnp.abs(gramian.cosines), y) + asked
    relative = slack / jnp.where(terms > 0, terms, 1.0)
    share = jnp.where(others, y, 0.0) / jnp.maximum(
      y.max(), jnp.finfo(jnp.float32).tiny
    )
    residual = jnp.max(jnp.abs(jnp.minimum(share, relative)))
    z = jnp.where(others, y - solve(of_others.cosines, slack, support), 0.0)
    return Solution(y, residual), start + jnp.maximum(z, 0.0)

  on_gramian = functools.partial(improve, leaves=None)
  y = refine(start + z, on_gramian, num_points=12).weights
  y, residual = refine(y, functools.partial(improve, leaves=grads.shared))
  # without a solution z is as large as the ridge on the diagonal lets it be
  tolerance = 1e-3 * asked + _EPS * jnp.sum(start + z)
  feasible = jnp.all(slack_of(y, grads.shared) >= -tolerance)
  return y, jnp.where(feasible, residual, 0.0), feasible
