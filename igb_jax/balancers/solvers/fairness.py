"""The alpha-fair combination of the task gradients.

    (G x)_k = (w_k / x_k)^(1/alpha),  x > 0

which is the minimum of x^T G x / 2 - sum_k w_k^(1/alpha) x_k^p / p, p = 1 - 1/alpha (a
logarithm for alpha = 1, where it is the Nash bargaining solution, see `bargaining`).
With y_k = x_k |g_k| and the cosines C it is

    (C y)_k = c_k y_k^(-1/alpha),    c_k = w_k^(1/alpha) |g_k|^(1/alpha - 1)

The function is strictly convex: Newton's method, in units of y, with steps shortened by
1 / (1 + decrement) while they change a weight by much. After each step y is scaled to
the minimum along its ray, y^T C y = sum_k c_k y_k^p. References: Ban and Ji, "Fair
Resource Allocation in Multi-Task Learning", ICML 2024, equation 5; Boyd and
Vandenberghe, "Convex Optimization", section 9.5.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl

from igb_jax.balancers.common import LARGEST_LOG
from igb_jax.balancers.solvers.combination import Combination, refine
from igb_jax.balancers.solvers.gramian import Gramian, Solution, better_of
from igb_jax.balancers.solvers.linear import dot, ridge

_MAX_STEPS = 200
_TOLERANCE = 3e-6  # of the residual


class _Newton(NamedTuple):
  y: jax.Array
  best: Solution
  steps: jax.Array


def alpha_fair(
  gramian: Gramian,
  alpha: jax.typing.ArrayLike,
  log_weights: jax.Array | None = None,
  leaves: list[Any] | None = None,
) -> Solution:
  """The weights of the equation above.

  Args:
    gramian: the Gramian of the K gradients. A zero gradient gets the weight that it
      would have if it were orthogonal to all others and as small as the smallest of
      them. Gradients whose hull contains zero have no solution; their weights are large
      and finite.
    alpha: positive.
    log_weights: f32[K], log w; all equal by default.
    leaves: arrays float[K, ...], the leaves of the stacked gradients, to refine the
      solution with; see `igb_jax.balancers.solvers.combination`.

  Returns:
    Positive weights. The residual is the largest |(G x)_k - (w_k / x_k)^(1/alpha)| over
    tasks, relative to the sum of their terms. It is small also where the equation has
    no solution; `unfairness` is not.

  Example:
    >>> gramian = Gramian.of([jnp.array([[1.0, 0.0], [0.0, 8.0]])])
    >>> print(alpha_fair(gramian, 2.0).weights.round(4))
    [1.     0.0625]
  """
  nonzero = gramian.nonzero
  given = gramian
  gramian = gramian._replace(
    cosines=jnp.where(jnp.diag(~nonzero), 1.0, gramian.cosines)
  )
  num_tasks = len(gramian.norms)
  added = ridge(num_tasks)
  is_nash = log_weights is None and isinstance(alpha, float) and alpha == 1
  inverse = 1 / jnp.asarray(alpha, jnp.float32)
  log_norms = jnp.log(gramian.divisors)
  log_c = (inverse - 1) * log_norms
  if log_weights is not None:
    log_c += inverse * log_weights
  # in the unit of y in which the c are about 1
  centre = jnp.mean(log_c)
  log_c -= centre

  def shares(y: jax.Array) -> jax.Array:
    if is_nash:
      return jnp.ones_like(y)
    return jnp.exp(log_c + (1 - inverse) * jnp.log(y))  # c_k y_k^p

  def with_ridge(y: jax.Array) -> jax.Array:
    return gramian.product(y) + added * y

  def scaled(y: jax.Array) -> jax.Array:
    ratio = jnp.sum(shares(y)) / dot(y, with_ridge(y))
    return y * jnp.exp(jnp.log(ratio) / (1 + inverse))

  def step(y: jax.Array, products: jax.Array) -> jax.Array:
    of_y = shares(y)
    gradient = y * products - of_y
    hessian = y[:, None] * gramian.cosines * y
    hessian += jnp.diag(inverse * of_y + added * y**2)
    size = jnp.sqrt(jnp.diagonal(hessian))
    factor = jsl.cho_factor(hessian / (size[:, None] * size), lower=True)
    change = -jsl.cho_solve(factor, gradient / size) / size
    # relative to the largest share: the others must not shorten the step
    square = -dot(gradient / of_y.max(), change)
    decrement = jnp.sqrt(jnp.maximum(square, 0.0))
    is_near = jnp.max(jnp.abs(change)) < 0.5
    length = jnp.where(is_near, 1.0, 1 / (1 + decrement))
    return y * jnp.clip(1 + length * change, 0.1, 8.0)

  def judged(y: jax.Array, products: jax.Array) -> Solution:
    aims = shares(y) / y
    terms = dot(jnp.abs(gramian.cosines), y) + aims
    return Solution(y, residual=jnp.max(jnp.abs(products - aims) / terms))

  def iterate(state: _Newton) -> _Newton:
    y = scaled(step(state.y, with_ridge(state.y)))
    return _Newton(y, better_of(state.best, judged(y, with_ridge(y))), state.steps + 1)

  def improve(y: jax.Array) -> tuple[Solution, jax.Array]:
    products = Combination.of(jnp.where(nonzero, y, 0.0), given, leaves).products
    products = jnp.where(nonzero, products, y)
    return judged(y, products), step(y, products)

  y = scaled(jnp.exp(log_c / (1 + inverse)))  # of orthogonal gradients
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
  solution = refine(solution.weights, improve)
  shift = centre / (1 + inverse)
  logs = jnp.log(solution.weights) + shift - log_norms
  weights = solution.weights / gramian.divisors * jnp.exp(shift)
  fits = jnp.isfinite(weights) & (jnp.abs(logs) < LARGEST_LOG)
  limited = jnp.exp(jnp.clip(logs, -LARGEST_LOG, LARGEST_LOG))
  return solution._replace(weights=jnp.where(fits, weights, limited))


def unfairness(
  gramian: Gramian,
  x: jax.Array,
  alpha: jax.typing.ArrayLike,
  log_weights: jax.Array | None = None,
  leaves: list[Any] | None = None,
) -> jax.Array:
  """The largest |(G x)_k / (w_k / x_k)^(1/alpha) - 1| over gradients that are not zero.

  Args:
    gramian: see `alpha_fair`.
    x: f32[K], the weights.
    alpha: see there.
    log_weights: see there.
    leaves: see there.

  Returns:
    f32[], of the order of 1 where the equation has no solution.

  Example:
    >>> gramian = Gramian.of([jnp.array([[1.0, 0.0], [0.0, 8.0]])])
    >>> print(unfairness(gramian, jnp.array([1.0, 0.0625]), 2.0))
    0.0
  """
  log_x = jnp.log(jnp.where(x > 0, x, 1.0))
  logs = log_x + jnp.log(gramian.divisors)
  largest = jnp.max(logs)
  y = jnp.where(gramian.nonzero, jnp.exp(logs - largest), 0.0)
  products = Combination.of(y, gramian, leaves).products
  log_aims = -log_x if log_weights is None else log_weights - log_x
  log_scale = largest + jnp.log(gramian.divisors) - log_aims / alpha
  ratio = products * jnp.exp(jnp.minimum(log_scale, LARGEST_LOG))
  return jnp.max(jnp.abs(ratio - 1), where=gramian.nonzero, initial=0.0)
