"""The Nash bargaining solution of the task gradients.

    G a = 1 / a,  a > 0     the minimum of     a^T G a / 2 - sum_k log a_k

With y_k = a_k |g_k| it is C y = 1 / y: the cosines alone decide. The function is
self-concordant, so that Newton's method converges from anywhere with the step

    1 / (1 + decrement)  while the decrement is above 1/4, then 1

and no search; after each step y is scaled to y^T C y = K, which its solution satisfies
and which is the minimum along the ray. References: Navon et al., "Multi-Task Learning
as a Bargaining Game", ICML 2022, equation 2; Boyd and Vandenberghe, "Convex
Optimization", section 9.6.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl

from igb_jax.balancers.solvers.combination import Combination, refine
from igb_jax.balancers.solvers.gramian import Gramian, Solution, better_of
from igb_jax.balancers.solvers.linear import dot, ridge

_MAX_STEPS = 100
_TOLERANCE = 3e-6  # of the residual; the two last steps square it


class _Newton(NamedTuple):
  y: jax.Array
  best: Solution
  steps: jax.Array


def nash(gramian: Gramian, leaves: list[Any] | None = None) -> Solution:
  """The weights with which G a = 1 / a.

  Args:
    gramian: of the K gradients. A zero gradient, for which no weight solves the
      equation, gets the weight that it would have if it were orthogonal to all others
      and as small as the smallest of them (1 if all are zero). Gradients whose hull
      contains zero have no solution either; theirs are large and finite.
    leaves: arrays float[K, ...], the leaves of the stacked gradients, to refine the
      solution with; see `igb_jax.balancers.solvers.combination`.

  Returns:
    Positive weights. The residual is the largest |(G a)_k - 1 / a_k| over tasks,
    relative to sum_j |G_kj| a_j + 1 / a_k: the relative change of G that would make the
    solution exact.

  Example:
    >>> solution = nash(Gramian.of([jnp.array([[1.0, 0.0], [0.0, 2.0]])]))
    >>> print(solution.weights)
    [1.  0.5]
  """
  nonzero = gramian.nonzero
  given = gramian
  gramian = gramian._replace(  # C y = 1 / y has the solution 1 for a zero gradient
    cosines=jnp.where(jnp.diag(~nonzero), 1.0, gramian.cosines)
  )
  num_tasks = len(gramian.norms)
  added = ridge(num_tasks)

  def with_ridge(y: jax.Array) -> jax.Array:
    return gramian.product(y) + added * y

  def scaled(y: jax.Array) -> jax.Array:
    return y * jnp.sqrt(num_tasks / dot(y, with_ridge(y)))

  def step(y: jax.Array, products: jax.Array) -> jax.Array:
    # in units of y, where the Hessian is as well-conditioned as it can be
    gradient = y * products - 1
    hessian = y[:, None] * gramian.cosines * y + jnp.diag(1 + added * y**2)
    change = -jsl.cho_solve(jsl.cho_factor(hessian, lower=True), gradient)
    decrement = jnp.sqrt(jnp.maximum(-dot(gradient, change), 0.0))
    length = jnp.where(decrement > 0.25, 1 / (1 + decrement), 1.0)
    return y * jnp.maximum(1 + length * change, 1e-3)  # whatever rounding does

  def alone(task: jax.Array, y: jax.Array) -> jax.Array:
    # y_k (y_k + others) = 1, by the formula that does not cancel
    others = dot(gramian.cosines[task], y) - y[task]
    root = jnp.sqrt(others**2 + 4)
    value = jnp.where(others > 0, 2 / (jnp.abs(others) + root), (root - others) / 2)
    return y.at[task].set(value)

  def judged(y: jax.Array, products: jax.Array) -> Solution:
    terms = dot(jnp.abs(gramian.cosines), y) + 1 / y
    return Solution(y, residual=jnp.max(jnp.abs(products - 1 / y) / terms))

  def iterate(state: _Newton) -> _Newton:
    y = scaled(step(state.y, with_ridge(state.y)))
    return _Newton(y, better_of(state.best, judged(y, with_ridge(y))), state.steps + 1)

  def improve(y: jax.Array) -> tuple[Solution, jax.Array]:
    products = Combination.of(jnp.where(nonzero, y, 0.0), given, leaves).products
    products = jnp.where(nonzero, products, y)
    return judged(y, products), step(y, products)

  y = scaled(jnp.ones(num_tasks, jnp.float32))
  start = _Newton(y, judged(y, with_ridge(y)), jnp.zeros((), jnp.int32))
  y = jax.lax.while_loop(
    lambda state: (state.best.residual > _TOLERANCE) & (state.steps < _MAX_STEPS),
    iterate,
    start,
  ).best.weights
  solution = judged(y, gramian.product(y))
  for _ in range(2):  # without the ridge
    y = step(solution.weights, gramian.product(solution.weights))
    solution = better_of(solution, judged(y, gramian.product(y)))

  # where some gradients' hull contains zero, their large y have shaken the small ones
  num_shaken = jnp.where(solution.residual > _TOLERANCE, num_tasks, 0)
  y = jax.lax.fori_loop(0, num_shaken, alone, solution.weights)
  solution = better_of(solution, judged(y, gramian.product(y)))
  solution = refine(solution.weights, improve)

  return solution._replace(weights=solution.weights / gramian.divisors)
