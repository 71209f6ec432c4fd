"""Inner products and sums of stacked gradients, which copy none of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

# Terms of a sum that make one fused loop; more than these are taken in turns.
_TERMS_AT_ONCE = 8


def accumulator(*leaves: jax.Array) -> jnp.dtype:
  """The dtype in which sums over leaves are computed: float32, or theirs if larger.

  Args:
    *leaves: arrays of floating-point numbers.
  """
  return jnp.result_type(jnp.float32, *(leaf.dtype for leaf in leaves))


def inner_axes(leaf: jax.Array) -> tuple[int, ...]:
  """All axes of a leaf but that of the tasks.

  Args:
    leaf: float[K, ...].
  """
  return tuple(range(1, leaf.ndim))


def beside(values: jax.Array, leaf: jax.Array) -> jax.Array:
  """[K] as [K, 1, ...], to go with a leaf.

  Args:
    values: [K].
    leaf: float[K, ...].
  """
  return values.reshape(-1, *[1] * (leaf.ndim - 1))


def flat_if_free(leaf: jax.Array) -> jax.Array:
  """A leaf as [K, P], unless it may be divided over devices.

  XLA on CPU transposes what it contracts over several axes. But a leaf that is divided
  over devices would have to be gathered before it is flattened.

  Args:
    leaf: float[K, ...].
  """
  sharding = jax.typeof(leaf).sharding
  mesh = sharding.mesh
  # Axes of a mesh that are Explicit are part of the type; those that are Auto are not,
  # and a leaf within `shard_map` is what one device has.
  known = mesh.are_all_axes_explicit or mesh.are_all_axes_manual
  if any(sharding.spec) or not (known or jax.device_count() == 1):
    return leaf
  return leaf.reshape(len(leaf), -1)


def inner_products(left: jax.Array, right: jax.Array) -> jax.Array:
  """Inner products [K, L] of two leaves, [K, ...] and [L, ...].

  Args:
    left: float[K, ...].
    right: float[L, ...].

  Returns:
    f32[K, L], or f64[K, L] if a leaf has that many digits, at `Precision.HIGHEST`.
  """
  # JAX does not choose a sharding for a sum over an Explicit axis that divides it:
  # every device gets all of it.
  sharding = jax.typeof(left).sharding
  left, right = flat_if_free(left), flat_if_free(right)
  return jnp.tensordot(
    left,
    right,
    axes=(inner_axes(left), inner_axes(right)),
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=accumulator(left, right),
    out_sharding=(
      NamedSharding(sharding.mesh, PartitionSpec()) if any(sharding.spec) else None
    ),
  )


def weighted_sum(
  weights: jax.Array, leaf: jax.Array, present: jax.Array | None = None
) -> jax.Array:
  """sum_k w_k g_k [...], in float32 or in the dtype of the leaf if that is larger.

  Args:
    weights: f32[K].
    leaf: float[K, ...].
    present: bool[K], all by default; the gradients of the others, which may be NaN, are
      left out.
  """
  weights = weights.astype(accumulator(leaf))

  def term(task: int | jax.Array, gradient: jax.Array) -> jax.Array:
    product = weights[task] * gradient
    return product if present is None else jnp.where(present[task], product, 0)

  return sum_of_terms(leaf, term)


def for_each_task(
  leaf: jax.Array, function: Callable[..., Any], *others: jax.Array
) -> Any:
  """What a function makes of each task's gradient, stacked, one after the other.

  Args:
    leaf: float[K, ...].
    function: `function(gradient, *others)`, of float[...] in float32 or in the dtype of
      the leaf if that is larger.
    *others: further arrays with a leading axis K.
  """
  return jax.lax.map(
    lambda each: function(each[0].astype(accumulator(leaf)), *each[1:]), (leaf, *others)
  )


def sum_of_terms(
  leaf: jax.Array, term_of: Callable[[int | jax.Array, jax.Array], Any]
) -> Any:
  """The sum of what is made of each task's gradient in a leaf, without a copy of it.

  Args:
    leaf: float[K, ...].
    term_of: `term_of(task, gradient) -> arrays`, of float[...] in float32 or in the
      dtype of the leaf if that is larger.
  """

  # The terms are fused with whatever is done to them, a conversion or a selection. A
  # matrix product would need copies of the leaf that hold the results of both.
  def term(task: int | jax.Array) -> Any:
    gradient = jax.lax.dynamic_index_in_dim(leaf, task, keepdims=False)
    return term_of(task, gradient.astype(accumulator(leaf)))

  # The term stands first in the sum, or LLVM rounds otherwise than in a product of
  # matrices, of which nobody should see a difference.
  return jax.lax.fori_loop(
    1,
    len(leaf),
    lambda task, total: jax.tree.map(jnp.add, term(task), total),
    term(0),
    unroll=_TERMS_AT_ONCE,
  )
