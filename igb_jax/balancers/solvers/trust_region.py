"""The direction near the mean gradient that helps the worst task most.

    maximise  min_k <d, g_k>   over |d - g_0| <= c |g_0|,   g_0 = sum_k g_k / K

For a given t, the d nearest to g_0 with <d, g_k> >= t for all k is

    d = g_0 + sum_k z_k g_k,    z = argmin  z^T G z / 2 - (t - <g_k, g_0>)^T z,  z >= 0

and its distance to g_0 is a convex function of t, so that Newton's method from above
finds the t at which it is c |g_0|: about one step a piece of the path. Reference: Liu
et al., "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS 2021,
equation 2; z is their w up to a factor.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.solvers.combination import (
  Combination,
  Mean,
  mean_weights,
  refine,
)
from igb_jax.balancers.solvers.complementarity import nonnegative
from igb_jax.balancers.solvers.gramian import Gramian, Solution
from igb_jax.balancers.solvers.linear import dot, pseudo_inverse

_MAX_STEPS = 50
_TOLERANCE = 2e-6
_SMALLEST_MEAN = 1e-6
_EPS = float(jnp.finfo(jnp.float32).eps)  # the rounding of a weight and its product


class _Newton(NamedTuple):
  level: jax.Array
  y: jax.Array
  support: jax.Array
  steps: jax.Array


def trust_region(
  gramian: Gramian,
  mean: Mean,
  c: jax.typing.ArrayLike,
  present: jax.Array | None = None,
  leaves: list[Any] | None = None,
) -> Solution:
  """The sum z of the problem above, with z_k the weight of g_k beyond that in g_0.

  Args:
    gramian: the Gramian of the K gradients. A zero gradient demands t <= 0.
    mean: the mean of the K gradients. One that is only rounding, below 1e-6 of the
      largest gradient, counts as zero, and so does z.
    c: radius of the ball, in units of the norm of the mean gradient; above 0.
    present: bool[K], all by default; the gradients of the others must be zero, and
      demand nothing.
    leaves: arrays float[K, ...], the leaves of the stacked gradients, to measure
      |d - g_0| and refine the solution with; see
      `igb_jax.balancers.solvers.combination`.

  Returns:
    Weights z that are not negative: d = sum_k (1 / K + z_k) g_k. The residual is the
    largest violation of the conditions of optimality, with u_k the unit gradients and
    in units of |g_0| + sum_k z_k |g_k|: of <d, u_k> >= t / |g_k|, of equality where
    z_k > 0, and the duality gap. It is at least what rounding makes of d in float32, in
    units of |g_0|: 1.2e-7 of the root of the sum of ((1 / K + z_k) |g_k|)^2. z is
    scaled so that |d - g_0| <= c |g_0| holds but for this rounding (but for that of the
    cosines, without `leaves`).

  Example:
    >>> leaves = [jnp.array([[1.0, 0.0], [0.0, 2.0]])]
    >>> gramian = Gramian.of(leaves)
    >>> z = trust_region(gramian, Mean.of(leaves, gramian), c=0.4).weights
    >>> d = jnp.array([1.0, 2.0]) * (0.5 + z)
    >>> print(f"{d[0]:.4f} {d[1]:.4f}")
    0.9472 1.0000
  """
  nonzero = gramian.nonzero
  all_nonzero = (nonzero if present is None else nonzero | ~present).all()
  # the unit of length is |g_0|; y_k = z_k |g_k|
  largest = gramian.norms.max()
  has_mean = ~(mean.norm <= _SMALLEST_MEAN)

  # the unit of t is |g_0| times the smallest norm
  smallest = jnp.min(gramian.norms, where=nonzero, initial=jnp.inf)
  demand = jnp.where(nonzero, smallest / gramian.norms, 0.0)
  highest = jnp.where(all_nonzero, 1 + c, 0.0).astype(jnp.float32)

  def q_at(level: jax.Array) -> jax.Array:
    return jnp.where(nonzero, level * demand - mean.cosines, 0.0)

  def distance(state: _Newton) -> jax.Array:
    return jnp.sqrt(jnp.maximum(dot(state.y, q_at(state.level)), 0.0))

  def next_level(state: _Newton, now: jax.Array) -> jax.Array:
    slope = dot(state.y, demand) / now
    change = jnp.where(slope > 0, (c - now) / slope, 0.0)
    return jnp.minimum(state.level + change, highest)

  def step(state: _Newton) -> _Newton:
    level = next_level(state, distance(state))
    return _Newton(
      level, *nonnegative(gramian, q_at(level), state.support), state.steps + 1
    )

  end = jax.lax.while_loop(
    lambda state: (distance(state) > c * (1 + _TOLERANCE)) & (state.steps < _MAX_STEPS),
    step,
    _Newton(
      highest,
      *nonnegative(gramian, q_at(highest), nonzero),
      jnp.zeros((), jnp.int32),
    ),
  )
  inverse = pseudo_inverse(gramian.cosines, end.support, damped=True)

  def improve(state: _Newton) -> tuple[Solution, _Newton]:
    moved, products = Combination.of(state.y, gramian, leaves)
    # whatever the solver did, d stays in the ball
    shrunk = jnp.minimum(1.0, c / jnp.maximum(moved, c))
    y = shrunk * state.y
    slack = shrunk * products - q_at(state.level)
    size = 1 + y.sum()
    gap = shrunk * moved * jnp.maximum(c - shrunk * moved, 0.0) / size
    failures = [
      jnp.max(-slack, where=nonzero, initial=0.0) / size,
      jnp.abs(dot(y, slack)) / size**2,
      jnp.where(all_nonzero, gap, 0.0),
    ]
    # y^T q is larger where no y meets the demand and the ridge alone bounds y
    level = next_level(state, jnp.maximum(moved, distance(state)))
    change = dot(inverse, q_at(level) - products)
    return Solution(y, residual=jnp.stack(failures).max()), state._replace(
      level=level, y=jnp.maximum(state.y + change, 0.0)
    )

  y, residual = refine(end, improve)
  terms = mean_weights(gramian, present) / jnp.where(has_mean, mean.norm, 1.0) + y
  rounding = _EPS * jnp.sqrt(dot(terms, terms))
  # in this order, so that nothing overflows before it has to
  per_norm = y * mean.norm * (largest / gramian.norms)
  return Solution(
    weights=jnp.where(has_mean & ~(y == 0), per_norm, 0.0),
    residual=jnp.where(has_mean, jnp.maximum(residual, rounding), 0.0),
  )
