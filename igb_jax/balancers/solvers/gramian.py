"""The Gramian of task gradients, G = J J^T, kept as norms and cosines.

    G_ij = norms_i cosines_ij norms_j

Gradients of different tasks may differ by many orders of magnitude; their squares do
not fit float32, and what a solver needs to know of a small one would drown in the
rounding of a large one. Norms and cosines have neither problem, and every problem in
this folder can be written with the cosines as its matrix.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from igb_jax.balancers.solvers.linear import dot
from igb_jax.balancers.solvers.products import (
  accumulator,
  beside,
  flat_if_free,
  inner_axes,
  inner_products,
)

_TINY = float(jnp.finfo(jnp.float32).tiny)
# Squared norms between which no product of two gradients overflows, and what vanishes
# of it is less than rounding.
_SMALLEST_SQUARE, _LARGEST_SQUARE = 1e-22, 1e30
_SMALLEST_BLOCK, _MOST_BLOCKS = 2**12, 32


class Gramian(NamedTuple):
  """Inner products of K task gradients.

  Attributes:
    norms: f32[K], Euclidean norms.
    cosines: f32[K, K], cosines of the angles between the gradients: symmetric, with
      ones on the diagonal; row and column of a zero gradient are zero.
  """

  norms: jax.Array
  cosines: jax.Array

  @property
  def nonzero(self) -> jax.Array:
    """bool[K]: which gradients are not zero; those that are not finite are not."""
    return ~(self.norms == 0)

  @property
  def divisors(self) -> jax.Array:
    """f32[K]: the norms; that of the smallest other for a zero gradient, or 1."""
    nonzero = self.nonzero
    smallest = jnp.min(self.norms, where=nonzero, initial=jnp.inf)
    replacement = jnp.where(nonzero.any(), smallest, 1.0)
    return jnp.where(nonzero, self.norms, replacement)

  @property
  def lengths(self) -> jax.Array:
    """f32[K]: the norms, relative to the largest; zeros if all are."""
    largest = self.norms.max()
    return self.norms / jnp.where(largest > 0, largest, 1.0)

  @property
  def relative(self) -> jax.Array:
    """f32[K, K]: G in units of the largest squared norm."""
    lengths = self.lengths
    return lengths[:, None] * self.cosines * lengths

  @classmethod
  def zeros(cls, num_tasks: int) -> "Gramian":
    """The Gramian of K zero gradients.

    Args:
      num_tasks: K.
    """
    return cls(
      norms=jnp.zeros(num_tasks, jnp.float32),
      cosines=jnp.zeros((num_tasks, num_tasks), jnp.float32),
    )

  @classmethod
  def of(cls, leaves: list[Any]) -> "Gramian":
    """The Gramian of stacked gradients.

    No leaf is copied, unless it may be divided over devices. Where the square of a
    gradient would overflow or vanish, every gradient is first divided by its largest
    entry, block by block. The products are computed at `Precision.HIGHEST`: bfloat16,
    the default on TPUs, would ruin the solutions.

    Args:
      leaves: arrays float[K, ...], the leaves of the stacked task gradients.

    Returns:
      The Gramian. Products of float64 gradients are float64 until they are cosines; a
      norm that float32 cannot hold becomes the nearest number that it can.

    Example:
      >>> gramian = Gramian.of([jnp.array([[3e-12, 0.0], [1e12, 1e12]])])
      >>> print(gramian.norms, gramian.cosines[0, 1])
      [3.0000000e-12 1.4142135e+12] 0.70710677
    """
    leaves = [flat_if_free(leaf) for leaf in leaves]
    return gramian_of_products(
      _sum_of(leaves, lambda leaf: inner_products(leaf, leaf)),
      lambda: _largest_entries(leaves),
      lambda divisor: _sum_of(
        leaves, lambda leaf: _products_of_quotients(leaf, divisor)
      ),
      functools.partial(_choose, leaves),
    )

  def product(self, weights: jax.Array) -> jax.Array:
    """f32[K]: inner products of the unit gradients with a sum of unit gradients.

    Args:
      weights: f32[K], of the unit gradients in the sum.
    """
    return dot(self.cosines, weights)

  def conflict_share(self, present: jax.Array | None = None) -> jax.Array:
    """f32[]: share of the pairs of tasks with a negative cosine; 0 without a pair.

    Args:
      present: bool[K], all by default; of the others the cosines must not be negative,
        and their pairs are not counted.
    """
    count = len(self.norms) if present is None else present.sum()
    num_pairs = jnp.maximum(count * (count - 1), 1)
    return jnp.sum(self.cosines < 0, dtype=jnp.float32) / num_pairs

  def condition_number(self, present: jax.Array | None = None) -> jax.Array:
    """f32[]: largest over smallest eigenvalue of G, at most 1 / eps of float32.

    Eigenvalues that are lost in the rounding of the largest count as eps times that.

    Args:
      present: bool[K], all by default; the gradients of the others must be zero, and
        are not counted.
    """
    scales = self.norms / jnp.maximum(self.norms.max(), _TINY)
    scaled = scales[:, None] * self.cosines * scales
    if present is not None:  # 1, the largest on the diagonal, is between the extremes
      scaled += jnp.diag(~present).astype(jnp.float32)
    values = jnp.linalg.eigvalsh(scaled)
    smallest = values[0] / jnp.maximum(values[-1], _TINY)
    return 1 / jnp.maximum(smallest, jnp.finfo(jnp.float32).eps)


def gramian_of_products(
  products: jax.Array,
  largest_entries: Callable[[], jax.Array],
  products_of_quotients: Callable[[jax.Array], jax.Array],
  choose: Callable[..., Any],
) -> Gramian:
  """The Gramian, of inner products that may have overflowed or vanished.

  Args:
    products: float[K, K].
    largest_entries: float[K], of each gradient by magnitude.
    products_of_quotients: the products of the gradients, each divided by one of
      float[K].
    choose: `jax.lax.cond`, or what can do without one.
  """
  squares = jnp.diagonal(products)
  ordinary = (squares > _SMALLEST_SQUARE) & (squares < _LARGEST_SQUARE)
  # A square may be 0 because the gradient is, which only its entries tell.
  largest = choose(ordinary.all(), lambda: jnp.sqrt(squares), largest_entries)
  # a gradient below the smallest normal number counts as zero
  zero = largest < jnp.finfo(products.dtype).tiny
  divides = ~(ordinary | zero).all()
  divisor = jnp.where(divides & ~zero, largest, 1.0)
  products = choose(divides, lambda: products_of_quotients(divisor), lambda: products)
  products = jnp.where(zero | zero[:, None], 0.0, products)
  lengths = jnp.sqrt(jnp.diagonal(products))
  units = jnp.where(lengths == 0, 0.0, 1 / lengths)
  cosines = products * units[:, None] * units
  cosines = jnp.where(jnp.diag(lengths > 0), 1.0, (cosines + cosines.T) / 2)
  return Gramian(_nearest_float32(divisor * lengths), cosines.astype(jnp.float32))


def _choose(
  leaves: list[jax.Array],
  condition: jax.Array,
  if_true: Callable[[], jax.Array],
  if_false: Callable[[], jax.Array],
) -> jax.Array:
  """What one of two functions of the leaves returns, without the other if possible."""
  # JAX has no vmap of a `cond` on what an Explicit axis of a mesh divides.
  if any(any(jax.typeof(leaf).sharding.spec) for leaf in leaves):
    return jnp.where(condition, if_true(), if_false())
  return jax.lax.cond(condition, if_true, if_false)


def _sum_of(
  leaves: list[jax.Array], products_of: Callable[[jax.Array], jax.Array]
) -> jax.Array:
  """float[K, K], in the dtype that has the digits of all leaves."""
  return functools.reduce(jnp.add, map(products_of, leaves))


def _largest_entries(leaves: list[jax.Array]) -> jax.Array:
  """float[K]: of all leaves, by magnitude."""
  dtype = accumulator(*leaves)
  of_leaves = [
    jnp.max(jnp.abs(leaf), inner_axes(leaf), initial=0.0).astype(dtype)
    for leaf in leaves
  ]
  return jnp.stack(of_leaves).max(axis=0)


def _products_of_quotients(leaf: jax.Array, divisor: jax.Array) -> jax.Array:
  """float[K, K]: products of g_k / divisor_k, without a copy of all quotients."""

  def products_of(part: jax.Array) -> jax.Array:
    part = part.astype(divisor.dtype)
    part = part / beside(divisor, part)
    return inner_products(part, part)

  if leaf.ndim != 2 or leaf.shape[1] <= _SMALLEST_BLOCK:
    return products_of(leaf)
  num_parameters = leaf.shape[1]
  size = max(_SMALLEST_BLOCK, -(-num_parameters // _MOST_BLOCKS))
  num_blocks = num_parameters // size

  def add(block: jax.Array, total: jax.Array) -> jax.Array:
    # Without it XLA on CPU converts all of a bfloat16 leaf to take blocks of it.
    whole, block = jax.lax.optimization_barrier((leaf, block))
    part = jax.lax.dynamic_slice_in_dim(whole, block * size, size, axis=1)
    return total + products_of(part)

  rest = products_of(leaf[:, num_blocks * size :])
  return jax.lax.fori_loop(0, num_blocks, add, rest)


def _nearest_float32(norms: jax.Array) -> jax.Array:
  """f32[K]: zero and what is not finite stay so, and nothing else becomes either."""
  limits = jnp.finfo(jnp.float32)
  inside = jnp.clip(norms, float(limits.tiny), float(limits.max))
  keeps = (norms == 0) | ~jnp.isfinite(norms)
  return jnp.where(keeps, norms, inside).astype(jnp.float32)


class Solution(NamedTuple):
  """What a solver, or a rule of a gradient balancer, returns.

  Attributes:
    weights: f32[K], one per task.
    residual: f32[], by how much the conditions of optimality fail, relative to the
      size of their terms; each solver says which conditions. Free of the gradients'
      units; some 1e-6 is what float32 can do. 0 where no problem is solved.
  """

  weights: jax.Array
  residual: jax.Array | float = 0.0


def better_of(first: Solution, second: Solution) -> Solution:
  """The one with the smaller residual; the first if that of the second is NaN.

  Args:
    first: a solution.
    second: another.
  """
  return optax.tree.where(second.residual < first.residual, second, first)
