"""Uncertainty weighting (UW).

    weighted loss_k = L_k / (2 e^{s_k}) + s_k / 2,    reported w_k = e^{-s_k}

with log(L_k + epsilon) in the place of L_k in the log form. The log variances s start
at 0 and descend the gradient of the sum of the weighted losses by an Adam of their own:

    d/ds_k = (1 - L_k e^{-s_k}) / 2

Beyond what is published, outliers among the derivatives are clipped, see
`igb_jax.balancers.loss.descent`.

The published objective has no minimum where L_k <= 0 (L_k <= 1 in the log form): s
falls for ever, and the weight e^{-s} grows until the gradient is infinite. Here a loss
that is not positive leaves s as it was, and s >= -log(max_weight).

Reference: Kendall et al., "Multi-Task Learning Using Uncertainty to Weigh Losses for
Scene Geometry and Semantics", CVPR 2018, section 3.2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.checks import check_count, check_epsilon
from igb_jax.balancers.common import LARGEST_LOG, log_losses
from igb_jax.balancers.loss import descent
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer

_MAX_WEIGHT = 1e6
_MAX_WEIGHT_OF_LOG = 1e3


class UncertaintyWeightingState(NamedTuple):
  """State of `uncertainty_weighting`.

  Attributes:
    log_variance: f32[K], s.
    adam: optax state, one Adam a task (leading axis K).
    weights: f32[K], weights e^{-s} of the latest update.
  """

  log_variance: jax.Array
  adam: optax.OptState
  weights: jax.Array


@method(
  "uw",
  "loss",
  paper="Kendall et al., CVPR 2018",
  fixed={"log": False},
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=True,
  equivariant=True,
  scale_invariant=False,
  takes_log=False,
  normalised=False,
  positive=True,
  recovers=True,
  ties_tasks=False,
  needs=(),
)
@method(
  "uwlog",
  "loss",
  paper="Kendall et al., CVPR 2018",
  fixed={"log": True},
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=True,
  equivariant=True,
  scale_invariant=False,
  takes_log=True,
  normalised=False,
  positive=True,
  recovers=True,
  ties_tasks=False,
  needs=(),
)
def uncertainty_weighting(
  num_tasks: int,
  *,
  learning_rate: jax.typing.ArrayLike = 0.025,
  max_weight: jax.typing.ArrayLike | None = None,
  log: bool = False,
  epsilon: jax.typing.ArrayLike = 0.0,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """Uncertainty weighting: a learnt log variance per task.

  The weights are used first, then updated. A loss that cannot be used (not positive, or
  not finite) or is absent leaves the variance of its task and that task's Adam as they
  were.

  The log form is for losses that stay above 1. Below that the logarithm is negative, so
  that the weight rises to `max_weight` and stays there; take "si" for such losses. The
  plain form is for positive losses: from one that is negative, as a Gaussian negative
  log-likelihood may be, it learns nothing.

  Args:
    num_tasks: K.
    learning_rate: the learning rate of the log variances' Adam.
    max_weight: the largest weight e^{-s}; by default 1e6, and 1e3 in the log form.
    log: weigh the logarithms of the losses ("uwlog"). A loss that is not positive
      then gives NaN for its own task.
    epsilon: in the log form, added to every loss before its logarithm is taken, so that
      a loss may be 0 or come close to it.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `UncertaintyWeightingState`.

  Example:
    >>> import jax.numpy as jnp
    >>> balancer = uncertainty_weighting(num_tasks=2)
    >>> state = balancer.init()
    >>> for _ in range(3):
    ...   weighted, state = balancer.update(jnp.array([4.0, 0.25]), state)
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['0.951', '1.051']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  epsilon = check_epsilon(epsilon, log=log)
  if max_weight is None:
    max_weight = _MAX_WEIGHT_OF_LOG if log else _MAX_WEIGHT
  highest = descent.check_max_weight(max_weight)
  optimizer = descent.adam(learning_rate)

  def init(key: jax.Array | None = None) -> UncertaintyWeightingState:
    del key
    log_variance = jnp.full(num_tasks, jnp.maximum(-highest(), 0.0))
    return UncertaintyWeightingState(
      log_variance=log_variance,
      adam=jax.vmap(optimizer.init)(log_variance),
      weights=jnp.exp(-log_variance),
    )

  def update(
    losses: jax.Array,
    state: UncertaintyWeightingState,
    present: jax.Array | None,
    **extra: Any,
  ) -> tuple[jax.Array, UncertaintyWeightingState]:
    del extra
    values = log_losses(losses, epsilon) if log else losses
    s = state.log_variance
    weights = jnp.exp(-s)
    weighted = weights * values / 2 + s / 2

    gradient = jax.lax.stop_gradient(1 - weights * values) / 2
    usable = jnp.isfinite(gradient) & (losses > 0)
    if present is not None:
      usable &= present
    s, adam = descent.descend(optimizer, gradient, usable, s, state.adam)
    s = jnp.clip(s, -highest(), LARGEST_LOG)
    return weighted, UncertaintyWeightingState(
      log_variance=s, adam=adam, weights=weights
    )

  return loss_balancer(num_tasks, init, update, absent)
