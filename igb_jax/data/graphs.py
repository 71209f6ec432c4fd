"""Batches of graphs in fixed shapes: padded by groups of like size.

Padding every graph of a batch to the largest wastes most of the work on complete
graphs, whose edges are the square of their nodes. Here the graphs of a batch are
sorted by size and split into groups, each padded to a capacity of its own. The
capacities are fixed, so that one compiled step serves all batches.

Every group is one `jraph.GraphsTuple` with a leading axis over its graphs, each
padded by jraph's convention: a second, empty graph takes the padding, so that
`n_node` is (real, padding). The leading axis can be sharded over devices.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jraph
import numpy as np


class SizeGroups(NamedTuple):
  """How a batch is padded: `counts[g]` graphs of up to `capacities[g]` nodes.

  Attributes:
    counts: number of graphs in each group; they sum to the batch size.
    capacities: largest number of nodes in each group, ascending.
  """

  counts: tuple[int, ...]
  capacities: tuple[int, ...]

  @property
  def slots(self) -> np.ndarray:
    """i64[B], the capacity of every place of the batch, ascending."""
    return np.repeat(self.capacities, self.counts)

  @property
  def widest(self) -> "SizeGroups":
    """The same counts with every capacity the largest, which fits any batch."""
    return self._replace(capacities=(self.capacities[-1],) * len(self.counts))


def choose_groups(
  sizes: np.ndarray,
  batch_size: int,
  *,
  num_groups: int = 5,
  multiple: int = 1,
  largest: int | None = None,
  draws: int = 2000,
  seed: int = 0,
) -> SizeGroups:
  """Chooses groups that batches drawn from `sizes` fit, nearly always.

  Of all ways to split the sorted graphs into that many groups it takes the one with the
  fewest places for edges, the sum of count x capacity^2.

  Args:
    sizes: int[M], number of nodes of every graph of the data set.
    batch_size: graphs in a batch.
    num_groups: how many groups to make; fewer where there are not as many graphs.
    multiple: every count is made a multiple of it, such as the number of
      devices over which the graphs of a group are divided.
    largest: capacity of the last group, where it must hold more than `sizes` has.
    draws: random batches that are drawn; a capacity is the largest size that any of
      them had in its group, and the last one the largest size of all.
    seed: the seed of the draws.

  Returns:
    The groups. A batch that does not fit them needs `SizeGroups.widest`.

  Raises:
    ValueError: there are no sizes, or fewer than one graph or group, or the batch is no
      multiple of `multiple`.

  Example:
    >>> choose_groups(np.array([3, 3, 3, 9]), batch_size=2, num_groups=2)
    SizeGroups(counts=(1, 1), capacities=(9, 9))
  """
  if len(sizes) == 0:
    raise ValueError("sizes must hold at least one graph, got none.")
  if batch_size < 1 or num_groups < 1 or multiple < 1:
    raise ValueError(
      "batch_size, num_groups and multiple must be at least 1, got "
      f"{batch_size}, {num_groups} and {multiple}."
    )
  if batch_size % multiple:
    raise ValueError(
      f"a batch of {batch_size} graphs cannot be divided into groups whose counts are "
      f"multiples of {multiple}; take a batch size that is one."
    )
  generator = np.random.default_rng(seed)
  drawn = np.sort(generator.choice(sizes, (draws, batch_size)), axis=1)
  needed = drawn.max(axis=0)
  needed[-1] = max(int(sizes.max()), largest or 0)
  needed = needed[multiple - 1 :: multiple]  # of each unit, which stays together
  ends = _cheapest_ends(needed, min(num_groups, len(needed)))
  return SizeGroups(
    counts=tuple((multiple * np.diff(ends, prepend=0)).tolist()),
    capacities=tuple(needed[ends - 1].tolist()),
  )


def _cheapest_ends(needed: np.ndarray, num_groups: int) -> np.ndarray:
  """Ends of the groups of consecutive units whose count x capacity^2 sum to the least.

  Args:
    needed: i64[U], capacity that each unit needs, ascending.
    num_groups: the largest number of groups.
  """
  starts, ends = np.indices((len(needed), len(needed)))  # inclusive
  cost = np.where(starts <= ends, (ends - starts + 1) * needed[ends] ** 2.0, np.inf)
  least, choices = cost[0], []  # of the units up to each, by the groups so far
  for _ in range(num_groups - 1):
    by_start = np.concatenate([[np.inf], least[:-1]])[:, None] + cost
    choices.append(by_start.argmin(axis=0))
    least = by_start.min(axis=0)
  found = [len(needed)]
  for choice in reversed(choices):
    found.append(int(choice[found[-1] - 1]))
  return np.array(found[::-1])


def fits(sizes: np.ndarray, groups: SizeGroups) -> bool:
  """Whether graphs of these sizes, sorted ascending, fit the groups' capacities."""
  return bool((sizes <= groups.slots[-len(sizes) :]).all()) if len(sizes) else True


