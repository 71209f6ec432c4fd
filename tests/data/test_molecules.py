"""From SMILES and coordinates to graphs: golden values, recovery, refusals."""

import csv
import importlib.util
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from igb_jax.data import qm9
from igb_jax.data.molecules import BOND_TYPES, ELEMENTS, NODE_FEATURES, featurise

GOLDEN = Path(__file__).parents[1] / "golden" / "qm9_features.npz"

# QM9 index -> route, and the number of bonds by elements and kind.
RECOVERED = {
  4: ("substructure", {"CC triple": 1, "CH single": 2}),
  23: ("substructure", {"CC triple": 2, "CC single": 1, "CH single": 2}),
  24: (
    "substructure",
    {"CC triple": 1, "CC single": 1, "CN triple": 1, "CH single": 1},
  ),
  271: (
    "bracket_hydrogens",
    {
      "HN single": 3,
      "CN single": 1,
      "CC single": 2,
      "CH single": 4,
      "CO single": 1,
      "CO double": 1,
    },
  ),
  486: ("substructure", {"CC triple": 1, "CC single": 2, "CN triple": 2}),
  # Its element order agrees by accident.
  6683: (
    "bracket_hydrogens",
    {
      "HN single": 3,
      "CN single": 2,
      "CN double": 1,
      "CC single": 2,
      "CH single": 5,
      "CO single": 1,
      "CO double": 1,
    },
  ),
  # It lost a bond of its SMILES string when it was relaxed.
  133857: ("perception", {"CC single": 11, "CC double": 1, "CH single": 10}),
}


@pytest.fixture(scope="module")
def records():
  """Rows of the CSV that the tests need, by QM9 index."""
  wanted = {*RECOVERED, *np.load(GOLDEN)["index"].tolist()}
  found = {}
  spec = importlib.util.find_spec("qm9pack")
  assert spec is not None
  assert spec.submodule_search_locations
  for part in (1, 2, 3):
    path = Path(spec.submodule_search_locations[0], "data", f"qm9_part{part}.csv")
    with path.open(newline="") as file:
      for row in csv.DictReader(file):
        if int(row["Index"]) in wanted:
          found[int(row["Index"])] = row
  return found


def featurise_row(row):
  return featurise(
    row["SMILES"],
    qm9.parse_elements(row["Elements"]),
    qm9.parse_positions(row["XYZ_Ang"]),
  )


@pytest.mark.parametrize("graph", range(8))
def test_features_equal_golden(records, graph):
  golden = np.load(GOLDEN)
  molecule = featurise_row(records[int(golden["index"][graph])])
  (atoms,) = np.nonzero(golden["graph"] == graph)
  edges = golden["graph"][golden["edge_index"][0]] == graph
  senders, receivers = golden["edge_index"][:, edges] - atoms[0]
  one_hot, distance = np.split(golden["edge_attr"][edges], [4], axis=1)

  np.testing.assert_array_equal(molecule.nodes, golden["x"][atoms])
  np.testing.assert_array_equal(
    molecule.bonds[senders, receivers], one_hot @ [1, 2, 3, 4]
  )
  positions = molecule.positions
  np.testing.assert_allclose(
    np.linalg.norm(positions[senders] - positions[receivers], axis=1),
    distance[:, 0],
    rtol=1e-5,
  )


@pytest.mark.parametrize("index", RECOVERED)
def test_recovers_bonds(records, index):
  route, bonds = RECOVERED[index]
  molecule = featurise_row(records[index])
  symbols = [ELEMENTS[i] for i in molecule.nodes[:, :5].argmax(axis=1)]
  kinds = Counter(
    f"{''.join(sorted(symbols[i] + symbols[j]))} {BOND_TYPES[molecule.bonds[i, j]]}"
    for i, j in np.argwhere(np.triu(molecule.bonds))
  )
  assert molecule.route == route
  assert kinds == bonds
  assert tuple(symbols) == qm9.parse_elements(records[index]["Elements"])
  np.testing.assert_array_equal(molecule.bonds, molecule.bonds.T)
  assert not molecule.bonds.diagonal().any()


