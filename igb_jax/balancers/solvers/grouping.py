"""Means of groups of numbers: k-means on a line, solved exactly.

    minimise over partitions into M groups    sum_groups sum_k (x_k - mean of group)^2

The best groups are runs of the sorted numbers, so dynamic programming over where each
run begins finds them: C[m, j], the least cost of the first j numbers in m runs, is
min_i C[m - 1, i] + cost(i, j), in O(K^2 M) with all costs known.
"""

import jax
import jax.numpy as jnp


def group_means(values: jax.Array, num_groups: int, valid: jax.Array) -> jax.Array:
  """Puts the mean of its group in the place of each number.

  Args:
    values: f32[K].
    num_groups: M, at most; no more than there are numbers.
    valid: bool[K]; the other numbers belong to no group and are returned as they are.

  Returns:
    f32[K].

  Example:
    >>> values = jnp.array([1.0, 10.0, 2.0, 12.0])
    >>> print(group_means(values, 2, jnp.ones(4, bool)))
    [ 1.5 11.   1.5 11. ]
  """
  num = len(values)
  num_groups = min(num_groups, num)
  # what is not valid comes last and costs nothing
  order = jnp.argsort(jnp.where(valid, values, jnp.inf))
  kept = valid[order]
  largest = jnp.max(jnp.where(valid, jnp.abs(values), 0.0))
  x = jnp.where(kept, values[order], 0.0) / jnp.where(largest > 0, largest, 1.0)
  costs = _costs_of_runs(x, kept)
  least, begins, places = costs[0], [], jnp.arange(num)[:, None]
  for _ in range(num_groups - 1):
    # least[i - 1] is the cost of what is before i; nothing is before 0
    before = jnp.concatenate([jnp.zeros(1), least[:-1]])
    ways = before[:, None] + costs
    least = ways.min(axis=0)
    # the last run may as well begin late; unlike argmin, this is vectorised on CPUs
    begins.append(jnp.max(jnp.where(ways == least, places, 0), axis=0))
  # from the last run to the first, each ends where the one after it begins
  last, group = jnp.asarray(num - 1), jnp.zeros(num, jnp.int32)
  for begin in reversed(begins):
    first = begin[jnp.maximum(last, 0)]
    group += jnp.arange(num) >= jnp.where(last >= 0, first, 0)
    last = first - 1
  same = (group[:, None] == group) & kept[:, None] & kept
  sizes = jnp.maximum(same.sum(axis=1), 1)
  means = jnp.sum(jnp.where(same, x, 0.0), axis=1) / sizes * largest
  found = jnp.zeros_like(values).at[order].set(means)
  return jnp.where(valid, found, values)


def _costs_of_runs(x: jax.Array, kept: jax.Array) -> jax.Array:
  """f32[K, K]: the cost of the run from i to j, infinite where j < i.

  It is the sum of the squared differences of all pairs in the run, divided by their
  number: sums of what is positive, where those of squares less that of a mean cancel.

  Args:
    x: f32[K], sorted.
    kept: bool[K]; the other numbers cost nothing.
  """
  upper = jnp.triu(jnp.ones((len(x), len(x)), bool))
  pairs = jnp.where(upper & kept[:, None] & kept, (x[:, None] - x) ** 2, 0.0)
  # sums over the pairs of the run, by products with ones, which are faster than cumsum
  summed = upper.astype(x.dtype)
  highest = jax.lax.Precision.HIGHEST
  with_last = jnp.where(upper, jnp.matmul(summed, pairs, precision=highest), 0.0)
  in_run = jnp.matmul(with_last, summed, precision=highest)
  before = jnp.cumsum(kept) - kept
  counts = before + kept - before[:, None]
  return jnp.where(upper, in_run / jnp.maximum(counts, 1), jnp.inf)
