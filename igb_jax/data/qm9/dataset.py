"""The molecules of QM9 as arrays, and their division into three sets."""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from igb_jax.data.molecules import BOND_TYPES, ELEMENTS, ROUTES, Molecule

NUM_MOLECULES = 130_831
"""Molecules of QM9 without the 3,054 that its authors call uncharacterised."""


@dataclasses.dataclass(frozen=True, eq=False)
class QM9:
  """M molecules of A atoms in all, sorted by QM9 index.

  Attributes:
    index: i32[M], number of the molecule in QM9.
    num_atoms: i32[M].
    nodes: u8[A, 11], columns as in `molecules.NODE_FEATURES`.
    positions: f32[A, 3], Angstrom.
    bonds: u8[sum of num_atoms^2], the bond matrices, row by row, one after the
      other, entries as in `molecules.BOND_TYPES`.
    targets: f32[M, 11], columns as in `TARGETS`, in D, bohr^3, eV, eV, bohr^2, eV,
      eV, eV, eV, eV, cal/mol/K; U0, U, H and G are atomisation energies.
    routes: u8[M], how the bonds were found, an index into `molecules.ROUTES`.
  """

  index: np.ndarray
  num_atoms: np.ndarray
  nodes: np.ndarray
  positions: np.ndarray
  bonds: np.ndarray
  targets: np.ndarray
  routes: np.ndarray

  def __len__(self) -> int:
    """Number of molecules."""
    return len(self.index)

  @functools.cached_property
  def atom_offsets(self) -> np.ndarray:
    """i64[M + 1], atoms of molecule i are `atom_offsets[i]:atom_offsets[i + 1]`."""
    return np.concatenate([[0], np.cumsum(self.num_atoms, dtype=np.int64)])

  @functools.cached_property
  def bond_offsets(self) -> np.ndarray:
    """i64[M + 1], the same for `bonds`."""
    squares = np.square(self.num_atoms, dtype=np.int64)
    return np.concatenate([[0], np.cumsum(squares)])

  @property
  def route_counts(self) -> dict[str, int]:
    """How many molecules took which way to their bonds."""
    counts = np.bincount(self.routes, minlength=len(ROUTES))
    return dict(zip(ROUTES, counts.tolist(), strict=True))

  def molecule(self, position: int) -> Molecule:
    """The molecule at a position (0 to M - 1, not its QM9 index), without copies.

    Raises:
      IndexError: If there is no such position.
    """
    if not 0 <= position < len(self):
      raise IndexError(f"no molecule {position}, there are {len(self)}")
    atoms = slice(*self.atom_offsets[position : position + 2])
    bonds = slice(*self.bond_offsets[position : position + 2])
    num_atoms = self.num_atoms[position]
    return Molecule(
      nodes=self.nodes[atoms],
      bonds=self.bonds[bonds].reshape(num_atoms, num_atoms),
      positions=self.positions[atoms],
      route=ROUTES[self.routes[position]],
    )

  def validate(self) -> None:
    """Checks that every molecule is a graph with finite numbers.

    Raises:
      ValueError: If arrays disagree in length, or naming the QM9 index of the
        first molecule that is out of order, has no atoms, has positions or targets
        that are not finite, or an unknown element, bond or route.
    """
    lengths = {
      "num_atoms": (len(self.num_atoms), len(self)),
      "targets": (len(self.targets), len(self)),
      "routes": (len(self.routes), len(self)),
      "nodes": (len(self.nodes), self.atom_offsets[-1]),
      "positions": (len(self.positions), self.atom_offsets[-1]),
      "bonds": (len(self.bonds), self.bond_offsets[-1]),
    }
    for name, (length, expected) in lengths.items():
      if length != expected:
        raise ValueError(f"{name} has {length} rows, expected {expected}")

    def refuse(
      problem: str, invalid: ArrayLike, offsets: np.ndarray | None = None
    ) -> None:
      if np.any(invalid):
        first = int(np.argmax(invalid))
        if offsets is not None:
          first = int(np.searchsorted(offsets, first, side="right")) - 1
        raise ValueError(f"molecule {self.index[first]}: {problem}")

    element = self.nodes[:, : len(ELEMENTS)]
    refuse("index not larger than the one before", np.diff(self.index, prepend=-1) <= 0)
    refuse("no atoms", self.num_atoms < 1)
    refuse("targets not finite", ~np.isfinite(self.targets).all(axis=1))
    refuse("unknown route", self.routes >= len(ROUTES))
    refuse(
      "positions not finite",
      ~np.isfinite(self.positions).all(axis=1),
      self.atom_offsets,
    )
    refuse("unknown element", element.sum(axis=1) != 1, self.atom_offsets)
    refuse("unknown bond type", self.bonds >= len(BOND_TYPES), self.bond_offsets)


class Split(NamedTuple):
  """Positions of molecules in `QM9`, disjoint.

  Attributes:
    train: i64[number of training molecules].
    validation: i64[validation_size].
    test: i64[test_size].
  """

  train: np.ndarray
  validation: np.ndarray
  test: np.ndarray


def split(
  num_molecules: int,
  *,
  test_size: int = 10_000,
  validation_size: int = 10_000,
  train_size: int | None = None,
  seed: int = 0,
) -> Split:
  """Draws test, validation and training molecules from one permutation.

  Test and validation do not depend on `train_size`, and a smaller training set is
  part of every larger one.

  Args:
    num_molecules: Number of molecules to draw from.
    test_size: Number of test molecules.
    validation_size: Number of validation molecules.
    train_size: Number of training molecules, all that are left if None.
    seed: Seed of the permutation.

  Returns:
    The positions, in the order of the permutation.

  Raises:
    ValueError: If a size is negative, the training set would be empty, or there
      are not enough molecules.

  Example:
    >>> parts = split(10, test_size=2, validation_size=3)
    >>> [len(part) for part in parts]
    [5, 3, 2]
  """
  for name, size in (("test_size", test_size), ("validation_size", validation_size)):
    if size < 0:
      raise ValueError(f"{name} must not be negative, got {size}")
  left = num_molecules - test_size - validation_size
  if left < 1:
    raise ValueError(
      f"test_size {test_size} and validation_size {validation_size} leave no "
      f"training molecules of {num_molecules}"
    )
  train_size = left if train_size is None else train_size
  if not 1 <= train_size <= left:
    raise ValueError(
      f"train_size must be 1 to {left} (of {num_molecules} molecules, {test_size} "
      f"test, {validation_size} validation), got {train_size}"
    )
  order = np.random.default_rng(seed).permutation(num_molecules)
  test, validation, train = np.split(order, [test_size, test_size + validation_size])
  return Split(train[:train_size], validation, test)
