"""QM9: parsing, facts about the data, the split, both sources, refusals."""

import csv
import dataclasses
import importlib.util
import io
import itertools
import os
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from igb_jax.data import _processes, qm9
from igb_jax.data.qm9 import _featurising

LIMIT = 600  # Two blocks, so that processes are started.

ATOM_ENERGIES = {  # Hartree: U0, U, H, G
  "H": (-0.500273, -0.498857, -0.497912, -0.510927),
  "C": (-37.846772, -37.845355, -37.844411, -37.861317),
  "N": (-54.583861, -54.582445, -54.581501, -54.598897),
  "O": (-75.064579, -75.063163, -75.062219, -75.079532),
  "F": (-99.718730, -99.717314, -99.716370, -99.733544),
}


_SPEC = importlib.util.find_spec("qm9pack")
assert _SPEC is not None
assert _SPEC.submodule_search_locations
CSV_FOLDER = Path(_SPEC.submodule_search_locations[0], "data")


def csv_rows():
  for part in (1, 2, 3):
    with (CSV_FOLDER / f"qm9_part{part}.csv").open(newline="") as file:
      yield from csv.DictReader(file)


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


# The split.


def test_split_covers_everything_once():
  parts = qm9.split(100, test_size=10, validation_size=20)
  assert [len(part) for part in parts] == [70, 20, 10]
  assert sorted(np.concatenate(parts)) == list(range(100))
  assert {part.dtype for part in parts} == {np.dtype(np.int64)}


def test_split_holds_out_the_same_whatever_the_training_size():
  whole = qm9.split(100, test_size=10, validation_size=20)
  small = qm9.split(100, test_size=10, validation_size=20, train_size=7)
  np.testing.assert_array_equal(small.test, whole.test)
  np.testing.assert_array_equal(small.validation, whole.validation)
  np.testing.assert_array_equal(small.train, whole.train[:7])


def test_split_depends_on_the_seed():
  first, again, other = (
    qm9.split(100, test_size=10, validation_size=20, seed=seed) for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(first.train, again.train)
  assert (first.test != other.test).any()


def test_split_of_the_paper():
  parts = qm9.split(qm9.NUM_MOLECULES)
  assert [len(part) for part in parts] == [110_831, 10_000, 10_000]


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ({"test_size": -1}, "test_size must not be negative, got -1"),
    ({"validation_size": -2}, "validation_size must not be negative, got -2"),
    ({"test_size": 60, "validation_size": 40}, "leave no training molecules of 100"),
    ({}, "test_size 10000 and validation_size 10000 leave no training"),
    (
      {"test_size": 10, "validation_size": 10, "train_size": 81},
      "train_size must be 1 to 80 .* got 81",
    ),
    ({"test_size": 10, "validation_size": 10, "train_size": 0}, "got 0"),
  ],
)
def test_split_refuses(sizes, message):
  with pytest.raises(ValueError, match=message):
    qm9.split(100, **sizes)


# The parser.

NEARLY = st.text("[]0123456789.,-+eE 'HCNOFx\n", max_size=40)


@given(st.one_of(st.text(), NEARLY))
def test_parsers_refuse_garbage_with_value_error(text):
  for parse in (qm9.parse_elements, qm9.parse_positions):
    try:
      parse(text)
    except ValueError:
      continue


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(FINITE, FINITE, FINITE), min_size=1))
def test_parses_positions(rows):
  text = str([list(row) for row in rows]).replace(" ", "").replace(".0,", ".,")
  np.testing.assert_array_equal(qm9.parse_positions(text), rows)


@given(st.lists(st.sampled_from("HCNOF"), min_size=1))
def test_parses_elements(symbols):
  text = str(symbols).replace(" ", "")
  assert qm9.parse_elements(text) == tuple(symbols)


@pytest.mark.parametrize(
  "text", ["", "[]", "[[]]", "[[1,2]]", "[[1,2,3],]", "[[1,2,3]]x", "[[1,2,.]]"]
)
def test_refuses_positions(text):
  with pytest.raises(ValueError, match="XYZ_Ang: not a list of coordinate triples"):
    qm9.parse_positions(text)


def test_refuses_positions_quickly():
  with pytest.raises(ValueError, match="not a list"):
    qm9.parse_positions("[[" + "1" * 10**6 + "x")
  with pytest.raises(ValueError, match="too large"):
    qm9.parse_positions("[[1e999,0,0]]")


# The source qm9pack.


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
  """A package qm9pack that has five rows in each file, as lists of fields."""
  folder = tmp_path / "packages" / "qm9pack"
  (folder / "data").mkdir(parents=True)
  (folder / "__init__.py").write_text("raise ImportError('not to be imported')")
  monkeypatch.syspath_prepend(folder.parent)
  tables = {}
  for part in (1, 2, 3):
    with (CSV_FOLDER / f"qm9_part{part}.csv").open(newline="") as file:
      tables[part] = list(itertools.islice(csv.reader(file), 6))

  def write():
    for part, table in tables.items():
      text = io.StringIO()
      csv.writer(text).writerows(table)
      (folder / "data" / f"qm9_part{part}.csv").write_text(text.getvalue())
    return tables

  return tables, write


