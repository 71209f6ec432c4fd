"""QM9 from the package qm9pack: its parsers, and refusals that name the culprit."""

import csv
import dataclasses
import importlib.util
import io
import itertools
import os
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from igb_jax.data import _processes, qm9
from igb_jax.data.qm9 import _featurising
from tests.data.qm9_files import CSV_FOLDER

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


# What is read.


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
  with pytest.raises(RuntimeError, match=r"a data-preparation process died"):
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
