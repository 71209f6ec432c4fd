"""The Gramian of K gradients that never exist together.

A tap is an identity on a leaf. Where K cotangents are pulled back through it at once,
by `jax.vmap`, their inner products leave it beside the cotangents; and where nobody
asks for the cotangents, XLA drops those of one leaf before it computes the next.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from igb_jax.balancers.solvers.gramian import Gramian, gramian_of_products
from igb_jax.balancers.solvers.products import accumulator, inner_axes, inner_products


def probes(num_tasks: int, leaves: list[jax.Array]) -> list[jax.Array]:
  """Zeros float[1 + K] for each leaf, whose cotangents will be its inner products.

  Args:
    num_tasks: K.
    leaves: float[...] each.
  """
  # in `shard_map` a cotangent must vary as the leaf does: so do these zeros
  return [
    jnp.zeros(1 + num_tasks, accumulator(leaf))
    + jnp.sum(jnp.zeros_like(leaf), dtype=accumulator(leaf))
    for leaf in leaves
  ]


@jax.custom_vjp
def tap(leaf: jax.Array, probe: jax.Array) -> jax.Array:
  """The leaf.

  Args:
    leaf: float[...].
    probe: f32[1 + K]. Its cotangent under `jax.vmap` over K cotangents of the leaf is
      f32[K, 1 + K], their largest entries by magnitude and their inner products; that
      of a single one is zero.
  """
  del probe
  return leaf


def _forward(leaf: jax.Array, probe: jax.Array) -> tuple[jax.Array, jax.Array]:
  return leaf, probe


def _backward(probe: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
  return cotangent, _products(probe, cotangent)


tap.defvjp(_forward, _backward)


@custom_vmap
def _products(probe: jax.Array, cotangent: jax.Array) -> jax.Array:
  del cotangent
  return jnp.zeros_like(probe)


@_products.def_vmap
def _products_of_each(
  axis_size: int, in_batched: Any, probe: jax.Array, cotangents: jax.Array
) -> tuple[jax.Array, bool]:
  if not in_batched[1]:  # no loss depends on the leaf
    return jnp.zeros((axis_size, probe.shape[-1]), probe.dtype), True
  largest = jnp.max(jnp.abs(cotangents), inner_axes(cotangents), initial=0.0)
  products = inner_products(cotangents, cotangents)
  # what float32 cannot hold is measured again, see `gramian_through`
  return jnp.concatenate([largest[:, None], products], axis=1).astype(probe.dtype), True


def gramian_through(
  products_of: Callable[[jax.Array], list[jax.Array]],
  cotangents: jax.Array,
  present: jax.Array | None = None,
) -> Gramian:
  """The Gramian of the gradients that K cotangents of the losses are pulled back to.

  Where the square of a gradient would overflow or vanish, all of them are pulled back
  again, each divided by its largest entry.

  Args:
    products_of: one cotangent float[K] to those of the probes, f32[1 + K] a leaf.
    cotangents: float[K, K], one per task.
    present: bool[K], all by default; the gradients of the others count as zero.
  """

  def measure(divisor: jax.Array) -> tuple[jax.Array, jax.Array]:
    scaled = cotangents / divisor[:, None].astype(cotangents.dtype)
    of_leaves = jax.vmap(products_of)(scaled)
    largest = functools.reduce(jnp.maximum, (leaf[:, 0] for leaf in of_leaves))
    products = functools.reduce(jnp.add, (leaf[:, 1:] for leaf in of_leaves))
    if present is None:
      return products, largest
    pairs = present[:, None] & present
    return jnp.where(pairs, products, 0.0), jnp.where(present, largest, 0.0)

  products, largest = measure(jnp.ones(len(cotangents), cotangents.dtype))
  return gramian_of_products(
    products, lambda: largest, lambda divisor: measure(divisor)[0], jax.lax.cond
  )