def pad(
  graphs: Sequence[jraph.GraphsTuple], groups: SizeGroups
) -> tuple[jraph.GraphsTuple, ...]:
  """Pads graphs, sorted by size, into groups; the general form, for any graphs.

  Args:
    graphs: single graphs in ascending order of size: nodes float[n, F], edges
      float[e, E], senders and receivers int[e]. There may be fewer than the groups
      hold: the first places then stay empty.
    groups: the capacities. A group of capacity c holds c (c - 1) edges a graph, at
      least the most that any of its graphs has.

  Returns:
    One stacked `GraphsTuple` a group: nodes f32[G, c, F], edges f32[G, c (c - 1), E],
    senders and receivers i32[G, c (c - 1)], n_node and n_edge i32[G, 2].

  Raises:
    ValueError: a graph is not valid (the message has its index): it is larger than
      its place, an edge leads to a node that is not there, two edges have the same
      ends, an edge leads from a node to itself, or a number is not finite; or there
      are more graphs than places, or none.
  """
  slots = groups.slots
  if not 1 <= len(graphs) <= len(slots):
    raise ValueError(f"there must be 1 to {len(slots)} graphs, got {len(graphs)}.")
  first = len(slots) - len(graphs)
  arrays = [
    _checked(graph, index, int(slots[first + index]))
    for index, graph in enumerate(graphs)
  ]

  stacked = []
  place = 0
  for count, capacity in zip(*groups, strict=True):
    size = capacity * (capacity - 1)
    nodes = np.zeros((count, capacity, arrays[0][0].shape[1]), np.float32)
    edges = np.zeros((count, size, arrays[0][1].shape[1]), np.float32)
    senders, receivers = np.zeros((2, count, size), np.int32)
    n_node, n_edge = np.zeros((2, count), np.int64)
    for row in range(max(first - place, 0), count):
      graph = arrays[place + row - first]
      n_node[row], n_edge[row] = len(graph[0]), len(graph[1])
      for whole, array in zip((nodes, edges, senders, receivers), graph, strict=True):
        whole[row, : len(array)] = array
    stacked.append(stack(nodes, edges, senders, receivers, n_node, n_edge))
    place += count
  return tuple(stacked)


def _checked(
  graph: jraph.GraphsTuple, index: int, capacity: int
) -> tuple[np.ndarray, ...]:
  """Checks a graph and returns its nodes, edges, senders and receivers."""
  fields = graph.nodes, graph.edges, graph.senders, graph.receivers
  arrays = tuple(np.asarray(cast(Any, field)) for field in fields)
  nodes, edges, senders, receivers = arrays
  num_nodes = len(nodes)
  if num_nodes > capacity:
    raise ValueError(
      f"graph {index} has {num_nodes} nodes, but its place holds {capacity}; sort the "
      "graphs by size, or use groups of larger capacity."
    )
  for name, ends in (("senders", senders), ("receivers", receivers)):
    if ends.shape != (len(edges),):
      raise ValueError(
        f"graph {index} has {name} of shape {ends.shape} for {len(edges)} edges."
      )
    outside = ends[(ends < 0) | (ends >= num_nodes)]
    if outside.size:
      raise ValueError(
        f"graph {index} has an edge to node {outside[0]}, but only nodes 0 to "
        f"{num_nodes - 1}."
      )
  if (senders == receivers).any():
    raise ValueError(f"graph {index} has an edge from a node to itself.")
  if len(np.unique(receivers.astype(np.int64) * num_nodes + senders)) < len(senders):
    raise ValueError(f"graph {index} has two edges with the same ends.")
  for name, values in (("nodes", nodes), ("edges", edges)):
    if not np.isfinite(values).all():
      raise ValueError(f"graph {index} has {name} that are not finite.")
  return arrays


def stack(
  nodes: np.ndarray,
  edges: np.ndarray,
  senders: np.ndarray,
  receivers: np.ndarray,
  n_node: np.ndarray,
  n_edge: np.ndarray,
) -> jraph.GraphsTuple:
  """Makes one `GraphsTuple` of G graphs that are padded to n nodes and e edges.

  Args:
    nodes: f32[G, n, F].
    edges: f32[G, e, E].
    senders: int[G, e]; what stands at a padding edge does not matter.
    receivers: int[G, e], likewise.
    n_node: int[G], nodes that are there, the first ones.
    n_edge: int[G], edges that are there, the first ones.

  Returns:
    The graphs; every padding edge leads from and to the first padding node.
  """
  is_edge = np.arange(edges.shape[1]) < n_edge[:, None]
  ends = [
    np.where(is_edge, each, n_node[:, None]).astype(np.int32)
    for each in (senders, receivers)
  ]
  fields: dict[str, Any] = {  # jraph's types know jax arrays alone
    "nodes": nodes,
    "edges": edges,
    "senders": ends[0],
    "receivers": ends[1],
    "n_node": np.stack([n_node, nodes.shape[1] - n_node], axis=1).astype(np.int32),
    "n_edge": np.stack([n_edge, edges.shape[1] - n_edge], axis=1).astype(np.int32),
    "globals": None,
  }
  return jraph.GraphsTuple(**fields)
