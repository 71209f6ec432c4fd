"""Conflict-averse gradient descent (CAGrad).

    d = argmax  min_k <d, g_k>  over |d - g_0| <= c |g_0|,    g_0 = sum_k g_k / K

and the result is K d / (1 + c^2). With g_w = sum_k w_k g_k,

    w = argmin  <g_w, g_0> + c |g_0| |g_w|  over w >= 0, sum_k w_k = 1,
    d = g_0 + c |g_0| g_w / |g_w|

Reference: Liu et al., "Conflict-Averse Gradient Descent for Multi-task Learning",
NeurIPS 2021, Algorithm 1.

The published code hands w to SciPy's SLSQP, which stays where it started when the
gradients are small; this solves the problem exactly at any scale. Where g_w is zero
(the gradients' hull contains zero) the direction g_w / |g_w| is undefined, and d is the
vector nearest to g_0 that conflicts with no task. Products with g_0 are taken from the
gradients themselves, not from their Gramian, where gradients that nearly cancel leave
little but rounding.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.common import check_count, check_positive
from igb_jax.balancers.gradient.stacked import (
  Shared,
  TaskGrads,
  check_shared,
  transformation,
)
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Mean, trust_region


class CAGradState(NamedTuple):
  """State of `cagrad`.

  Attributes:
    weights: f32[K], of the gradients in the result, for the shared leaves; 0 for a
      task that was absent.
    residual: f32[], see `igb_jax.balancers.solvers.trust_region`.
    gramian: of the latest shared gradients.
  """

  weights: jax.Array
  residual: jax.Array
  gramian: Gramian


@method(
  "cagrad",
  "gradient",
  paper="Liu et al., NeurIPS 2021",
  draws=False,
  solves=True,
  avoids_conflict=False,
  heads="summed",
)
def cagrad(
  num_tasks: int, *, c: jax.typing.ArrayLike = 0.4, shared: Shared = None
) -> optax.GradientTransformationExtraArgs:
  """Improves the worst task as far as a ball round the mean gradient allows.

  Args:
    num_tasks: K, the number of tasks.
    c: radius of the ball in units of |g_0|; 0 gives the plain sum.
    shared: which leaves enter the Gramian: a predicate on the key path, a pytree of
      bools like the parameters or a prefix of one, or None for all. The other leaves
      get the plain sum.

  Returns:
    An optax transformation of task gradients, leaves float[K, ...], into one gradient;
    state `CAGradState`.

  Raises:
    TypeError: `num_tasks` is no integer, `c` no number, or a part of `shared` no bool.
    ValueError: `num_tasks` is below 1, `c` negative or not finite, `shared` does not
      fit or shares nothing, or a leaf has no leading axis K.

  Example:
    >>> balancer = cagrad(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print([f"{value:.3f}" for value in gradient["x"]])
    ['1.633', '1.724']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  c = check_positive("c", c, or_zero=True)

  def init(params: optax.Params) -> CAGradState:
    check_shared(shared, params)
    return CAGradState(
      weights=jnp.ones(num_tasks, jnp.float32),
      residual=jnp.zeros((), jnp.float32),
      gramian=Gramian.zeros(num_tasks),
    )

  def update(
    task_grads: optax.Updates,
    state: optax.OptState,
    params: optax.Params | None,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[optax.Updates, CAGradState]:
    del state, extra
    grads = TaskGrads.of(task_grads, num_tasks, shared, present, params)
    gramian = grads.gramian()
    mean = Mean.of(grads.shared, gramian, present)
    # c may be traced; the problem has no ball where it is 0
    radius = jnp.where(c > 0, c, 1.0).astype(jnp.float32)
    solution = trust_region(gramian, mean, radius, present, grads.shared)
    weights, residual = (jnp.where(c > 0, part, 0.0) for part in solution)
    weights = (1 + grads.num_present * weights) / (1 + c**2)
    return grads.sum(weights, jnp.ones_like(weights)), CAGradState(
      weights, residual, gramian
    )

  return transformation(num_tasks, init, update)
