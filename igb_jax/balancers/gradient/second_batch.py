"""Inner products of the task gradients of two batches, which are without bias."""

from typing import Any

import jax
import jax.numpy as jnp

from igb_jax.balancers.gradient.shared import Shared
from igb_jax.balancers.gradient.stacked import Stacked, TaskGrads
from igb_jax.balancers.solvers.products import inner_products


def cross_products(
  grads: TaskGrads, shared: Shared, task_grads_2: Any, cross_gramian: Any
) -> jax.Array | None:
  """f32[K, K]: A_ij = <g_i, h_j>, or None where no second batch is given.

  Args:
    grads: g, of the first batch.
    shared: which leaves enter, see `Shared`.
    task_grads_2: h, stacked like the first; or None.
    cross_gramian: A itself; or None.

  Raises:
    ValueError: both are given; `cross_gramian` has another shape; or the gradients of
      the first batch never exist together, and no `cross_gramian` is given.
  """
  if task_grads_2 is None and cross_gramian is None:
    return None
  if task_grads_2 is not None and cross_gramian is not None:
    raise ValueError("pass task_grads_2 or cross_gramian, not both.")
  if cross_gramian is not None:
    num_tasks = len(grads.known.norms if grads.known is not None else grads.all[0])
    products = jnp.asarray(cross_gramian, jnp.float32)
    if products.shape != (num_tasks, num_tasks):
      raise ValueError(
        f"cross_gramian must have the shape ({num_tasks}, {num_tasks}), got "
        f"{products.shape}."
      )
  else:
    first = grads.shared
    if first is None:
      raise ValueError(
        "task_grads_2 needs the gradients of the first batch as well; leave out "
        "keep_task_grads=False, or pass cross_gramian, f32[K, K]."
      )
    num_tasks = len(first[0])
    second = TaskGrads(
      Stacked.of(task_grads_2, num_tasks, shared).pick(True), grads.present
    )
    products = jnp.zeros((num_tasks, num_tasks), jnp.float32)
    for left, right in zip(first, second.all, strict=True):
      products += inner_products(left, right).astype(jnp.float32)
  if grads.present is None:
    return products
  return jnp.where(grads.present[:, None] & grads.present, products, 0.0)