def test_finds_qm9pack_without_importing_it(fake_package, tmp_path):
  _, write = fake_package
  write()
  dataset = qm9.load(tmp_path / "cache", limit=5)
  assert dataset.index.tolist() == [1, 2, 3, 4, 5]
  assert "qm9pack" not in sys.modules


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("XYZ_Ang", "__import__('os')", "XYZ_Ang: not a list of coordinate triples"),
    ("XYZ_Ang", "[[0,0,0]]", "XYZ_Ang: 1 atoms, but N_atoms is 4"),
    ("Elements", "['N','H','H','Xe']", "Elements: not a list of H/C/N/O/F"),
    ("Elements", "['N','H','H']", "Elements: 3 atoms, but N_atoms is 4"),
    ("HOMO_au", "", "HOMO_au: not a number: ''"),
    ("ZPVE_au", "abc", "ZPVE_au: not a number: 'abc'"),
    ("Index", "inf", "Index: not a number: 'inf'"),
    ("Index", "0", "Index: 0, expected a whole number, 1 to 133885"),
    ("Index", "133886", "Index: 133886, expected a whole number, 1 to 133885"),
    ("Index", "1.5", "Index: 1.5, expected a whole number, 1 to 133885"),
  ],
)
def test_names_file_row_and_field(fake_package, tmp_path, field, value, message):
  tables, write = fake_package
  tables[1][2][tables[1][0].index(field)] = value
  write()
  with pytest.raises(ValueError, match=f"^qm9_part1.csv, row 2, {re.escape(message)}"):
    qm9.load(tmp_path / "cache", limit=5)


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("SMILES", "C(", r"molecule 2: cannot read the SMILES string 'C\('"),
    (
      "XYZ_Ang",
      "[[0,0,0],[5,0,0],[0,5,0],[0,0,5]]",
      "molecule 2: no bonds found for 'N'",
    ),
    ("XYZ_Ang", "[[0,0,0],[0,0,0],[1,0,0],[0,1,0]]", "molecule 2: atoms 0 and 1 are"),
  ],
)
def test_names_the_molecule(fake_package, tmp_path, field, value, message):
  tables, write = fake_package
  tables[1][2][tables[1][0].index(field)] = value
  write()
  with pytest.raises(ValueError, match=message):
    qm9.load(tmp_path / "cache", limit=5)


def waters(number):
  positions = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float64)
  return [
    _featurising.Record("a.csv", i, "O", ("O", "H", "H"), positions, np.zeros(11))
    for i in range(number)
  ]


def test_names_the_molecule_from_another_process():
  records = waters(1500)
  records[1200] = dataclasses.replace(records[1200], smiles="C(")
  with pytest.raises(ValueError, match=r"a\.csv, molecule 1200: cannot read"):
    _featurising.featurise_all(records, progress=False)


def test_tells_when_a_process_dies(monkeypatch):
  monkeypatch.setattr(_processes, "_start_worker", os.abort)
  with pytest.raises(RuntimeError, match=r"a process .*has died"):
    _featurising.featurise_all(waters(600), progress=False)


def test_shows_a_bar_on_a_terminal(monkeypatch):
  terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
  monkeypatch.setattr(_processes, "_console", terminal)
  assert len(_featurising.featurise_all(waters(600), progress=True)) == 2
  assert "Finding bonds" in terminal.file.getvalue()
  assert "600/600" in terminal.file.getvalue()


def test_refuses_a_column_that_is_missing(fake_package, tmp_path):
  tables, write = fake_package
  tables[1][0][tables[1][0].index("LUMO_au")] = "other"
  write()
  with pytest.raises(ValueError, match=r"qm9_part1\.csv, header, LUMO_au: 0 columns"):
    qm9.load(tmp_path / "cache", limit=5)


def test_refuses_an_incomplete_package(fake_package, tmp_path):
  _, write = fake_package
  write()
  with pytest.raises(ValueError, match=r"expected 130831 molecules in .*, got 15"):
    qm9.load(tmp_path / "cache")


def test_refuses_a_molecule_that_comes_twice(fake_package, tmp_path):
  tables, write = fake_package
  tables[1][2] = tables[1][1]
  write()
  with pytest.raises(ValueError, match=r"molecule 1 comes 2 times in .*data"):
    qm9.load(tmp_path / "cache", limit=5)


def test_tells_which_file_is_missing(fake_package, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"qm9_part1\.csv"):
    qm9.load(tmp_path / "cache", limit=5)


def test_tells_how_to_install_qm9pack(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(FileNotFoundError, match="pip install qm9pack"):
    qm9.load(tmp_path, limit=5)


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
