"""Gradient balancers that are a rule, from the Gramian of task gradients to weights.

    task_grads [K, ...]  ->  Gramian G  ->  w = rule(G)  ->  sum_k w_k g_k

A method's file has the rule. All else is here: the weights that are held between
updates, what leaves that are not shared get, random draws, clipping.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_one_of, check_positive
from igb_jax.balancers.common import split_key_data
from igb_jax.balancers.gradient.base import (
  Combined,
  GradientBalancer,
  GradientState,
  gradient_balancer,
  one_step_less,
)
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.solvers import Gramian, Solution

# `track(grads, memory) -> (followed, memory)`, of what a method follows instead.
Track = Callable[[TaskGrads, Any], tuple[TaskGrads, Any]]

# `around(weights, grads, memory) -> (weights, memory)`, of what wraps a rule.
Around = Callable[[jax.Array, TaskGrads, Any], tuple[jax.Array, Any]]

LARGEST_WEIGHT = 1e34  # where gradients are divided: float32 must hold a sum of K

# 1, but no Python int: `optax.inject_hyperparams` would trace a default that is one.
EVERY_STEP = cast(int, jnp.dtype("int64").type(1))


def weighting(
  num_tasks: int,
  rule: Callable[..., Any],
  *,
  shared: Shared = None,
  update_every: int = EVERY_STEP,
  heads: Literal["weighted", "summed"] = "weighted",
  gramian_only: bool = True,
  max_norm: jax.typing.ArrayLike | None = None,
  draws: bool = False,
  violation: Callable[..., jax.Array] | None = None,
  memory: Any = None,
  track: Track | None = None,
  keeps_grads: bool = False,
  holds_absent: bool = False,
  extra: Sequence[str] = (),
) -> GradientBalancer:
  """Makes a gradient balancer of a rule.

  With `update_every=n` every n-th step updates the weights. The steps in between need
  no task gradients: they may take one gradient of sum_k held_k loss_k and pass it with
  `combined=True` (`igb_jax.value_and_balanced_grad` does).

      if state.steps_left == 0:  update(task_grads, state)
      else:                      update(gradient, state, combined=True)

  (`combined` is a Python bool; the choice between the two is `jax.lax.cond`'s.) A task
  that is absent at an update of the weights has the weight 0 until the next; one that
  is absent in between is left out of the sum. Weights that are held are not for
  gradients that differ per device within `jax.shard_map`.

  Args:
    num_tasks: K, the number of tasks.
    rule: `rule(grads, gramian) -> Solution`, of `TaskGrads` and their `Gramian`; it
      also gets by keyword what `draws`, `memory` and `extra` announce. Weights of
      absent tasks may be anything.
    shared: which leaves of the parameters enter the Gramian: a predicate on the key
      path, a pytree of bools like the parameters or a prefix of one, or None for all.
    update_every: steps from one update of the weights to the next.
    heads: whether leaves that are not shared get the sum with the same weights, or the
      plain sum.
    gramian_only: whether the Gramian is all that the rule needs. Where the gradients
      never exist together, `grads.shared` is None.
    max_norm: norm to which the gradient in the shared leaves is clipped; None for no
      bound.
    draws: whether the rule draws random numbers; it gets `key`, a PRNG key.
    violation: `violation(grads, gramian, weights) -> f32[]`, by how much the weights
      miss what was asked of them; for an equation that may have no solution. It also
      gets by keyword what `extra` announces.
    memory: what the rule remembers, as it is before the first update: a pytree of
      arrays, or `memory(params, is_shared)` that returns one. The rule gets it as
      `memory` and returns a pair `(Solution, memory)`.
    track: `track(grads, memory) -> (followed, memory)`, of a method that follows, say,
      moving means of the gradients: at an update of the weights, the rule, the Gramian
      and the sum are of these `TaskGrads` instead. It needs `memory`.
    keeps_grads: whether the memory has numbers for every shared parameter.
    holds_absent: whether a task that is absent at an update of the weights has the
      weight that the rule gave it at the steps after that, instead of 0.
    extra: names of extra arguments of `update` that the rule needs; those that were not
      passed are None.

  Returns:
    The balancer; its state is a `GradientState`.

  Raises:
    TypeError: `num_tasks` or `update_every` is not an integer, or, by `init`, a part of
      `shared` is not a bool.
    ValueError: one of them is below 1; or, by `init`, `shared` does not fit or shares
      nothing; or, by `update`, a leaf has no leading axis K, or `combined` is passed
      though every step updates the weights or though the gradients are stacked.

  Example:
    >>> from igb_jax.balancers.solvers import Solution
    >>> def unit(grads, gramian):  # every task gradient as long as the shortest
    ...   return Solution(gramian.norms.min() / gramian.norms)
    >>> balancer = weighting(2, unit)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"], state.weights)
    [1. 1.] [1.   0.25]
  """
  num_tasks = check_count("num_tasks", num_tasks)
  update_every = check_count("update_every", update_every)
  check_one_of("heads", heads, ("weighted", "summed"))
  bound = None if max_norm is None else check_positive("max_norm", max_norm)

  def clip(leaves: list[jax.Array]) -> list[jax.Array]:
    if bound is None:
      return leaves
    norm = Gramian.of([leaf[None] for leaf in leaves]).norms[0]
    scale = jnp.minimum(1.0, bound / jnp.maximum(norm, bound))
    return [(scale * leaf).astype(leaf.dtype) for leaf in leaves]

  def apply(leaves: list[jax.Array], state: GradientState) -> Combined:
    weights = state.weights
    others = weights if heads == "weighted" else jnp.ones_like(weights)
    return Combined(clip(leaves), others, state)

  def choose(
    grads: TaskGrads, state: GradientState, **given: Any
  ) -> tuple[TaskGrads, GradientState]:
    kept = state.memory
    if track is not None:
      grads, kept = track(grads, kept)
    gramian = grads.gramian()
    announced = {name: given.get(name) for name in extra}
    inputs: dict[str, Any] = dict(announced)
    key = state.key
    if key is not None:
      key, inputs["key"] = split_key_data(key)
    if memory is None:
      solution = rule(grads, gramian, **inputs)
    else:
      solution, kept = _pair(rule(grads, gramian, memory=kept, **inputs))
    _check_solution(solution, num_tasks)
    weights, residual = (jnp.asarray(part, jnp.float32) for part in solution)
    missed = jnp.zeros((), jnp.float32)
    if violation is not None:
      missed = jnp.float32(violation(grads, gramian, weights, **announced))
    held = steps_left = None
    if state.held is not None:
      present = grads.present
      held = weights
      if present is not None and not holds_absent:
        held = jnp.where(present, weights, 0.0)
      steps_left = jnp.full((), update_every - 1, jnp.int32)
    return grads, GradientState(
      weights=weights,
      gramian=gramian,
      residual=residual,
      key=key,
      violation=missed,
      held=held,
      steps_left=steps_left,
      memory=kept,
    )

  def weigh(grads: TaskGrads, state: GradientState, **given: Any) -> GradientState:
    return choose(grads, state, **given)[1]

  def combine(grads: TaskGrads, state: GradientState, **given: Any) -> Combined:
    def fresh() -> tuple[list[jax.Array], GradientState]:
      followed, new = choose(grads, state, **given)
      summed = zip(followed.sum(new.weights), grads.all, strict=True)
      return [leaf.astype(g.dtype) for leaf, g in summed], new

    def waiting() -> tuple[list[jax.Array], GradientState]:
      new = one_step_less(state)
      return grads.sum(new.weights), new

    if state.steps_left is None:
      return apply(*fresh())
    return apply(*jax.lax.cond(state.steps_left == 0, fresh, waiting))

  def rewrap(
    around: Around, start: Callable[[], Any] = lambda: None
  ) -> GradientBalancer:
    def wrapped(
      grads: TaskGrads, gramian: Gramian, *, memory: Any, **given: Any
    ) -> tuple[Solution, Any]:
      inner, own = memory
      if inner is None:
        solution = rule(grads, gramian, **given)
      else:
        solution, inner = rule(grads, gramian, memory=inner, **given)
      weights, own = around(solution.weights, grads, own)
      return solution._replace(weights=weights), (inner, own)

    def tracked(grads: TaskGrads, memory: Any) -> tuple[TaskGrads, Any]:
      assert track is not None
      followed, inner = track(grads, memory[0])
      return followed, (inner, memory[1])

    def remembered(params: Any, is_shared: Any) -> Any:
      if callable(memory):
        return memory(params, is_shared), start()
      return jax.tree.map(jnp.array, memory), start()

    return weighting(
      num_tasks,
      wrapped,
      shared=shared,
      update_every=update_every,
      heads=heads,
      gramian_only=gramian_only,
      max_norm=max_norm,
      draws=draws,
      violation=violation,
      memory=remembered,
      track=None if track is None else tracked,
      keeps_grads=keeps_grads,
      holds_absent=holds_absent,
      extra=extra,
    )

  balancer = gradient_balancer(
    num_tasks,
    combine,
    shared=shared,
    draws=draws,
    update_every=update_every,
    memory=memory,
    keeps_grads=keeps_grads,
    extra=extra,
    weigh=weigh if gramian_only else None,
    apply=apply,
  )
  balancer.rewrap = rewrap
  return balancer


def _pair(answer: Any) -> tuple[Any, Any]:
  if isinstance(answer, Solution) or not isinstance(answer, tuple) or len(answer) != 2:
    raise TypeError(
      "a rule with memory must return a pair (Solution, memory), got "
      f"{type(answer).__name__}."
    )
  return answer


def _check_solution(solution: Any, num_tasks: int) -> None:
  if not isinstance(solution, Solution):
    raise TypeError(
      "a rule must return a solvers.Solution(weights, residual), got "
      f"{type(solution).__name__}."
    )
  if jnp.shape(solution.weights) != (num_tasks,):
    raise ValueError(
      f"the weights of a rule must have the shape ({num_tasks},), one per task, got "
      f"{jnp.shape(solution.weights)}."
    )
