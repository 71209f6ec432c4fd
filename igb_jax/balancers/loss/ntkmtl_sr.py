"""NTKMTL with the gradients in the shared representation (NTKMTL-SR).

    lambda_k = largest eigenvalue of D_k D_k^T,    rows of D_k: dl_jk / dz,  j = 1 .. n

    w_k = (sum_i lambda_i / lambda_k)^exponent,    weighted loss_k = w_k L_k

where l_jk is the loss of task k on the j-th of n chunks of the batch, and z the shared
representation of the whole batch: the lambda are the largest eigenvalues of the tasks'
neural tangent kernels, by which tasks learn at different speed. A chunk's loss depends
on its own rows of z alone (no batch statistics in the heads), so the rows of D_k have
no place in common, and lambda_k is the largest of their squared norms.

Reference: Qin et al., "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from
Neural Tangent Kernel Perspective", NeurIPS 2025, section 4.3. The paper has the mean of
the lambda in the place of their sum; we do as its code does, which is K^exponent times
that.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.checks import check_count, check_positive
from igb_jax.balancers.common import LARGEST_LOG, is_known
from igb_jax.balancers.loss.base import loss_balancer
from igb_jax.balancers.methods import method
from igb_jax.balancers.types import LossBalancer


class NTKMTLSRState(NamedTuple):
  """State of `ntkmtl_sr`.

  Attributes:
    weights: f32[K], weights of the latest update.
  """

  weights: jax.Array


@method(
  "ntksr",
  "loss",
  paper="Qin et al., NeurIPS 2025",
  forward_passes=1,
  backward_passes="heads",
  draws=False,
  needs_positive=False,
  equivariant=True,
  scale_invariant=True,
  takes_log=False,
  normalised=False,
  positive=True,
  recovers=True,
  ties_tasks=True,
  needs=("rep_norms",),
)
def ntkmtl_sr(
  num_tasks: int,
  *,
  exponent: jax.typing.ArrayLike = 0.5,
  num_chunks: int = 4,
) -> LossBalancer:
  """NTKMTL-SR: more weight to tasks that move the representation least.

  `update` needs the extra argument `rep_norms`: float[n, K], the squared norms of the
  gradients of the chunks' losses in the representation, or a function
  `rep_norms(num_chunks)` that returns them. `igb_jax.value_and_balanced_grad` passes it
  where it has a `trunk=`; `igb_jax.rep_norms` makes it of gradients in the features. A
  task whose norms are all 0, or not finite, has the weight 0.

  Args:
    num_tasks: K.
    exponent: 0.5; the paper's script for NYUv2 has 0.75.
    num_chunks: n, into which a function `rep_norms` divides the batch.

  Returns:
    A `LossBalancer`; state `NTKMTLSRState`.

  Raises:
    ValueError: by `update`, `rep_norms` is missing or has another shape.

  Example:
    >>> balancer = ntkmtl_sr(2)
    >>> norms = jnp.array([[1.0, 4.0], [2.0, 16.0]])
    >>> losses, state = jnp.array([1.0, 1.0]), balancer.init()
    >>> weighted, state = balancer.update(losses, state, rep_norms=norms)
    >>> [f"{weight:.3f}" for weight in state.weights]
    ['3.000', '1.061']
  """
  num_tasks = check_count("num_tasks", num_tasks)
  num_chunks = check_count("num_chunks", num_chunks)
  exponent = check_positive("exponent", exponent)

  def init(key: jax.Array | None = None) -> NTKMTLSRState:
    del key
    return NTKMTLSRState(jnp.ones(num_tasks, jnp.float32))

  def update(
    losses: jax.Array,
    state: NTKMTLSRState,
    present: jax.Array | None,
    *,
    rep_norms: Any = None,
    **extra: Any,
  ) -> tuple[jax.Array, NTKMTLSRState]:
    del state, extra
    eigenvalues = _check_norms(rep_norms, num_tasks, num_chunks).max(axis=0)
    usable = is_known(eigenvalues, present) & (eigenvalues > 0)
    logs = jnp.log(jnp.where(usable, eigenvalues, 1.0))
    logits = exponent * (jax.nn.logsumexp(logs, where=usable) - logs)
    weights = jnp.exp(jnp.clip(logits, -LARGEST_LOG, LARGEST_LOG))
    weights = jnp.where(usable, weights, 0.0)
    return weights * losses, NTKMTLSRState(weights)

  return loss_balancer(num_tasks, init, update)


def _check_norms(rep_norms: Any, num_tasks: int, num_chunks: int) -> jax.Array:
  if rep_norms is None:
    raise ValueError(
      "ntksr needs rep_norms, the squared norms of the gradients of the losses in the "
      "shared representation: give value_and_balanced_grad a trunk=, or pass "
      "rep_norms=, see igb_jax.rep_norms."
    )
  norms = jnp.asarray(rep_norms(num_chunks) if callable(rep_norms) else rep_norms)
  if norms.ndim != 2 or norms.shape[1] != num_tasks:
    raise ValueError(
      f"rep_norms must have the shape (number of chunks, {num_tasks}), got "
      f"{norms.shape}."
    )
  return jax.lax.stop_gradient(norms.astype(jnp.float32))
