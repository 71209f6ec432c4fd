"""Padding graphs by groups of like size."""

import itertools

import jraph
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igb_jax.data import graphs


def complete_graph(size: int) -> jraph.GraphsTuple:
  senders, receivers = np.nonzero(~np.eye(size, dtype=bool))
  return jraph.GraphsTuple(
    nodes=np.arange(size * 2.0).reshape(size, 2) + 1,
    edges=np.arange(len(senders) * 3.0).reshape(-1, 3) + 1,
    senders=senders,
    receivers=receivers,
    n_node=np.array([size]),
    n_edge=np.array([len(senders)]),
    globals=None,
  )


@settings(deadline=None)
@given(
  sizes=st.lists(st.integers(1, 29), min_size=1, max_size=200),
  batch_size=st.integers(1, 40),
  num_groups=st.integers(1, 8),
  multiple=st.integers(1, 4),
)
def test_chosen_groups_hold_the_batch(sizes, batch_size, num_groups, multiple):
  num_units, batch_size = batch_size, batch_size * multiple
  groups = graphs.choose_groups(
    np.array(sizes),
    batch_size,
    num_groups=num_groups,
    multiple=multiple,
    draws=20,
    largest=29,
  )
  assert sum(groups.counts) == batch_size == len(groups.slots)
  assert not any(count % multiple for count in groups.counts)
  assert len(groups.counts) == len(groups.capacities) == min(num_groups, num_units)
  assert groups.capacities[-1] == 29
  assert (np.diff(groups.capacities) >= 0).all()
  batch = np.sort(np.random.default_rng(0).choice(sizes, batch_size))
  assert graphs.fits(batch, groups.widest)
  assert graphs.fits(batch[:0], groups)


def test_groups_waste_little_on_sizes_like_qm9s():
  generator = np.random.default_rng(0)
  sizes = np.clip(generator.normal(18.03, 2.94, 100_000).round(), 3, 29).astype(int)
  groups = graphs.choose_groups(sizes, 120)
  batches = np.sort(generator.choice(sizes, (3000, 120)), axis=1)
  assert np.mean([graphs.fits(batch, groups) for batch in batches]) > 0.995
  assert (groups.slots**2).sum() < 1.3 * (batches**2).sum(axis=1).mean()


@given(
  sizes=st.lists(st.integers(1, 29), min_size=6, max_size=6),
  num_groups=st.integers(1, 5),
)
def test_no_other_groups_are_cheaper(sizes, num_groups):
  # one draw, so that a place needs what it holds
  groups = graphs.choose_groups(np.array(sizes), 6, num_groups=num_groups, draws=1)
  needed = np.sort(np.random.default_rng(0).choice(sizes, (1, 6)), axis=1)[0]
  needed[-1] = max(sizes)
  costs = []
  for inner in itertools.combinations(range(1, 6), num_groups - 1):
    ends = np.array([*inner, 6])
    costs.append((np.diff(ends, prepend=0) * needed[ends - 1] ** 2).sum())
  assert (groups.slots**2).sum() == min(costs)


@pytest.mark.parametrize(
  ("sizes", "batch_size", "num_groups", "multiple", "message"),
  [
    ([], 4, 1, 1, "at least one graph"),
    ([3], 0, 1, 1, "must be at least 1, got 0, 1 and 1"),
    ([3], 4, 0, 1, "must be at least 1, got 4, 0 and 1"),
    ([3], 4, 1, 0, "must be at least 1, got 4, 1 and 0"),
    ([3], 4, 1, 3, "a batch of 4 graphs cannot be divided .* multiples of 3"),
  ],
)
def test_choose_groups_errors(sizes, batch_size, num_groups, multiple, message):
  with pytest.raises(ValueError, match=message):
    graphs.choose_groups(
      np.array(sizes, int), batch_size, num_groups=num_groups, multiple=multiple
    )


def test_pad_follows_jraphs_convention():
  singles = [complete_graph(size) for size in (2, 3, 5)]
  groups = graphs.SizeGroups(counts=(2, 2), capacities=(3, 6))
  small, large = graphs.pad(singles, groups)
  assert small.nodes.shape == (2, 3, 2)
  assert small.edges.shape == (2, 6, 3)
  assert large.nodes.shape == (2, 6, 2)
  assert large.edges.shape == (2, 30, 3)
  assert small.n_node.tolist() == [[0, 3], [2, 1]]  # the first place stays empty
  assert large.n_node.tolist() == [[3, 3], [5, 1]]
  assert large.n_edge.tolist() == [[6, 24], [20, 10]]
  for group in (small, large):
    assert group.nodes.dtype == group.edges.dtype == np.float32
    assert group.senders.dtype == group.n_node.dtype == np.int32
  for row, single in ((0, singles[1]), (1, singles[2])):
    num_nodes, num_edges = len(single.nodes), len(single.edges)
    np.testing.assert_array_equal(large.nodes[row, :num_nodes], single.nodes)
    np.testing.assert_array_equal(large.edges[row, :num_edges], single.edges)
    np.testing.assert_array_equal(large.senders[row, :num_edges], single.senders)
    assert not large.nodes[row, num_nodes:].any()
    assert not large.edges[row, num_edges:].any()
    assert (large.senders[row, num_edges:] == num_nodes).all()
    assert (large.receivers[row, num_edges:] == num_nodes).all()


GOOD = complete_graph(3)


@pytest.mark.parametrize(
  ("graph", "message"),
  [
    (complete_graph(5), "graph 1 has 5 nodes, but its place holds 4"),
    (GOOD._replace(senders=GOOD.senders + 1), "graph 1 has an edge to node 3, but"),
    (GOOD._replace(receivers=GOOD.receivers - 1), "graph 1 has an edge to node -1"),
    (
      GOOD._replace(senders=GOOD.receivers),
      "graph 1 has an edge from a node to itself",
    ),
    (GOOD._replace(senders=GOOD.senders[:2]), r"graph 1 has senders of shape \(2,\)"),
    (
      GOOD._replace(senders=np.zeros(6, int), receivers=np.ones(6, int)),
      "graph 1 has two edges with the same ends",
    ),
    (
      GOOD._replace(nodes=np.full((3, 2), np.nan)),
      "graph 1 has nodes that are not fin",
    ),
    (
      GOOD._replace(edges=np.full((6, 3), np.inf)),
      "graph 1 has edges that are not fin",
    ),
  ],
)
def test_pad_refuses_invalid_graphs_with_their_index(graph, message):
  groups = graphs.SizeGroups(counts=(2,), capacities=(4,))
  with pytest.raises(ValueError, match=message):
    graphs.pad([complete_graph(2), graph], groups)


@pytest.mark.parametrize("number", [0, 3])
def test_pad_refuses_too_many_or_no_graphs(number):
  groups = graphs.SizeGroups(counts=(2,), capacities=(4,))
  with pytest.raises(ValueError, match=f"must be 1 to 2 graphs, got {number}"):
    graphs.pad([GOOD] * number, groups)
