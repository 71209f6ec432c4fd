"""Weights of any balancer, in groups that share one.

    w_k -> mean of w over the group of k

The groups are the M that minimise the squared distance of the weights from their means.
Reference: Shen et al., "GO4Align: Group Optimization for Multi-Task Alignment", NeurIPS
2024, where it is called AGRM; `igb_jax.balancers.go4align` has its own weights.
"""

from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count
from igb_jax.balancers.gradient.base import GradientBalancer, check_weighs
from igb_jax.balancers.gradient.stacked import TaskGrads
from igb_jax.balancers.solvers.grouping import group_means
from igb_jax.balancers.types import LossBalancer

_Balancer = TypeVar("_Balancer", bound=LossBalancer | GradientBalancer)


class GroupedState(NamedTuple):
  """State of a loss balancer that is grouped.

  Attributes:
    method: state of the balancer itself.
    weights: f32[K], weights of the latest update, after the grouping.
  """

  method: Any
  weights: jax.Array


def grouped(balancer: _Balancer, num_groups: int = 2) -> _Balancer:
  """Gives the tasks of a group the mean of their weights.

  A task that is absent belongs to no group. A loss balancer's weighted losses are
  scaled as its weights are; one whose weight was 0 becomes its group's weight times the
  loss.

  Args:
    balancer: a loss balancer, or a gradient balancer that is a rule on the Gramian.
    num_groups: M, at most.

  Returns:
    A balancer of the same kind; the state of a loss balancer is a `GroupedState`.

  Raises:
    TypeError: `balancer` is neither; what `create` returns has both as parts.
    ValueError: it has no weights of task gradients.

  Example:
    >>> from igb_jax.balancers import scale_invariant
    >>> balancer = grouped(scale_invariant(3), num_groups=2)
    >>> print(balancer.init().weights)
    [1. 1. 1.]
  """
  num_groups = check_count("num_groups", num_groups)
  if isinstance(balancer, LossBalancer):
    return _grouped_loss(balancer, num_groups)
  if not isinstance(balancer, GradientBalancer):
    raise TypeError(
      "grouped takes a loss balancer or a gradient balancer, got "
      f"{type(balancer).__name__}; pass .loss or .gradient of what create returns."
    )
  rewrap = check_weighs("grouped", balancer)

  def group(
    weights: jax.Array, grads: TaskGrads, memory: Any
  ) -> tuple[jax.Array, None]:
    del memory
    return group_means(weights, num_groups, grads.here), None

  return cast(_Balancer, rewrap(group))


def _grouped_loss(balancer: LossBalancer, num_groups: int) -> LossBalancer:
  def init(key: jax.Array | None = None) -> GroupedState:
    method = balancer.init(key)
    return GroupedState(method, jnp.copy(method.weights))

  def update(
    losses: jax.typing.ArrayLike, state: GroupedState, **extra: Any
  ) -> tuple[jax.Array, GroupedState]:
    if not isinstance(state, GroupedState):
      raise TypeError(
        "a grouped balancer needs the state of its own init, got "
        f"{type(state).__name__}."
      )
    weighted, method = balancer.update(losses, state.method, **extra)
    present = extra.get("present")
    everyone = jnp.ones(method.weights.shape, bool)
    here = everyone if present is None else jnp.asarray(present)
    weights = group_means(method.weights, num_groups, here)
    weighs = method.weights != 0
    factors = weights / jnp.where(weighs, method.weights, 1.0)
    raw = weights * jnp.where(weights != 0, jnp.asarray(losses), 0.0)
    # added, so that a loss that the method cannot take still gives NaN
    regrouped = jnp.where(weighs, weighted * factors, weighted + raw)
    return regrouped, GroupedState(method, weights)

  def observe(
    losses_after: jax.typing.ArrayLike, state: GroupedState, **extra: Any
  ) -> GroupedState:
    assert balancer.observe is not None
    return state._replace(method=balancer.observe(losses_after, state.method, **extra))

  return LossBalancer(init, update, balancer.observe and observe)
