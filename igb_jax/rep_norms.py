"""How strongly each task pulls at the shared representation, chunk by chunk."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from igb_jax.balancers.checks import check_count


def rep_norms(task_grads: Any, num_chunks: int) -> jax.Array:
  """Squared norms of the gradients of chunks' losses in the features of a batch.

  The loss of a chunk is taken for the mean over its rows, and that of the batch for the
  mean over all rows. So the gradient of the one in its rows is that of the other,
  divided by the chunk's share of the rows, and no chunk needs a backward pass.

  Args:
    task_grads: the gradients of the K losses in the features, a pytree with leaves
      float[K, B, ...], B rows each.
    num_chunks: n, into which the rows are divided; the least B where there are
      fewer rows.

  Returns:
    f32[n, K], sums over all leaves, for `rep_norms` of `igb_jax.balancers.ntkmtl_sr`.

  Raises:
    ValueError: a leaf does not have the axes K and B.

  Example:
    >>> task_grads = jnp.array([[[1.0], [0.0]], [[1.0], [2.0]]])  # two tasks, two rows
    >>> print(rep_norms(task_grads, num_chunks=2))
    [[ 4.  4.]
     [ 0. 16.]]
  """
  num_chunks = check_count("num_chunks", num_chunks)
  leaves = jax.tree.leaves(task_grads)
  for leaf in leaves:
    if leaf.ndim < 2:
      raise ValueError(
        "rep_norms divides the rows of the features into chunks, so that gradients in "
        f"them must have the shape (K, rows, ...), got {leaf.shape}; let trunk return "
        "one row per example."
      )
  num_chunks = min(num_chunks, *(leaf.shape[1] for leaf in leaves))
  norms = jnp.zeros((), jnp.float32)
  for leaf in leaves:
    rows = leaf.shape[1]
    chunks = np.array_split(np.arange(rows), num_chunks)
    flat = leaf.astype(jnp.float32).reshape(*leaf.shape[:2], -1)
    norms += jnp.stack(
      [
        jnp.sum((flat[:, chunk[0] : chunk[-1] + 1] * (rows / len(chunk))) ** 2, (1, 2))
        for chunk in chunks
      ]
    )
  return norms
