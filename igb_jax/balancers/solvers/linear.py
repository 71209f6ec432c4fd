"""Linear systems with the cosines of some tasks as their matrix, singular or not."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl

# TPUs multiply in bfloat16 unless told otherwise, vectors too
dot: Callable[[jax.Array, jax.Array], jax.Array] = functools.partial(
  jnp.matmul, precision=jax.lax.Precision.HIGHEST
)


def ridge(num_tasks: int) -> float:
  """What is added to the diagonal so that rounding cannot make it indefinite.

  Args:
    num_tasks: K.
  """
  return 2 * max(num_tasks, 4) * float(jnp.finfo(jnp.float32).eps)


def solve(matrix: jax.Array, right: jax.Array, support: jax.Array) -> jax.Array:
  """Solves matrix[S, S] x[S] = right[S]; x is zero outside S.

  The system is solved with a ridge on the diagonal. In directions that the matrix lacks
  (gradients that are linearly dependent) the ridge decides: where the right side has no
  component x has none, and elsewhere x is large and finite.

  Args:
    matrix: f32[K, K], symmetric and positive semi-definite up to rounding, with ones
      or zeros on the diagonal.
    right: f32[K].
    support: bool[K], the set S.
  """
  inside = support[:, None] & support
  matrix = jnp.where(inside, matrix, 0.0)
  right = jnp.where(support, right, 0.0)
  added = jnp.where(support, ridge(len(right)), 1.0)
  factor = jsl.cho_factor(matrix + jnp.diag(added), lower=True)
  return jsl.cho_solve(factor, right)


def pseudo_inverse(
  matrix: jax.Array, support: jax.Array, *, damped: bool = False
) -> jax.Array:
  """The inverse of matrix[S, S] in all directions that are not lost in rounding.

  Args:
    matrix: f32[K, K], symmetric and positive semi-definite up to rounding, with ones
      or zeros on the diagonal.
    support: bool[K], the set S.
    damped: the inverse in directions that are lost is that of the smallest eigenvalue
      that is not, instead of zero.

  Returns:
    f32[K, K], zero outside [S, S].
  """
  inside = support[:, None] & support
  values, vectors = jnp.linalg.eigh(jnp.where(inside, matrix, 0.0))
  smallest = 2.5 * ridge(len(matrix))  # rounding makes up to 2 of them
  inverses = 1 / jnp.maximum(values, smallest)
  if not damped:
    inverses = jnp.where(values > smallest, inverses, 0.0)
  # eigenvectors of the one block are not exactly zero in the other
  return jnp.where(inside, dot(vectors * inverses, vectors.T), 0.0)
