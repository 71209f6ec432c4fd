"""The Gramian of K gradients that never exist together.

A tap is an identity on a leaf. Where K cotangents are pulled back through it at once,
by `jax.vmap`, their inner products leave it beside the cotangents; and where nobody
asks for the cotangents, XLA drops those of one leaf before it computes the next.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from igb_jax.balancers.solvers.gramian import Gramian


def probes(num_tasks: int, leaves: list[jax.Array]) -> list[jax.Array]:
  """Zeros f32[1 + K] for each leaf, whose cotangents will be its inner products.

  Args:
    num_tasks: K.
    leaves: float[...] each.
  """
  # in `shard_map` a cotangent must vary as the leaf does: so do these zeros
  return [
    jnp.zeros(1 + num_tasks, jnp.float32)
    + jnp.sum(jnp.zeros_like(leaf), dtype=jnp.float32)
    for leaf in leaves
  ]


@jax.custom_vjp
def tap(leaf: jax.Array, probe: jax.Array) -> jax.Array:
  """The leaf.

  Args:
    leaf: float[...].
    probe: f32[1 + K]. Its cotangent under `jax.vmap` over K cotangents of the leaf is
      f32[K, 1 + K], their norms and cosines; that of a single one is zero.
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
  norms, cosines = Gramian.of([cotangents])
  return jnp.concatenate([norms[:, None], cosines], axis=1), True


def gramian_of(products: list[jax.Array], present: jax.Array | None = None) -> Gramian:
  """The Gramian of all leaves together.

  Args:
    products: f32[K, 1 + K] for each leaf, the cotangents of the probes.
    present: bool[K], all by default; the gradients of the others count as zero.
  """
  stacked = jnp.stack(products)
  norms, cosines = stacked[:, :, 0], stacked[:, :, 1:]
  if present is not None:
    norms = jnp.where(present, norms, 0.0)
    cosines = jnp.where(present[:, None] & present, cosines, 0.0)
  largest = jnp.max(norms, axis=0)
  parts = norms / jnp.where(largest == 0, 1.0, largest)  # of leaves, at most 1
  lengths = jnp.sqrt(jnp.sum(parts**2, axis=0))
  parts = parts / jnp.where(lengths == 0, 1.0, lengths)
  cosines = jnp.sum(parts[:, :, None] * cosines * parts[:, None, :], axis=0)
  cosines = jnp.where(jnp.diag(lengths > 0), 1.0, (cosines + cosines.T) / 2)
  return Gramian(_bounded(largest * lengths, largest), cosines)


def _bounded(norms: jax.Array, largest: jax.Array) -> jax.Array:
  """The norms, of which one that overflows only in float32 is the largest number."""
  most = float(jnp.finfo(jnp.float32).max)
  return jnp.where(jnp.isfinite(largest), jnp.minimum(norms, most), norms)
