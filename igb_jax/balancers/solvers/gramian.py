"""The Gramian of task gradients, G = J J^T, kept as norms and cosines.

    G_ij = norms_i cosines_ij norms_j

Gradients of different tasks may differ by many orders of magnitude; their squares do
not fit float32, and what a solver needs to know of a small one would drown in the
rounding of a large one. Norms and cosines have neither problem, and every problem in
this folder can be written with the cosines as its matrix.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from igb_jax.balancers.solvers.linear import dot

_TINY = float(jnp.finfo(jnp.float32).tiny)


# Leaves keep their shape: one that is divided over devices would have to be gathered
# before it is flattened.


def _inner(leaf: jax.Array) -> tuple[int, ...]:
  return tuple(range(1, leaf.ndim))


def _beside(values: jax.Array, leaf: jax.Array) -> jax.Array:
  """[K] as [K, 1, ...], to go with a leaf."""
  return values.reshape(-1, *[1] * (leaf.ndim - 1))


def _contract(left: jax.Array, right: jax.Array) -> jax.Array:
  """Inner products [K, L] of two leaves, [K, ...] and [L, ...]."""
  # Axes of a mesh that are Explicit are part of the type, and JAX does not choose a
  # sharding for a sum over an axis that they divide: every device gets all of it.
  sharding = jax.typeof(left).sharding
  return jnp.tensordot(
    left,
    right,
    axes=(_inner(left), _inner(right)),
    precision=jax.lax.Precision.HIGHEST,
    out_sharding=(
      NamedSharding(sharding.mesh, PartitionSpec()) if any(sharding.spec) else None
    ),
  )


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

    Every gradient is divided by its largest entry before it is squared. Computed in
    float32 at `Precision.HIGHEST`: bfloat16 products, the default on TPUs, would ruin
    the solutions.

    Args:
      leaves: arrays float[K, ...], the leaves of the stacked task gradients.

    Example:
      >>> gramian = Gramian.of([jnp.array([[3e-12, 0.0], [1e12, 1e12]])])
      >>> print(gramian.norms, gramian.cosines[0, 1])
      [3.0000000e-12 1.4142135e+12] 0.70710677
    """
    leaves = [leaf.astype(jnp.float32) for leaf in leaves]
    largest = jnp.stack(
      [jnp.max(jnp.abs(leaf), _inner(leaf), initial=0.0) for leaf in leaves]
    ).max(axis=0)
    # a gradient below the smallest normal number counts as zero
    zero = largest < _TINY
    divisor = jnp.where(zero, 1.0, largest)
    products = jnp.zeros((len(largest), len(largest)), jnp.float32)
    for leaf in leaves:
      scaled = jnp.where(_beside(zero, leaf), 0.0, leaf / _beside(divisor, leaf))
      products += _contract(scaled, scaled)
    lengths = jnp.sqrt(jnp.diagonal(products))
    units = jnp.where(lengths == 0, 0.0, 1 / lengths)
    cosines = products * units[:, None] * units
    return cls(
      norms=largest * lengths,
      cosines=jnp.where(jnp.diag(lengths > 0), 1.0, (cosines + cosines.T) / 2),
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


class Mean(NamedTuple):
  """The mean of the task gradients, g_0 = sum_k g_k / K.

  Attributes:
    norm: f32[], |g_0| relative to the largest norm of a task gradient.
    cosines: f32[K], of its angles to the task gradients.
  """

  norm: jax.Array
  cosines: jax.Array

  @classmethod
  def of(
    cls, leaves: list[Any], gramian: Gramian, present: jax.Array | None = None
  ) -> "Mean":
    """The mean of stacked gradients, from the gradients themselves.

    Where they nearly cancel, what is left of them is lost in the Gramian's rounding.

    Args:
      leaves: arrays float[K, ...], the leaves of the stacked task gradients.
      gramian: theirs.
      present: bool[K], all by default; the gradients of the others must be zero, and
        are not counted.
    """
    norms = jnp.where(gramian.nonzero, gramian.norms, 1.0)
    count = len(norms) if present is None else present.sum()
    in_mean = jnp.where(gramian.nonzero, norms / gramian.norms.max(), 0.0) / count
    square = jnp.zeros((), jnp.float32)
    products = jnp.zeros(len(norms), jnp.float32)
    for leaf in leaves:
      units = leaf.astype(jnp.float32) / _beside(norms, leaf)
      mean = jnp.tensordot(in_mean, units, 1, precision=jax.lax.Precision.HIGHEST)
      square += _contract(mean[None], mean[None])[0, 0]
      products += _contract(units, mean[None])[:, 0]
    norm = jnp.sqrt(square)
    return cls(
      norm, jnp.where(norm > 0, products / jnp.where(norm > 0, norm, 1.0), 0.0)
    )


class Solution(NamedTuple):
  """What a solver returns.

  Attributes:
    weights: f32[K], one a task.
    residual: f32[], by how much the conditions of optimality fail, relative to the
      size of their terms; each solver says which conditions. Free of the gradients'
      units; some 1e-6 is what float32 can do.
  """

  weights: jax.Array
  residual: jax.Array


def better_of(first: Solution, second: Solution) -> Solution:
  """The one with the smaller residual; the first if that of the second is NaN.

  Args:
    first: a solution.
    second: another.
  """
  return optax.tree.where(second.residual < first.residual, second, first)
