"""QM9 as it is loaded: facts about the data, their check, and the same from TFDS."""

import dataclasses
import itertools
import re
from collections import Counter

import numpy as np
import pytest

from igb_jax.data import qm9
from tests.data.qm9_files import csv_rows

LIMIT = 600  # Two blocks, so that processes are started.

ATOM_ENERGIES = {  # Hartree: U0, U, H, G
  "H": (-0.500273, -0.498857, -0.497912, -0.510927),
  "C": (-37.846772, -37.845355, -37.844411, -37.861317),
  "N": (-54.583861, -54.582445, -54.581501, -54.598897),
  "O": (-75.064579, -75.063163, -75.062219, -75.079532),
  "F": (-99.718730, -99.717314, -99.716370, -99.733544),
}


def independent_targets(rows):
  """Targets by another way than the library's: f64[M, 11]."""
  targets = []
  for row in rows:
    atoms = Counter(re.findall("[A-Z]", row["Elements"]))
    free = [
      sum(number * ATOM_ENERGIES[symbol][k] for symbol, number in atoms.items())
      for k in range(4)
    ]
    total = [
      float(row[f"{name}_au"])
      for name in (
        "InternalEnergy_0K",
        "InternalEnergy_298K",
        "Enthalphy_298K",
        "GibbsFreeEnergy_298K",
      )
    ]
    targets.append(
      [
        float(row["Dipole_debye"]),
        float(row["Polarizability_bohr3"]),
        float(row["HOMO_au"]) * 27.211386246,
        float(row["LUMO_au"]) * 27.211386246,
        float(row["R2_bohr2"]),
        float(row["ZPVE_au"]) * 27.211386246,
        *((t - f) * 27.211386246 for t, f in zip(total, free, strict=True)),
        float(row["Heatcapacity_Cv_cal_mol_K"]),
      ]
    )
  return np.array(targets)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("qm9")


@pytest.fixture(scope="module")
def dataset(data_dir):
  return qm9.load(data_dir, limit=LIMIT)


def check_facts(dataset, rows):
  assert len(dataset) == len(rows)
  expected = independent_targets(rows)
  np.testing.assert_allclose(dataset.targets, expected, rtol=1e-6, atol=1e-6)
  targets = dataset.targets.astype(np.float64)
  np.testing.assert_allclose(targets.mean(axis=0), expected.mean(axis=0), rtol=1e-6)
  np.testing.assert_allclose(targets.std(axis=0), expected.std(axis=0), rtol=1e-6)
  atomisation = [qm9.TARGETS.index(name) for name in ("U0", "U", "H", "G")]
  assert (dataset.targets[:, atomisation] < 0).all()
  assert dataset.index.tolist() == [int(row["Index"]) for row in rows]
  assert dataset.num_atoms.tolist() == [int(row["N_atoms"]) for row in rows]
  assert dataset.num_atoms.max() <= 29
  assert sum(dataset.route_counts.values()) == len(rows)


def test_facts(dataset):
  check_facts(dataset, list(itertools.islice(csv_rows(), LIMIT)))
  assert {
    f.name: getattr(dataset, f.name).dtype for f in dataclasses.fields(dataset)
  } == {
    "index": np.int32,
    "num_atoms": np.int32,
    "nodes": np.uint8,
    "positions": np.float32,
    "bonds": np.uint8,
    "targets": np.float32,
    "routes": np.uint8,
  }


@pytest.mark.slow
def test_facts_of_the_complete_set(tmp_path):
  dataset = qm9.load(tmp_path)
  assert len(dataset) == 130_831
  assert 17.9 < dataset.num_atoms.mean() < 18.1
  assert dataset.num_atoms.max() == 29
  assert dataset.route_counts == {
    "smiles": 130_378,
    "bracket_hydrogens": 443,
    "substructure": 8,
    "perception": 2,
  }
  check_facts(dataset, list(csv_rows()))


def test_units():
  assert tuple(qm9.UNITS) == qm9.TARGETS
  scales = dict(zip(qm9.TARGETS, qm9.REPORT_SCALE, strict=True))
  assert scales["homo"] == scales["G"] == 1000
  assert scales["mu"] == scales["Cv"] == 1


def test_molecule_is_a_view(dataset):
  for position in (0, 1, LIMIT - 1):
    molecule = dataset.molecule(position)
    num_atoms = dataset.num_atoms[position]
    assert molecule.nodes.shape == (num_atoms, 11)
    assert molecule.positions.shape == (num_atoms, 3)
    np.testing.assert_array_equal(molecule.bonds, molecule.bonds.T)
    assert np.shares_memory(molecule.bonds, dataset.bonds)
    # All of these have several atoms, each of them bonded.
    assert (molecule.bonds > 0).any(axis=1).all()
  for position in (-1, LIMIT):
    with pytest.raises(IndexError, match=f"no molecule {position}, there are {LIMIT}"):
      dataset.molecule(position)


def change(dataset, name, position, value):
  array = getattr(dataset, name).copy()
  array[position] = value
  return dataclasses.replace(dataset, **{name: array})


