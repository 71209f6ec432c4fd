"""Multiple gradient descent algorithm (MGDA).

    w = argmin |sum_k w_k g_k|^2  over w >= 0, sum_k w_k = 1,    d = sum_k K w_k g_k

-d lowers every loss, or is zero where none can fall without another's rise. References:
Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization",
Comptes Rendus Mathématique 2012; Sener and Koltun, "Multi-Task Learning as
Multi-Objective Optimization", NeurIPS 2018.

The published code stops its Frank-Wolfe iteration early, above all where the answer is
one task alone; this solves the problem exactly. The factor K, by which the weights
compare with those of a plain sum, is that of the code of IGB and Nash-MTL.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.common import check_count
from igb_jax.balancers.gradient.stacked import (
  Shared,
  TaskGrads,
  check_shared,
  transformation,
)
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, min_norm


class MGDAState(NamedTuple):
  """State of `mgda`.

  Attributes:
    weights: f32[K], K w; they sum to K, which counts the tasks that were present.
    residual: f32[], see `igb_jax.balancers.solvers.min_norm`.
    gramian: of the latest shared gradients.
  """

  weights: jax.Array
  residual: jax.Array
  gramian: Gramian


@method(
  "mgda",
  "gradient",
  paper="Sener and Koltun, NeurIPS 2018",
  draws=False,
  solves=True,
  avoids_conflict=True,
  heads="weighted",
)
def mgda(
  num_tasks: int, *, shared: Shared = None
) -> optax.GradientTransformationExtraArgs:
  """Follows the shortest vector in the convex hull of the task gradients.

  Tasks whose shared gradient is zero share the whole weight.

  Args:
    num_tasks: K, the number of tasks.
    shared: which leaves enter the Gramian: a predicate on the key path, a pytree of
      bools like the parameters or a prefix of one, or None for all. The other leaves
      get the same weighted sum.

  Returns:
    An optax transformation of task gradients, leaves float[K, ...], into one gradient;
    state `MGDAState`.

  Raises:
    TypeError: `num_tasks` is no integer, or a part of `shared` no bool.
    ValueError: `num_tasks` is below 1, `shared` does not fit or shares nothing, or a
      leaf has no leading axis K.

  Example:
    >>> balancer = mgda(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 2.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"], state.weights)
    [1.6 0.8] [1.6 0.4]
  """
  num_tasks = check_count("num_tasks", num_tasks)

  def init(params: optax.Params) -> MGDAState:
    check_shared(shared, params)
    return MGDAState(
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
  ) -> tuple[optax.Updates, MGDAState]:
    del state, extra
    grads = TaskGrads.of(task_grads, num_tasks, shared, present, params)
    gramian = grads.gramian()
    solution = min_norm(gramian, present, grads.shared)
    weights = grads.num_present * solution.weights
    return grads.sum(weights, weights), MGDAState(weights, solution.residual, gramian)

  return transformation(num_tasks, init, update)
