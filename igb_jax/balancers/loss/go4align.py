"""GO4Align: tasks in groups that share a weight.

    p <- p exp(-eta L),  normalised to sum 1        p_k = 1 / K at the start
    gamma_k = p_k sum_j L_j / L_k
    w = for each task the mean of gamma over its group,    weighted loss_k = w_k L_k

The groups minimise the squared distance of gamma from their means. gamma brings the
losses to one scale, and gives more to those that were small so far. Reference: Shen et
al., "GO4Align: Group Optimization for Multi-Task Alignment", NeurIPS 2024, section 4.
The paper has the mean of the losses in the place of their sum; we do as its code does,
which is K times that. Its k-means starts at random and stops early; ours is exact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_positive
from igb_jax.balancers.common import LARGEST_LOG, constant_float32, is_valid
from igb_jax.balancers.loss.base import Absent, loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers.grouping import group_means
from igb_jax.balancers.types import LossBalancer


class GO4AlignState(NamedTuple):
  """State of `go4align`.

  Attributes:
    log_p: f32[K], log p.
    weights: f32[K], weights of the latest update.
  """

  log_p: jax.Array
  weights: jax.Array


@method(
  "go4align",
  "loss",
  paper="Shen et al., NeurIPS 2024",
  forward_passes=1,
  backward_passes="1",
  draws=False,
  needs_positive=True,
  equivariant=True,
  scale_invariant=False,
  takes_log=False,
  normalised=False,
  positive=True,
  recovers=False,
  ties_tasks=True,
  needs=(),
)
def go4align(
  num_tasks: int,
  *,
  num_groups: int = 2,
  learning_rate: jax.typing.ArrayLike = 1e-4,
  absent: Absent = "leave_out",
) -> LossBalancer:
  """GO4Align: groups of tasks that progress alike get one weight.

  p remembers every loss: a single one of the size 1 / `learning_rate` takes its task's
  weight for good. A loss that is not positive and finite has the weight 0 and is not
  remembered.

  Args:
    num_tasks: K.
    num_groups: M, at most; the paper takes 2 for NYUv2 and 5 for QM9. With 1 all
      weights are equal.
    learning_rate: eta, in units of 1 / loss.
    absent: see `Absent`.

  Returns:
    A `LossBalancer`; state `GO4AlignState`.

  Example:
    >>> balancer = go4align(3, num_groups=2)
    >>> _, state = balancer.update(jnp.array([1.0, 1.25, 5.0]), balancer.init())
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['2.175', '2.175', '0.483']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  num_groups = check_count("num_groups", num_groups)
  learning_rate = check_positive("learning_rate", learning_rate)
  tiny = float(jnp.finfo(jnp.float32).tiny)

  def init(key: jax.Array | None = None) -> GO4AlignState:
    del key
    return GO4AlignState(
      log_p=jnp.full(num_tasks, -jnp.log(float(num_tasks)), jnp.float32),
      weights=jnp.ones(num_tasks, jnp.float32),
    )

  def update(
    losses: jax.Array, state: GO4AlignState, present: jax.Array | None, **extra: Any
  ) -> tuple[jax.Array, GO4AlignState]:
    del extra
    constant = constant_float32(losses)
    valid = is_valid(constant, present)
    log_p = state.log_p - learning_rate * jnp.where(valid, constant, 0.0)
    log_p = jnp.maximum(jax.nn.log_softmax(log_p), jnp.finfo(jnp.float32).min)
    logs = jnp.log(jnp.where(valid, constant, 1.0))
    total = jax.nn.logsumexp(logs, where=valid)
    logits = jax.nn.log_softmax(log_p, where=valid) + total - logs
    gamma = jnp.exp(jnp.clip(logits, -LARGEST_LOG, LARGEST_LOG))
    means = jnp.maximum(group_means(gamma, num_groups, valid), tiny)
    weights = jnp.where(valid, means, 0.0)
    return weights * losses, GO4AlignState(log_p, weights)

  return loss_balancer(num_tasks, init, update, absent)
