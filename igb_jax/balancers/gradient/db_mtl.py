"""Dual-balancing (DB-MTL): moving means of the task gradients, all of one length.

At step t = 0, 1, ..., with beta_t = beta / (t + 1)^sigma and b = 0 before the first:

    b_k <- beta_t b_k + (1 - beta_t) g_k
    d = max_j |b_j| sum_k b_k / |b_k|

Reference: Lin et al., "Dual-Balancing for Multi-Task Learning", 2023, Algorithm 1. The
g_k are to be gradients of the logarithms of the losses, which is the loss half of the
method: "si+dbmtl". Other leaves get the plain sum. The published code adds 1e-8 to the
norms; here a zero mean adds nothing, and no result depends on the units.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_fraction, check_positive
from igb_jax.balancers.common import increment
from igb_jax.balancers.gradient.base import GradientBalancer
from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import TaskGrads, buffers, follow
from igb_jax.balancers.gradient.unit_gradients import inverse_norms
from igb_jax.balancers.gradient.weighting import weighting
from igb_jax.balancers.methods import method
from igb_jax.balancers.solvers import Gramian, Solution


class DBMTLMemory(NamedTuple):
  """What `db_mtl` keeps beside, in `GradientState.memory`.

  Attributes:
    means: b, f32[K, ...] for each shared parameter, None for the others.
    step: i32[], t.
  """

  means: Any
  step: jax.Array


@method(
  "dbmtl",
  "gradient",
  paper="Lin et al., 2023",
  forward_passes=1,
  backward_passes="K",
  draws=False,
  needs_positive=False,
  equivariant=True,
  degree=1,
  scale_invariant=True,
  gramian_only=False,
  solves=False,
  avoids_conflict=False,
  heads="summed",
  fewest_tasks=1,
  needs=(),
)
def db_mtl(
  num_tasks: int,
  *,
  beta: jax.typing.ArrayLike = 0.9,
  sigma: jax.typing.ArrayLike = 0.0,
  shared: Shared = None,
) -> GradientBalancer:
  """Follows moving means of the task gradients, made as long as the longest.

  The means take the memory of K gradients more; with `beta=0` there are none. The
  Gramian in the state is that of the means, and the weights are theirs. With a constant
  beta the first results are 1 - beta^t times shorter. The mean of a task that is absent
  stays as it is.

  Args:
    num_tasks: K.
    beta: how much of the means stays, from 0 to 1; the paper tries 0.1, 0.5 and 0.9.
    sigma: how fast that falls; the paper tries 0 and 0.5.
    shared: see `weighting`; other leaves get the plain sum.

  Example:
    >>> balancer = db_mtl(num_tasks=2, beta=0.5)
    >>> state = balancer.init({"x": jnp.zeros(2)})
    >>> task_grads = {"x": jnp.array([[1.0, 0.0], [0.0, 4.0]])}
    >>> gradient, state = balancer.update(task_grads, state)
    >>> print(gradient["x"], state.weights)
    [2. 2.] [4. 1.]
  """
  beta = check_fraction("beta", beta)
  sigma = check_positive("sigma", sigma, or_zero=True)
  remembers = not (isinstance(beta, float) and beta == 0)

  def memory(params: Any, is_shared: list[bool]) -> DBMTLMemory:
    return DBMTLMemory(buffers(num_tasks, params, is_shared), jnp.zeros((), jnp.int32))

  def track(grads: TaskGrads, memory: DBMTLMemory) -> tuple[TaskGrads, DBMTLMemory]:
    time = (memory.step + 1).astype(jnp.float32)
    rate = 1 - jnp.float32(beta) / time**sigma
    means, kept = follow(memory.means, grads, rate)
    return means, DBMTLMemory(kept, increment(memory.step))

  def lengthened(grads: TaskGrads, gramian: Gramian) -> Solution:
    del grads
    return Solution(inverse_norms(gramian)[0])

  if not remembers:
    return weighting(num_tasks, lengthened, shared=shared, heads="summed")
  return weighting(
    num_tasks,
    lambda grads, gramian, memory: (lengthened(grads, gramian), memory),
    shared=shared,
    heads="summed",
    gramian_only=False,
    memory=memory,
    track=track,
    keeps_grads=True,
  )
