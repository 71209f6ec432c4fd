"""QM9's molecules as batches of complete graphs in fixed shapes.

Every pair of atoms of a molecule is joined by an edge each way, whose features are
the bond's type as a one-hot vector (zeros where there is no bond) and the distance
in Angstrom. `igb_jax.data.graphs` says how a batch is padded.
"""

import functools
from typing import NamedTuple

import jraph
import numpy as np

from igb_jax.data import graphs
from igb_jax.data.molecules import BOND_TYPES
from igb_jax.data.part import WHOLE, Part
from igb_jax.data.qm9 import QM9


class MoleculeBatch(NamedTuple):
  """A batch of B places for molecules.

  Attributes:
    graphs: one stacked `GraphsTuple` a size group, see `igb_jax.data.graphs`: nodes
      f32[G, n, 11], edges f32[G, n (n - 1), 5].
    targets: f32[B, K], zeros where there is none.
    mask: f32[B], 1 where there is a molecule and 0 at an empty place.
    known: f32[B, K], 1 where there is a target and 0 elsewhere; None where every
      molecule has all.
  """

  graphs: tuple[jraph.GraphsTuple, ...]
  targets: np.ndarray
  mask: np.ndarray
  known: np.ndarray | None = None


class MoleculeBatches:
  """The batches of one pass over some molecules, by number.

  The last batch may be smaller: its first places are empty. Within a batch the
  molecules are sorted by size. A batch that does not fit the groups is padded to the
  largest capacity instead, which costs a compilation the first time. Of several
  processes each assembles its part.

  Attributes:
    positions: the molecules of each batch, before they are sorted.
  """

  def __init__(
    self,
    data: QM9,
    positions: np.ndarray,
    targets: np.ndarray,
    groups: graphs.SizeGroups,
    part: Part = WHOLE,
  ):
    """Makes the source; nothing is assembled yet.

    Args:
      data: the data set.
      positions: i64[N], which molecules, in the order in which they are batched.
      targets: f32[M, K], targets of all M molecules of the data set; NaN where one is
        missing.
      groups: shapes of a batch, from `graphs.choose_groups`.
      part: which part of every batch, that is of each of its groups.

    Raises:
      ValueError: there are no molecules, or a group cannot be divided.
    """
    if len(positions) == 0:
      raise ValueError("there must be at least one molecule to batch, got none.")
    self._data = data
    self._targets = targets
    self._all_known = not np.isnan(targets[positions]).any()
    self._groups = groups
    self._part = part
    self._rows_of_groups = [part.rows(count) for count in groups.counts]
    batch_size = sum(groups.counts)
    starts = range(0, len(positions), batch_size)
    self.positions = [positions[start : start + batch_size] for start in starts]

  def __len__(self) -> int:
    """Number of batches."""
    return len(self.positions)

  @functools.cached_property
  def num_oversized(self) -> int:
    """How many of the batches do not fit the groups."""
    sizes = self._data.num_atoms
    return sum(
      not graphs.fits(np.sort(sizes[batch]), self._groups) for batch in self.positions
    )

  def __getitem__(self, index: int) -> MoleculeBatch:
    """Assembles batch number `index`."""
    positions = self.positions[index]
    sizes = self._data.num_atoms[positions]
    order = np.argsort(sizes, kind="stable")
    positions, sizes = positions[order], sizes[order]
    groups = self._groups
    if not graphs.fits(sizes, groups):
      groups = groups.widest

    # every process sorts the whole batch, and assembles its rows of each group
    num_places = len(groups.slots)
    first = num_places - len(positions)
    present = np.arange(num_places) >= first
    positions = np.concatenate([np.zeros(first, np.int64), positions])
    starts = np.cumsum(groups.counts) - groups.counts
    of_groups = zip(groups.capacities, starts, self._rows_of_groups, strict=True)
    rows = self._part.rows(num_places)
    targets = np.where(present[:, None], self._targets[positions], np.float32(np.nan))
    known = ~np.isnan(targets)
    return MoleculeBatch(
      graphs=tuple(
        _assemble(self._data, positions[start:][own], present[start:][own], capacity)
        for capacity, start, own in of_groups
      ),
      targets=np.where(known, targets, np.float32(0))[rows],
      mask=present[rows].astype(np.float32),
      known=None if self._all_known else known[rows].astype(np.float32),
    )


def shuffled(positions: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
  """Shuffles positions as a function of the seed and the epoch alone.

  Args:
    positions: i64[N].
    seed: the seed of the run, at least 0.
    epoch: number of the epoch, from 0.

  Example:
    >>> shuffled(np.arange(5), seed=0, epoch=1).tolist()
    [1, 4, 3, 0, 2]
  """
  return np.random.default_rng((seed, epoch)).permutation(positions)


def without_labels(targets: np.ndarray, share: float, *, seed: int) -> np.ndarray:
  """Targets of which a random share is missing, as a function of the seed.

  Args:
    targets: f32[M, K].
    share: probability of each target to be missing, in [0, 1).
    seed: the seed of the choice, at least 0.

  Returns:
    f32[M, K], NaN where the target is missing.

  Example:
    >>> without_labels(np.ones((2, 3), np.float32), 0.5, seed=0)
    array([[ 1.,  1.,  1.],
           [ 1., nan, nan]], dtype=float32)
  """
  missing = np.random.default_rng((seed, 1)).random(targets.shape) < share
  return np.where(missing, np.float32(np.nan), targets)


@functools.lru_cache
def _complete_edges(capacity: int) -> tuple[np.ndarray, np.ndarray]:
  """Senders and receivers of a complete graph, in an order that serves smaller ones.

  Sorted by the larger of the two ends, the first n (n - 1) edges are those of the
  complete graph on the first n nodes, for every n up to the capacity.
  """
  senders, receivers = np.nonzero(~np.eye(capacity, dtype=bool))
  order = np.argsort(np.maximum(senders, receivers), kind="stable")
  return senders[order], receivers[order]


def _assemble(
  data: QM9, positions: np.ndarray, present: np.ndarray, capacity: int
) -> jraph.GraphsTuple:
  """Pads molecules to one capacity, without a Python loop over them."""
  sizes = np.where(present, data.num_atoms[positions], 0)[:, None]
  slots = np.arange(capacity)
  atoms = data.atom_offsets[positions][:, None] + np.minimum(slots, sizes - 1)
  atoms = np.maximum(atoms, 0)  # an empty place reads atom 0, and masks it
  is_atom = (slots < sizes)[..., None]
  nodes = np.where(is_atom, data.nodes[atoms], 0).astype(np.float32)
  coordinates = data.positions[atoms]

  senders, receivers = _complete_edges(capacity)
  n_edge = sizes * (sizes - 1)
  is_edge = np.arange(len(senders)) < n_edge
  place = data.bond_offsets[positions][:, None] + receivers * sizes + senders
  bonds = data.bonds[np.where(is_edge, place, 0)]
  difference = coordinates[:, senders] - coordinates[:, receivers]
  edges = np.empty((*bonds.shape, len(BOND_TYPES)), np.float32)
  edges[..., :-1] = np.eye(len(BOND_TYPES), dtype=np.float32)[:, 1:][bonds]
  edges[..., -1] = np.sqrt(np.einsum("...d,...d->...", difference, difference))
  edges *= is_edge[..., None]
  ends = np.broadcast_to(senders, bonds.shape), np.broadcast_to(receivers, bonds.shape)
  return graphs.stack(nodes, edges, *ends, n_node=sizes[:, 0], n_edge=n_edge[:, 0])
