"""QM9 from the CSV files of the package qm9pack, which need not be importable."""

import base64
import collections
import csv
import hashlib
import importlib.metadata
import importlib.util
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from igb_jax.data.molecules import ELEMENTS
from igb_jax.data.qm9._featurising import Record
from igb_jax.data.qm9.dataset import NUM_MOLECULES
from igb_jax.data.qm9.targets import ATOM_ENERGIES, energies_in_ev

_TEXTS = ("SMILES", "Elements", "XYZ_Ang")
_NUMBERS = (
  "Index",
  "N_atoms",
  "Dipole_debye",
  "Polarizability_bohr3",
  "HOMO_au",
  "LUMO_au",
  "R2_bohr2",
  "ZPVE_au",
  "InternalEnergy_0K_au",
  "InternalEnergy_298K_au",
  "Enthalphy_298K_au",
  "GibbsFreeEnergy_298K_au",
  "Heatcapacity_Cv_cal_mol_K",
)
_LAST_INDEX = 133_885
_LONGEST_SMILES = 200  # More than any of QM9; what is longer takes RDKit long.
_LARGEST = 1e6  # More than any number of QM9; float32 holds its square.
_ELEMENT_LIST = re.compile(r"\['[HCNOF]'(,'[HCNOF]')*\]")
# No two parts of it match the same digits, so that it fails in linear time.
_NUMBER = r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?"
_TRIPLE = rf"\[{_NUMBER},{_NUMBER},{_NUMBER}\]"
_NUMBER_ONLY = re.compile(_NUMBER)
_TRIPLE_LIST = re.compile(rf"\[{_TRIPLE}(,{_TRIPLE})*\]")


def read_qm9pack(limit: int | None) -> list[Record]:
  """Reads the first molecules, all if there is no limit.

  Raises:
    FileNotFoundError: If the package is not installed.
    ValueError: If its files are damaged; names file, row (from 1) and field.
  """
  package = importlib.util.find_spec("qm9pack")
  if package is None or not package.submodule_search_locations:
    raise FileNotFoundError(
      "the package qm9pack, which has the data, is not installed: pip install qm9pack"
    )
  folder = Path(package.submodule_search_locations[0]) / "data"
  records = []
  for part in (1, 2, 3):
    left = None if limit is None else limit - len(records)
    if left != 0:
      path = folder / f"qm9_part{part}.csv"
      _check_installed(path)
      records += read_csv(path, left)
  expected = min(limit or NUM_MOLECULES, NUM_MOLECULES)
  if len(records) != expected:
    raise ValueError(f"expected {expected} molecules in {folder}, got {len(records)}")
  ((index, times),) = collections.Counter(r.index for r in records).most_common(1)
  if times > 1:
    raise ValueError(f"molecule {index} comes {times} times in {folder}")
  return records


def _check_installed(path: Path) -> None:
  """Compares a file of qm9pack with the checksum in its list of files, if it has one.

  Raises:
    ValueError: If the file has changed since it was installed.
    OSError: If it cannot be read.
  """
  try:
    files = importlib.metadata.files("qm9pack") or ()
  except importlib.metadata.PackageNotFoundError:
    return
  for file in files:
    if file.name == path.name and file.hash and Path(str(file.locate())) == path:
      with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, file.hash.mode).digest()
      found = base64.urlsafe_b64encode(digest).decode().rstrip("=")
      if found != file.hash.value:
        raise ValueError(
          f"{path}: has changed since it was installed; install it again: "
          "pip install --force-reinstall --no-deps qm9pack"
        )