@pytest.mark.parametrize("index", [271, 23, 133857])
def test_order_of_atoms_does_not_matter(records, index):
  """Shuffled atoms take another route to the same graph, in the new order."""
  row = records[index]
  expected = featurise_row(row)
  symbols = qm9.parse_elements(row["Elements"])
  order = np.random.default_rng(0).permutation(len(symbols))
  shuffled = featurise(
    row["SMILES"], [symbols[i] for i in order], expected.positions[order]
  )
  np.testing.assert_array_equal(shuffled.nodes, expected.nodes[order])
  kinds = [np.sort(graph.bonds, axis=None) for graph in (shuffled, expected)]
  np.testing.assert_array_equal(*kinds)
  np.testing.assert_array_equal(
    shuffled.bonds > 0, (expected.bonds > 0)[np.ix_(order, order)]
  )


def test_aromatic_ring():
  angles = np.arange(6) * np.pi / 3
  ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
  benzene = featurise(
    "c1ccccc1", "CCCCCCHHHHHH", np.concatenate([1.4 * ring, 2.5 * ring])
  )
  features = dict(zip(NODE_FEATURES, benzene.nodes[0].tolist(), strict=True))
  assert features == {
    "H": 0,
    "C": 1,
    "N": 0,
    "O": 0,
    "F": 0,
    "atomic_number": 6,
    "aromatic": 1,
    "sp": 0,
    "sp2": 1,
    "sp3": 0,
    "num_hydrogens": 1,
  }
  assert BOND_TYPES[benzene.bonds[0, 1]] == "aromatic"
  assert BOND_TYPES[benzene.bonds[0, 6]] == "single"
  assert [array.dtype for array in benzene[:3]] == [np.uint8, np.uint8, np.float32]


WATER = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float64)


def with_x(positions, atom, value):
  changed = positions.copy()
  changed[atom, 0] = value
  return changed


@pytest.mark.parametrize(
  ("smiles", "elements", "positions", "message"),
  [
    ("O", "OHX", WATER, r"unknown elements \['X'\]"),
    ("O", "OHH", WATER[:2], r"expected positions of shape \(3, 3\).*got \(2, 3\)"),
    ("O", "OHH", WATER[:, :2], r"expected positions of shape \(3, 3\).*got \(3, 2\)"),
    ("", "", np.zeros((0, 3)), "at least one"),
    ("O", "OHH", with_x(WATER, 1, np.nan), "position of atom 1 is not finite"),
    ("O", "OHH", with_x(WATER, 2, np.inf), "position of atom 2 is not finite"),
    ("O", "OHH", WATER * [[1], [0], [1]], "atoms 0 and 1 are at the same place"),
    ("C(", "OHH", WATER, r"cannot read the SMILES string 'C\('"),
    ("O", "OHH", 10 * WATER, "no bonds found for 'O' that fit the elements 'OHH'"),
    ("C", "OHH", 10 * WATER, "the SMILES string 'C' is not of the elements 'OHH'"),
  ],
)
def test_refuses(smiles, elements, positions, message):
  with pytest.raises(ValueError, match=message):
    featurise(smiles, elements, positions)


def test_methane_in_every_order_of_its_first_three_atoms():
  corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.63
  atoms = [("C", np.zeros(3)), *(("H", corner) for corner in corners)]
  for order in itertools.permutations(range(5), 3):
    rest = [i for i in range(5) if i not in order]
    chosen = [atoms[i] for i in (*order, *rest)]
    molecule = featurise("C", [a[0] for a in chosen], np.stack([a[1] for a in chosen]))
    carbon = [a[0] for a in chosen].index("C")
    assert molecule.bonds[carbon].sum() == 4
    assert molecule.bonds.sum() == 8
    assert molecule.nodes[carbon, -1] == 4
