"""The problem that MGDA and CAGrad have in common.

    minimise  y^T C y / 2 - q^T y   over y >= 0

or, as its conditions: y >= 0, C y - q >= 0, and one of the two is zero for every task.
Solved by block principal pivoting: guess the support, solve there, exchange every task
that is on the wrong side; where that stops to make progress, exchange one at a time
(Murty's rule), which always ends. Reference: Judice and Pires, "A Block Principal
Pivoting Algorithm for Large-Scale Strictly Monotone Linear Complementarity Problems",
Computers and Operations Research 1994.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.solvers.gramian import Gramian
from igb_jax.balancers.solvers.linear import dot, ridge, solve

_TRIES = 3  # exchanges of all that are wrong, without fewer of them
_TOLERANCE = 4 * float(jnp.finfo(jnp.float32).eps)


class _Pivoting(NamedTuple):
  support: jax.Array
  y: jax.Array
  wrong: jax.Array
  fewest: jax.Array
  tries: jax.Array
  rounds: jax.Array


def nonnegative(
  gramian: Gramian, q: jax.Array, support: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Solves the problem above.

  Args:
    gramian: of which the cosines are C.
    q: f32[K].
    support: bool[K], a first guess of where y is positive.

  Returns:
    y, f32[K], and its support, bool[K].
  """
  num_tasks = len(q)

  def evaluate(support: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = solve(gramian.cosines, q, support)
    slack = gramian.product(y) + ridge(num_tasks) * y - q
    terms = dot(jnp.abs(gramian.cosines), jnp.abs(y)) + jnp.abs(q)
    too_low = slack < -_TOLERANCE * terms
    return y, jnp.where(support, y < 0, too_low & gramian.nonzero)

  def pivot(state: _Pivoting) -> _Pivoting:
    count = state.wrong.sum()
    fewer = count < state.fewest
    tries = jnp.where(fewer, _TRIES, state.tries - 1)
    last = num_tasks - 1 - jnp.argmax(state.wrong[::-1])
    one = jnp.arange(num_tasks) == last
    support = state.support ^ jnp.where(tries >= 0, state.wrong, one)
    y, wrong = evaluate(support)
    return _Pivoting(
      support=support,
      y=y,
      wrong=wrong,
      fewest=jnp.minimum(count, state.fewest),
      tries=tries,
      rounds=state.rounds + 1,
    )

  support = support & gramian.nonzero
  y, wrong = evaluate(support)
  start = _Pivoting(
    support=support,
    y=y,
    wrong=wrong,
    fewest=jnp.asarray(num_tasks + 1, wrong.sum().dtype),
    tries=jnp.asarray(_TRIES, jnp.int32),
    rounds=jnp.zeros((), jnp.int32),
  )
  end = jax.lax.while_loop(
    lambda state: state.wrong.any() & (state.rounds < 30 + 4 * num_tasks), pivot, start
  )
  return jnp.maximum(end.y, 0.0), end.support
