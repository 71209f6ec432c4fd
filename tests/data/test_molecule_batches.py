"""Batches of QM9's molecules: assembled fast, and equal to the plain way."""

import jraph
import numpy as np
import pytest

from igb_jax.data import graphs
from igb_jax.data.loader import prefetch
from igb_jax.data.molecule_batches import MoleculeBatches, shuffled, without_labels


def single_graph(data, position) -> jraph.GraphsTuple:
  """One molecule as a complete graph, by a plain loop over its pairs."""
  molecule = data.molecule(position)
  size = len(molecule.nodes)
  senders, receivers, edges = [], [], []
  for larger in range(size):  # the order in which the batches have them
    for sender in range(size):
      for receiver in range(size):
        if sender != receiver and max(sender, receiver) == larger:
          bond = molecule.bonds[receiver, sender]
          distance = np.linalg.norm(
            molecule.positions[sender] - molecule.positions[receiver]
          )
          senders.append(sender)
          receivers.append(receiver)
          edges.append([*(bond == np.arange(1, 5)), distance])
  return jraph.GraphsTuple(
    nodes=molecule.nodes.astype(np.float32),
    edges=np.array(edges),
    senders=np.array(senders),
    receivers=np.array(receivers),
    n_node=np.array([size]),
    n_edge=np.array([len(edges)]),
    globals=None,
  )


def test_equals_padding_one_molecule_after_the_other(molecules):
  positions = np.arange(3, 500, 41)
  targets = np.arange(500 * 2, dtype=np.float32).reshape(500, 2)
  groups = graphs.choose_groups(molecules.num_atoms, 15, num_groups=3)
  batches = MoleculeBatches(molecules, positions, targets, groups)
  assert len(batches) == 1
  batch = batches[0]
  order = positions[np.argsort(molecules.num_atoms[positions], kind="stable")]
  expected = graphs.pad([single_graph(molecules, i) for i in order], groups)
  for actual, plain in zip(batch.graphs, expected, strict=True):
    for field in ("nodes", "edges", "senders", "receivers", "n_node", "n_edge"):
      values = getattr(plain, field)
      np.testing.assert_allclose(getattr(actual, field), values, 1e-6, err_msg=field)
      assert getattr(actual, field).dtype == values.dtype
  assert batch.mask.tolist() == [0, 0] + [1] * 13
  np.testing.assert_array_equal(batch.targets[2:], targets[order])
  assert not batch.targets[:2].any()


def test_every_molecule_comes_once_an_epoch_in_batches_of_one_shape(molecules):
  positions = shuffled(np.arange(500), seed=0, epoch=0)
  targets = np.arange(500, dtype=np.float32)[:, None]
  groups = graphs.choose_groups(molecules.num_atoms, 60)
  batches = MoleculeBatches(molecules, positions, targets, groups)
  assert len(batches) == 9
  assert batches.num_oversized == 0
  seen, shapes = [], set()
  for batch in prefetch(batches):
    seen += batch.targets[batch.mask == 1, 0].tolist()
    shapes.add(tuple(group.edges.shape for group in batch.graphs))
  assert sorted(seen) == list(range(500))
  assert len(shapes) == 1


def test_a_batch_that_does_not_fit_is_padded_more_and_loses_nothing(molecules):
  largest = int(molecules.num_atoms.max())
  groups = graphs.SizeGroups((5, 5), (4, largest))
  batches = MoleculeBatches(
    molecules, np.arange(400, 410), np.ones((500, 1), np.float32), groups
  )
  assert batches.num_oversized == 1
  batch = batches[0]
  assert [group.nodes.shape[1] for group in batch.graphs] == [largest, largest]
  atoms = sum(group.n_node[:, 0].sum() for group in batch.graphs)
  assert atoms == molecules.num_atoms[400:410].sum()


def test_shuffling_is_a_function_of_seed_and_epoch():
  positions = np.arange(100)
  orders = [shuffled(positions, seed=s, epoch=e) for s in (0, 1) for e in (0, 1)]
  again = [shuffled(positions, seed=s, epoch=e) for s in (0, 1) for e in (0, 1)]
  for index, order in enumerate(orders):
    np.testing.assert_array_equal(order, again[index])
    assert sorted(order) == list(range(100))
    for other in orders[:index]:
      assert (order != other).any()


def test_missing_targets_are_masked(molecules):
  targets = 1 + np.arange(500 * 2, dtype=np.float32).reshape(500, 2)
  targets[10:15, 1] = np.nan
  groups = graphs.choose_groups(molecules.num_atoms, 8, num_groups=2)
  whole, lacking = (
    MoleculeBatches(molecules, np.arange(first, first + 20), targets, groups)
    for first in (20, 0)
  )
  assert all(batch.known is None for batch in prefetch(whole))
  known = np.concatenate([batch.known for batch in prefetch(lacking)])
  found = np.concatenate([batch.targets for batch in prefetch(lacking)])
  assert known.sum(axis=0).tolist() == [20, 15]  # and none at the four empty places
  np.testing.assert_array_equal(found != 0, known == 1)
  expected = np.where(np.isnan(targets[:20]), 0, targets[:20])
  assert sorted(found[known == 1]) == sorted(expected[expected != 0])


def test_labels_go_missing_as_a_function_of_the_seed():
  targets = np.ones((4000, 5), np.float32)
  first, again, other = (without_labels(targets, 0.2, seed=seed) for seed in (3, 3, 4))
  np.testing.assert_array_equal(first, again)
  assert (np.isnan(first) != np.isnan(other)).any()
  np.testing.assert_allclose(np.isnan(first).mean(axis=0), 0.2, atol=0.03)
  assert without_labels(targets, 0.0, seed=3).all()


def test_refuses_no_molecules(molecules):
  groups = graphs.SizeGroups((1,), (29,))
  with pytest.raises(ValueError, match="at least one molecule to batch, got none"):
    MoleculeBatches(molecules, np.arange(0), np.ones((500, 1), np.float32), groups)
