"""The problem that MGDA and CAGrad have in common.

    minimise  y^T C y / 2 - q^T y   over y >= 0

or, as its conditions: y >= 0, C y - q >= 0, and one of the two is zero for every task.
First block principal pivoting: guess the support, solve there, exchange every task that
is on the wrong side; a few rounds for any number of tasks, but where gradients depend
on each other it may go in circles. Then, and only then, Lawson and Hanson's active set,
which takes in one task a round and never raises the objective. References: Judice and
Pires, "A Block Principal Pivoting Algorithm for Large-Scale Strictly Monotone Linear
Complementarity Problems", Computers and Operations Research 1994; Lawson and Hanson,
"Solving Least Squares Problems", 1974, chapter 23.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from igb_jax.balancers.solvers.gramian import Gramian
from igb_jax.balancers.solvers.linear import dot, ridge, solve

_TRIES = 3  # exchanges without fewer tasks on the wrong side
_TOLERANCE = 4 * float(jnp.finfo(jnp.float32).eps)


class _Pivoting(NamedTuple):
  support: jax.Array
  y: jax.Array
  wrong: jax.Array
  fewest: jax.Array
  tries: jax.Array


class _ActiveSet(NamedTuple):
  support: jax.Array
  y: jax.Array
  done: jax.Array
  rounds: jax.Array


def nonnegative(
  gramian: Gramian, q: jax.Array, support: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Solves the problem above.

  Args:
    gramian: the Gramian whose cosines are C.
    q: f32[K].
    support: bool[K], a first guess of where y is positive.

  Returns:
    y, f32[K], and its support, bool[K].
  """
  pivoted = _pivot(gramian, q, support)
  end = _active_set(gramian, q, pivoted)
  return jnp.maximum(end.y, 0.0), end.support


def _slack(gramian: Gramian, q: jax.Array, y: jax.Array) -> jax.Array:
  """C y - q relative to its terms, and zero where it is rounding."""
  difference = gramian.product(y) + ridge(len(q)) * y - q
  terms = dot(jnp.abs(gramian.cosines), jnp.abs(y)) + jnp.abs(q)
  relative = difference / jnp.where(terms > 0, terms, 1.0)
  return jnp.where(jnp.abs(relative) > _TOLERANCE, relative, 0.0)


def _pivot(gramian: Gramian, q: jax.Array, support: jax.Array) -> _Pivoting:
  """Block principal pivoting; `wrong` is empty at the end if it found the solution."""
  num_tasks = len(q)

  def evaluate(support: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = solve(gramian.cosines, q, support)
    too_low = (_slack(gramian, q, y) < 0) & gramian.nonzero
    return y, jnp.where(support, y < 0, too_low)

  def exchange(state: _Pivoting) -> _Pivoting:
    count = state.wrong.sum()
    support = state.support ^ state.wrong
    return _Pivoting(
      support,
      *evaluate(support),
      fewest=jnp.minimum(count, state.fewest),
      tries=jnp.where(count < state.fewest, _TRIES, state.tries - 1),
    )

  support = support & gramian.nonzero
  y, wrong = evaluate(support)
  count = wrong.sum()
  start = _Pivoting(
    support=support,
    y=y,
    wrong=wrong,
    # like the count: in `shard_map` a loop must carry what varies as it will vary
    fewest=jnp.full_like(count, num_tasks + 1),
    tries=jnp.full_like(count, _TRIES, jnp.int32),
  )
  return jax.lax.while_loop(
    lambda state: state.wrong.any() & (state.tries > 0), exchange, start
  )


def _active_set(gramian: Gramian, q: jax.Array, pivoted: _Pivoting) -> _ActiveSet:
  """Lawson and Hanson's method from y = 0, or nothing if pivoting has succeeded."""
  num_tasks = len(q)
  done = ~pivoted.wrong.any()

  def step(state: _ActiveSet) -> _ActiveSet:
    aim = solve(gramian.cosines, q, state.support)
    blocked = state.support & (aim <= 0)
    # as far towards the aim as y stays non-negative
    share = jnp.where(blocked, state.y / (state.y - aim), 1.0)
    length = share.min()
    y = jnp.where(state.support, state.y + length * (aim - state.y), 0.0)
    leaves = blocked & (share <= length)
    slack = jnp.where(state.support | ~gramian.nonzero, 0.0, _slack(gramian, q, y))
    enters = (jnp.arange(num_tasks) == jnp.argmin(slack)) & (slack < 0)
    arrived = ~blocked.any()
    return _ActiveSet(
      support=jnp.where(arrived, state.support | enters, state.support & ~leaves),
      y=jnp.where(leaves, 0.0, y),
      done=arrived & ~enters.any(),
      rounds=state.rounds + 1,
    )

  return jax.lax.while_loop(
    lambda state: ~state.done & (state.rounds < 20 + 10 * num_tasks),
    step,
    _ActiveSet(
      support=jnp.where(done, pivoted.support, False),
      y=jnp.where(done, pivoted.y, 0.0),
      done=done,
      rounds=jnp.zeros((), jnp.int32),
    ),
  )