# Atoms 0 to 4 are methane, index 1; 5 to 8 ammonia, index 2.
@pytest.mark.parametrize(
  ("name", "position", "value", "message"),
  [
    ("positions", (6, 0), np.nan, "molecule 2: positions not finite"),
    ("positions", (0, 2), np.inf, "molecule 1: positions not finite"),
    ("targets", (2, 5), np.nan, "molecule 3: targets not finite"),
    ("nodes", (5, 0), 1, "molecule 2: unknown element"),
    ("nodes", (4, 0), 0, "molecule 1: unknown element"),
    ("bonds", 25, 5, "molecule 2: unknown bond type"),
    ("routes", 1, 4, "molecule 2: unknown route"),
    ("index", 1, 1, "molecule 1: index not larger"),
    ("num_atoms", 0, 6, "nodes has"),
  ],
)
def test_validate_names_the_molecule(dataset, name, position, value, message):
  with pytest.raises(ValueError, match=message):
    change(dataset, name, position, value).validate()


@pytest.mark.parametrize(
  "name", ["num_atoms", "nodes", "positions", "bonds", "targets", "routes"]
)
def test_validate_compares_lengths(dataset, name):
  shorter = dataclasses.replace(dataset, **{name: getattr(dataset, name)[:-1]})
  with pytest.raises(ValueError, match=r"has \d+ rows, expected \d+"):
    shorter.validate()


def test_validate_refuses_a_molecule_without_atoms(dataset):
  empty = dataclasses.replace(
    dataset,
    index=np.append(dataset.index, 10**6).astype(np.int32),
    num_atoms=np.append(dataset.num_atoms, 0),
    targets=np.append(dataset.targets, dataset.targets[:1], axis=0),
    routes=np.append(dataset.routes, 0),
  )
  with pytest.raises(ValueError, match="molecule 1000000: no atoms"):
    empty.validate()


# The source TFDS.


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
  """Writes `qm9/original` as the catalogue's builder would, from a data set."""
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()

  def write(dataset, file_format):
    class Catalogue(tfds.core.GeneratorBasedBuilder, skip_registration=True):
      name = "qm9"
      VERSION = tfds.core.Version("1.0.0")
      BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="original")]  # noqa: RUF012
      code_path = None

      def _info(self):
        scalar = tfds.features.Tensor(shape=(), dtype=np.float32)
        number = tfds.features.Tensor(shape=(), dtype=np.int64)
        return tfds.core.DatasetInfo(
          builder=self,
          disable_shuffling=True,
          features=tfds.features.FeaturesDict(
            {
              "num_atoms": number,
              "index": number,
              "charges": tfds.features.Tensor(shape=(29,), dtype=np.int64),
              "positions": tfds.features.Tensor(shape=(29, 3), dtype=np.float32),
              "SMILES": tfds.features.Tensor(shape=(), dtype=np.str_),
              **dict.fromkeys(qm9.TARGETS, scalar),
              **{f"{name}_atomization": scalar for name in ("U0", "U", "H", "G")},
            }
          ),
        )

      def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

      def _generate_examples(self):
        for i, row in enumerate(itertools.islice(csv_rows(), len(dataset))):
          molecule = dataset.molecule(i)
          padding = (0, 29 - len(molecule.nodes))
          energies = dict(zip(qm9.TARGETS, dataset.targets[i], strict=True))
          hartree = {
            name: value / (qm9.HARTREE if qm9.UNITS[name] == "meV" else 1)
            for name, value in energies.items()
          }
          yield (
            i,
            {
              "index": dataset.index[i],
              "num_atoms": dataset.num_atoms[i],
              "charges": np.pad(molecule.nodes[:, 5].astype(np.int64), padding),
              "positions": np.pad(molecule.positions, (padding, (0, 0))),
              "SMILES": row["SMILES"],
              **hartree,
              **{f"{k}_atomization": hartree[k] for k in ("U0", "U", "H", "G")},
              **dict.fromkeys(("U0", "U", "H", "G"), 1e6),
            },
          )

    Catalogue(data_dir=tmp_path, file_format=file_format).download_and_prepare()

  return write


@pytest.mark.slow
def test_tfds_gives_the_same(dataset, catalogue, tmp_path):
  catalogue(dataset, "array_record")
  first = qm9.load(tmp_path, "tfds", limit=30)
  for field in dataclasses.fields(first):
    expected = getattr(dataset, field.name)[: len(getattr(first, field.name))]
    np.testing.assert_allclose(getattr(first, field.name), expected, rtol=1e-6)
  assert len(first) == 30
  assert len(qm9.load(tmp_path, "tfds")) == LIMIT


def test_tells_how_to_prepare_tfds(tmp_path, monkeypatch):
  (tmp_path / "qm9" / "original").mkdir(parents=True)
  with pytest.raises(
    FileNotFoundError, match=r"(?s)not prepared.*download_and_prepare"
  ):
    qm9.load(tmp_path, "tfds")


# Arguments.


def test_refuses_unknown_source(tmp_path):
  with pytest.raises(ValueError, match="unknown source 'other', expected one of"):
    qm9.load(tmp_path, "other")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("limit", [0, -1])
def test_refuses_limit(tmp_path, limit):
  with pytest.raises(ValueError, match=f"limit must be positive, got {limit}"):
    qm9.load(tmp_path, limit=limit)
