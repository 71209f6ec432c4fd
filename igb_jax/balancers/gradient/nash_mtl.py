"""Nash-MTL: the task gradients bargain for a common direction.

    d = sum_k a_k g_k,    G a = 1 / a,  a > 0,    |d| = sqrt(K)

and the shared part of d is then clipped to the norm `max_norm`. Reference: Navon et
al., "Multi-Task Learning as a Bargaining Game", ICML 2022, equation 2, Algorithm 1.

The published code approaches a by 20 rounds of a convex solver on the host, from the
weights of the step before, and returns what it has when they do not converge; here
Newton's method solves the equation at every update, so that the start is of no
consequence. G is scaled to cosines for the solver, there divided by its Frobenius norm;
the weights are those of G itself in both.
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
  shared_leaves,
  transformation,
)
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Combination, Gramian, nash


class NashMTLState(NamedTuple):
  """State of `nash_mtl`.

  Attributes:
    weights: f32[K], a, before clipping; 0 for a task that was absent.
    residual: f32[], see `igb_jax.balancers.solvers.nash`: small even where no weights
      solve the equation.
    gramian: of the shared gradients of the latest update of the weights.
    held: f32[K], the weights that the next steps use too; None where `update_every` is
      1.
    steps_left: i32[], steps that will use them before they are updated again; None
      where `update_every` is 1.
    violation: f32[], the largest |a_k (G a)_k - 1| over the tasks that were present;
      of the order of 1 where no weights solve the equation (the hull of the gradients
      contains zero, or one of them is zero).
  """

  weights: jax.Array
  residual: jax.Array
  gramian: Gramian
  held: jax.Array | None
  steps_left: jax.Array | None
  violation: jax.Array


@method(
  "nashmtl",
  "gradient",
  paper="Navon et al., ICML 2022",
  draws=False,
  solves=True,
  avoids_conflict=True,
  heads="weighted",
)
def nash_mtl(
  num_tasks: int,
  *,
  max_norm: jax.typing.ArrayLike = 1.0,
  update_every: int = 1,
  shared: Shared = None,
) -> optax.GradientTransformationExtraArgs:
  """Follows the Nash bargaining solution of the task gradients.

  Between updates of the weights their sum needs no task gradients: a step may then take
  one gradient of sum_k held_k loss_k and pass it with the extra argument
  `combined=True`. It is only clipped.

      if state.steps_left == 0:  update(task_grads, state)
      else:                      update(gradient, state, combined=True)

  (`combined` is a Python bool; the choice between the two is `jax.lax.cond`'s.) A task
  that is absent at an update of the weights has the weight 0 until the next; one that
  is absent in between is left out of the sum.

  Args:
    num_tasks: K, the number of tasks.
    max_norm: norm to which the shared part of the result is clipped.
    update_every: steps from one update of the weights to the next. Above 1 it is not
      for gradients that differ per device within `jax.shard_map`.
    shared: which leaves enter the Gramian: a predicate on the key path, a pytree of
      bools like the parameters or a prefix of one, or None for all. The other leaves
      get the same weighted sum, unclipped.

  Returns:
    An optax transformation of task gradients, leaves float[K, ...], into one gradient;
    state `NashMTLState`. A zero shared gradient has no bargaining weight; see
    `igb_jax.balancers.solvers.nash` for the one that it gets.

  Raises:
    TypeError: a count is no integer, `max_norm` no number, or a part of `shared` no
      bool.
    ValueError: a count is below 1, `max_norm` not finite and positive, `shared` does
      not fit or shares nothing, a leaf has no leading axis K, or `combined` is passed
      though every step updates the weights or though the gradients are stacked.

  Example:
    >>> balancer = nash_mtl(num_tasks=2)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(state.weights, gradient["x"])
    [1.   0.25] [0.70710677 0.70710677]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  update_every = check_count("update_every", update_every)
  max_norm = check_positive("max_norm", max_norm)

  def init(params: optax.Params) -> NashMTLState:
    check_shared(shared, params)
    return NashMTLState(
      weights=jnp.ones(num_tasks, jnp.float32),
      residual=jnp.zeros((), jnp.float32),
      gramian=Gramian.zeros(num_tasks),
      held=None if update_every == 1 else jnp.ones(num_tasks, jnp.float32),
      steps_left=None if update_every == 1 else jnp.zeros((), jnp.int32),
      violation=jnp.zeros((), jnp.float32),
    )

  def clip(gradient: optax.Updates) -> optax.Updates:
    leaves, structure = jax.tree.flatten(gradient)
    is_shared = shared_leaves(shared, gradient)
    pairs = list(zip(leaves, is_shared, strict=True))
    norm = Gramian.of([leaf[None] for leaf, flag in pairs if flag]).norms[0]
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(norm, max_norm))
    return jax.tree.unflatten(
      structure,
      [(scale * leaf).astype(leaf.dtype) if flag else leaf for leaf, flag in pairs],
    )

  def update(
    task_grads: optax.Updates,
    state: NashMTLState,
    params: optax.Params | None,
    present: jax.Array | None,
    *,
    combined: bool = False,
    **extra: Any,
  ) -> tuple[optax.Updates, NashMTLState]:
    del extra
    if combined:
      if state.steps_left is None:
        raise ValueError(
          "nash_mtl got combined=True, but with update_every=1 every step updates the "
          "weights and needs the task gradients; pass those, or a larger update_every."
        )
      shapes = [jax.tree.map(jnp.shape, tree) for tree in (task_grads, params)]
      if params is not None and shapes[0] != shapes[1]:
        raise ValueError(
          "nash_mtl got combined=True with gradients that have not the shapes of the "
          "parameters; pass one gradient of sum_k held_k loss_k, not K."
        )
      return clip(task_grads), _one_step_less(state)

    grads = TaskGrads.of(task_grads, num_tasks, shared, present, params)

    def bargain() -> NashMTLState:
      gramian = grads.gramian()
      weights, residual = nash(gramian, grads.shared)
      y = weights * gramian.norms
      products = y * Combination.of(y, gramian, grads.shared).products
      violation = jnp.max(jnp.abs(products - 1), where=present, initial=0.0)
      held = steps_left = None
      if update_every > 1:
        held = weights if present is None else jnp.where(present, weights, 0.0)
        steps_left = jnp.full((), update_every - 1, jnp.int32)
      return NashMTLState(weights, residual, gramian, held, steps_left, violation)

    if state.steps_left is None:
      state = bargain()
    else:
      waiting = _one_step_less(state)
      state = jax.lax.cond(state.steps_left == 0, bargain, lambda: waiting)
    return clip(grads.sum(state.weights, state.weights)), state

  return transformation(num_tasks, init, update)


def _one_step_less(state: NashMTLState) -> NashMTLState:
  assert state.held is not None
  assert state.steps_left is not None
  return state._replace(
    weights=state.held, steps_left=jnp.maximum(state.steps_left - 1, 0)
  )