def read_csv(path: Path, num_rows: int | None) -> list[Record]:
  """Reads the first rows of one of qm9pack's files.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is damaged; names file, row (from 1) and field.
  """
  records = []
  place = "header"
  try:
    with path.open(encoding="utf-8", newline="\n") as file:
      rows = csv.reader(_whole(file), strict=True)
      header = next(rows, [])
      for name in (*_TEXTS, *_NUMBERS):
        if (columns := header.count(name)) != 1:
          raise ValueError(f"{name}: {columns} columns of this name, expected 1")
      place = "row 1"
      for row in itertools.islice(rows, num_rows):
        if len(row) != len(header):
          raise ValueError(f"{len(row)} fields, expected {len(header)}")
        records.append(_parse_row(path.name, dict(zip(header, row, strict=True))))
        place = f"row {len(records) + 1}"
  except (ValueError, csv.Error) as error:
    raise ValueError(f"{path.name}, {place}, {error}") from error
  return records


def _whole(lines: Iterator[str]) -> Iterator[str]:
  """Refuses a last line that is cut off, whose last number would seem all right."""
  for line in lines:
    if not line.endswith("\n"):
      raise ValueError("no line break at the end; is the file cut off?")
    yield line


def _parse_row(file: str, fields: Mapping[str, str]) -> Record:
  """Makes a record of the fields of a row; ValueErrors begin with the field.

  Energies are in Hartree, none of them an atomisation energy.
  """
  values = np.array([_parse_number(name, fields[name]) for name in _NUMBERS])
  index, num_atoms = values[:2]
  if not (1 <= index <= _LAST_INDEX and index.is_integer()):
    raise ValueError(f"Index: {index:g}, expected a whole number, 1 to {_LAST_INDEX}")
  smiles = fields["SMILES"]
  if len(smiles) > _LONGEST_SMILES:
    raise ValueError(
      f"SMILES: {len(smiles)} letters, expected {_LONGEST_SMILES} at most"
    )
  symbols = parse_elements(fields["Elements"])
  coordinates = parse_positions(fields["XYZ_Ang"])
  for field, length in (("Elements", len(symbols)), ("XYZ_Ang", len(coordinates))):
    if length != num_atoms:
      raise ValueError(f"{field}: {length} atoms, but N_atoms is {num_atoms:g}")
  if np.abs(coordinates).max() > _LARGEST:
    raise ValueError(f"XYZ_Ang: a coordinate is larger than {_LARGEST:g}")
  counts = np.array([symbols.count(element) for element in ELEMENTS])
  energies = energies_in_ev(values[2:] - ATOM_ENERGIES @ counts)
  return Record(file, int(index), smiles, symbols, coordinates, energies)


def _parse_number(name: str, text: str) -> float:
  if not _NUMBER_ONLY.fullmatch(text):
    raise ValueError(f"{name}: not a number: {text[:80]!r}")
  value = float(text)
  if abs(value) > _LARGEST:
    raise ValueError(f"{name}: {value:g}, expected at most {_LARGEST:g}")
  return value


def parse_elements(text: str) -> tuple[str, ...]:
  """Parses a list of element symbols.

  Raises:
    ValueError: If the text is anything else.

  Example:
    >>> parse_elements("['O','H','H']")
    ('O', 'H', 'H')
  """
  if not _ELEMENT_LIST.fullmatch(text):
    raise ValueError(f"Elements: not a list of {'/'.join(ELEMENTS)}: {text[:80]!r}")
  return tuple(text[2:-2].split("','"))


def parse_positions(text: str) -> np.ndarray:
  """Parses a list of coordinate triples, which may have numbers such as `0.`.

  Returns:
    f64[n, 3], finite.

  Raises:
    ValueError: If the text is anything else.

  Example:
    >>> parse_positions("[[0.,1.5,-2.1997E-6]]").tolist()
    [[0.0, 1.5, -2.1997e-06]]
  """
  if not _TRIPLE_LIST.fullmatch(text):
    raise ValueError(f"XYZ_Ang: not a list of coordinate triples: {text[:80]!r}")
  numbers = text.replace("[", "").replace("]", "").split(",")
  positions = np.array([float(number) for number in numbers]).reshape(-1, 3)
  if not np.isfinite(positions).all():
    raise ValueError(f"XYZ_Ang: a coordinate is too large: {text[:80]!r}")
  return positions
