"""From a SMILES string and relaxed coordinates to graph features.

A molecule file gives atoms (elements and positions) without bonds, and a SMILES
string whose atoms may be listed in another order. What is needed is the bond
matrix in the order of the coordinates, and what follows from it: aromaticity,
hybridisation, hydrogen counts. Several routes lead there, tried in order until
one gives a graph that fits the coordinates: the same elements, and no bond
longer than a bond can be.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds
from rdkit.Geometry import Point3D

ELEMENTS = ("H", "C", "N", "O", "F")
ATOMIC_NUMBERS = (1, 6, 7, 8, 9)

NODE_FEATURES = (
  *ELEMENTS,
  "atomic_number",
  "aromatic",
  "sp",
  "sp2",
  "sp3",
  "num_hydrogens",
)
"""Columns of `Molecule.nodes`."""

BOND_TYPES = ("none", "single", "double", "triple", "aromatic")
"""Meaning of the entries 0 to 4 of `Molecule.bonds`."""

# RDKit's bond order times two (single 2, aromatic 3, double 4, triple 6), as an
# index into this table, gives the entry of BOND_TYPES.
_BOND_OF_TWICE_ORDER = np.array([0, 0, 1, 4, 2, 0, 3], np.uint8)

_HYBRIDISATIONS = np.array(
  [Chem.HybridizationType.SP, Chem.HybridizationType.SP2, Chem.HybridizationType.SP3],
  int,
)

# In Angstrom. Over QM9, true bonds with a hydrogen end at 1.25 and others at 1.79,
# while the bonds of a wrongly ordered graph begin beyond 2.
_LONGEST_BOND_WITH_HYDROGEN = 1.3
_LONGEST_BOND = 1.9
_COINCIDENT = 0.1

ROUTES = ("smiles", "bracket_hydrogens", "substructure", "perception")
"""Ways to the bonds, in the order in which they are tried."""


class Molecule(NamedTuple):
  """A molecule of n atoms as arrays.

  Attributes:
    nodes: u8[n, 11], columns as in `NODE_FEATURES`.
    bonds: u8[n, n], symmetric, entries as in `BOND_TYPES`.
    positions: f32[n, 3], Angstrom.
    route: Name of the route that gave the bonds, one of `ROUTES`.
  """

  nodes: np.ndarray
  bonds: np.ndarray
  positions: np.ndarray
  route: str


def featurise(smiles: str, elements: Sequence[str], positions: np.ndarray) -> Molecule:
  """Finds the bonds of a molecule and from them its features.

  Args:
    smiles: SMILES string of the molecule, its atoms in any order.
    elements: Symbols of the n atoms, of `ELEMENTS`.
    positions: Float array [n, 3], coordinates in Angstrom.

  Returns:
    The molecule, atoms in the order of `elements`.

  Raises:
    ValueError: If an element is unknown, the positions have the wrong shape, are
      not finite or put two atoms in one place, the SMILES string cannot be read
      or has other elements, or no route gives a graph that fits the coordinates.

  Example:
    >>> water = featurise("O", "OHH", np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]]))
    >>> water.bonds.tolist()
    [[0, 1, 1], [1, 0, 0], [1, 0, 0]]
    >>> dict(zip(NODE_FEATURES, water.nodes[0].tolist()))["num_hydrogens"]
    2
    >>> water.route
    'smiles'
  """
  positions = np.asarray(positions, np.float32)
  distances = _checked_distances(elements, positions)
  hydrogen = np.array(list(elements)) == "H"
  longest = np.where(
    hydrogen[:, None] | hydrogen, _LONGEST_BOND_WITH_HYDROGEN, _LONGEST_BOND
  )
  with rdBase.BlockLogs():
    smiles_graph = Chem.MolFromSmiles(smiles)
    if smiles_graph is None:
      raise ValueError(f"cannot read the SMILES string {smiles[:80]!r}")
    with_hydrogens = Chem.AddHs(smiles_graph)
    if sorted(_symbols(with_hydrogens)) != sorted(elements):
      raise ValueError(
        f"the SMILES string {smiles[:80]!r} is not of the elements "
        f"{''.join(elements)!r}"
      )
    graphs = _routes(with_hydrogens, elements, positions, distances <= longest)
    for name, graph in zip(ROUTES, graphs, strict=True):
      if graph is None or _symbols(graph) != list(elements):
        continue
      orders = Chem.GetAdjacencyMatrix(graph, useBO=True)
      if np.all(distances[orders > 0] <= longest[orders > 0]):
        bonds = _BOND_OF_TWICE_ORDER[(2 * orders).astype(np.intp)]
        return Molecule(_node_features(graph, bonds), bonds, positions, name)
  raise ValueError(
    f"no bonds found for {smiles!r} that fit the elements {''.join(elements)!r} "
    "and their positions"
  )


def _checked_distances(elements: Sequence[str], positions: np.ndarray) -> np.ndarray:
  """Checks atoms and gives their distances, f32[n, n], infinite on the diagonal."""
  unknown = sorted(set(elements) - set(ELEMENTS))
  if unknown:
    raise ValueError(f"unknown elements {unknown}, expected some of {ELEMENTS}")
  if positions.shape != (len(elements), 3) or not elements:
    raise ValueError(
      f"expected positions of shape ({len(elements)}, 3) for {len(elements)} "
      f"elements (at least one), got {positions.shape}"
    )
  if not np.isfinite(positions).all():
    atom = int(np.argmin(np.isfinite(positions).all(axis=1)))
    raise ValueError(f"position of atom {atom} is not finite: {positions[atom]}")
  distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
  np.fill_diagonal(distances, np.inf)
  if distances.min() < _COINCIDENT:
    first, second = np.unravel_index(np.argmin(distances), distances.shape)
    raise ValueError(
      f"atoms {first} and {second} are at the same place "
      f"({distances[first, second]:.3g} Angstrom apart)"
    )
  return distances


def _atoms(graph: Chem.Mol) -> list[Chem.Atom]:
  # `GetAtoms` counts the atoms again at each of them
  return [graph.GetAtomWithIdx(i) for i in range(graph.GetNumAtoms())]


def _symbols(graph: Chem.Mol) -> list[str]:
  return [atom.GetSymbol() for atom in _atoms(graph)]


def _node_features(graph: Chem.Mol, bonds: np.ndarray) -> np.ndarray:
  """Columns of `NODE_FEATURES`, u8[n, 11]."""
  atoms = _atoms(graph)
  numbers = np.array([atom.GetAtomicNum() for atom in atoms])
  hybridisations = np.array([int(atom.GetHybridization()) for atom in atoms])
  columns = (
    numbers[:, None] == ATOMIC_NUMBERS,
    numbers,
    [atom.GetIsAromatic() for atom in atoms],
    hybridisations[:, None] == _HYBRIDISATIONS,
    (bonds[:, numbers == 1] > 0).sum(axis=1),
  )
  return np.column_stack(columns).astype(np.uint8)


def _routes(
  graph: Chem.Mol, elements: Sequence[str], positions: np.ndarray, close: np.ndarray
) -> Iterator[Chem.Mol | None]:
  """The molecule by each of `ROUTES`, None where one leads nowhere.

  Args:
    graph: That of the SMILES string with its hydrogens.
    elements: Symbols of the n atoms, whose order the result should have.
    positions: f32[n, 3].
    close: bool[n, n], true where a pair is close enough to be bonded.
  """
  yield graph
  yield _bracket_hydrogens(graph)
  yield _substructure(graph, elements, close)
  yield _perception(elements, positions)


def _bracket_hydrogens(graph: Chem.Mol) -> Chem.Mol:
  """The order of the string, with hydrogens in brackets ([NH3+]) after their atom."""
  order = []
  for atom in graph.GetAtoms():
    if atom.GetAtomicNum() > 1:
      order.append(atom.GetIdx())
      if atom.GetNoImplicit():
        order.extend(
          neighbour.GetIdx()
          for neighbour in atom.GetNeighbors()
          if neighbour.GetAtomicNum() == 1
        )
  placed = set(order)
  order.extend(i for i in range(graph.GetNumAtoms()) if i not in placed)
  return Chem.RenumberAtoms(graph, order)


def _substructure(
  graph: Chem.Mol, elements: Sequence[str], close: np.ndarray
) -> Chem.Mol | None:
  """The SMILES graph laid over the contacts between the atoms."""
  contacts = Chem.RWMol()
  for element in elements:
    contacts.AddAtom(Chem.Atom(element))
  for first, second in np.argwhere(np.triu(close)):
    contacts.AddBond(int(first), int(second), Chem.BondType.SINGLE)
  if contacts.GetNumBonds() != graph.GetNumBonds():
    return None
  skeleton = Chem.RWMol()
  for atom in graph.GetAtoms():
    skeleton.AddAtom(Chem.Atom(atom.GetAtomicNum()))
  for bond in graph.GetBonds():
    skeleton.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
  match = contacts.GetSubstructMatch(skeleton)
  if len(match) != len(elements):
    return None
  return Chem.RenumberAtoms(graph, np.argsort(match).tolist())


def _perception(elements: Sequence[str], positions: np.ndarray) -> Chem.Mol | None:
  """Bonds and their orders from the coordinates alone, for a neutral molecule."""
  perceived = Chem.RWMol()
  conformer = Chem.Conformer(len(elements))
  for element, position in zip(elements, positions.astype(float), strict=True):
    conformer.SetAtomPosition(perceived.AddAtom(Chem.Atom(element)), Point3D(*position))
  perceived.AddConformer(conformer)
  try:
    rdDetermineBonds.DetermineBonds(perceived, charge=0)
  except ValueError:
    return None
  return perceived
