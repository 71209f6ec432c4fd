"""QM9: 130,831 small molecules, their graphs and 11 quantum-chemical targets.

`load` returns the whole data set as arrays. The first call featurises the
molecules (`igb_jax.data.molecules`) on all cores and caches the result as
array_record files; later calls take about a second. `split` draws the test,
validation and training sets.

Reference: Ramakrishnan et al., "Quantum chemistry structures and properties of
134 kilo molecules", Scientific Data 1, 2014.
"""

import base64
import collections
import csv
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from igb_jax.data import _once
from igb_jax.data.molecules import (
  ATOMIC_NUMBERS,
  BOND_TYPES,
  ELEMENTS,
  ROUTES,
  Molecule,
  featurise,
)

NUM_MOLECULES = 130_831
"""Molecules of QM9 without the 3,054 that its authors call uncharacterised."""

TARGETS = ("mu", "alpha", "homo", "lumo", "r2", "zpve", "U0", "U", "H", "G", "Cv")
"""Names of the targets, in the order of `QM9.targets`."""

UNITS = dict(
  zip(
    TARGETS,
    ("D", "bohr^3", "meV", "meV", "bohr^2", *["meV"] * 5, "cal/mol/K"),
    strict=True,
  )
)
"""Units in which errors are reported; `QM9.targets` has eV in place of meV."""

REPORT_SCALE = np.array([1000.0 if UNITS[name] == "meV" else 1.0 for name in TARGETS])
"""f64[11], an error in units of `QM9.targets` times this is in `UNITS`."""

HARTREE = 27.211386246
"""In eV."""

# Energies of the lone atoms in Hartree, which atomisation energies leave out.
_ATOM_ENERGIES_OF_TARGET = {  # H, C, N, O, F
  "U0": (-0.500273, -37.846772, -54.583861, -75.064579, -99.718730),
  "U": (-0.498857, -37.845355, -54.582445, -75.063163, -99.717314),
  "H": (-0.497912, -37.844411, -54.581501, -75.062219, -99.716370),
  "G": (-0.510927, -37.861317, -54.598897, -75.079532, -99.733544),
}
_ATOM_ENERGIES = np.array(
  [_ATOM_ENERGIES_OF_TARGET.get(name, [0.0] * len(ELEMENTS)) for name in TARGETS]
)

_CSV_OF_TARGET = {
  "mu": "Dipole_debye",
  "alpha": "Polarizability_bohr3",
  "homo": "HOMO_au",
  "lumo": "LUMO_au",
  "r2": "R2_bohr2",
  "zpve": "ZPVE_au",
  "U0": "InternalEnergy_0K_au",
  "U": "InternalEnergy_298K_au",
  "H": "Enthalphy_298K_au",
  "G": "GibbsFreeEnergy_298K_au",
  "Cv": "Heatcapacity_Cv_cal_mol_K",
}

# Raise it with every change of what the cache holds, so that older ones are rebuilt.
_CACHE_VERSION = 1
_BLOCK_SIZE = 512

Source = Literal["qm9pack", "tfds"]

_Block = dict[str, np.ndarray]  # The fields of QM9 for some molecules.


@dataclasses.dataclass(frozen=True)
class _Record:
  """A molecule as its source has it.

  Attributes:
    file: Where it is from, for errors.
    index: QM9 index.
    smiles: SMILES string.
    elements: Symbols of the n atoms.
    positions: f64[n, 3], Angstrom.
    targets: f64[11], units as in `QM9.targets`.
  """

  file: str
  index: int
  smiles: str
  elements: tuple[str, ...]
  positions: np.ndarray
  targets: np.ndarray


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


def cache_folder(
  data_dir: Path | None = None,
  source: Source = "qm9pack",
  *,
  limit: int | None = None,
) -> Path:
  """Where `load`, with the same arguments, keeps what it has prepared.

  Args:
    data_dir: Folder of the cache, as for `load`.
    source: As for `load`.
    limit: As for `load`.

  Returns:
    The folder, whether it is there or not.

  Example:
    >>> cache_folder(Path("/data"), limit=100).as_posix()
    '/data/igb_qm9/qm9pack-limit100'
  """
  config = source if limit is None else f"{source}-limit{limit}"
  return _once.cache_root(data_dir) / "igb_qm9" / config


def load(
  data_dir: Path | None = None,
  source: Source = "qm9pack",
  *,
  limit: int | None = None,
  progress: bool = True,
) -> QM9:
  """Reads QM9 from the cache, which the first call prepares.

  The cache lies in the folder `igb_qm9` of `data_dir`, one folder for each source
  and limit. One that is damaged, half-written or of another version is prepared
  again. Processes that call this at once take turns.

  Args:
    data_dir: Folder of the cache; by default the environment variable
      `IGB_JAX_DATA`, or else the cache folder of the platform.
    source: `qm9pack`, a package with the data, or `tfds`, which is `qm9/original`
      of the TFDS catalogue, prepared beforehand in `data_dir` or where TFDS keeps
      its data.
    limit: Number of molecules to take, the first ones; None for all.
    progress: Whether to show how far the preparation is.

  Returns:
    The data set, validated.

  Raises:
    ValueError: If the source is unknown, the limit is not positive, or the source
      holds something other than molecules; names file, row and field, or the
      molecule.
    FileNotFoundError: If the source is not installed or not prepared.
    OSError: If the folder cannot be written; names the folder.
  """
  if source not in _READERS:
    raise ValueError(f"unknown source {source!r}, expected one of {list(_READERS)}")
  if limit is not None and limit < 1:
    raise ValueError(f"limit must be positive, got {limit}")
  root = _once.cache_root(data_dir)
  folder = cache_folder(data_dir, source, limit=limit)
  if _once.read_only(folder) and _find_problem(folder) is None:
    return _read(folder)  # Nobody can change it, so it needs no lock.
  with _once.locked(folder, "QM9"):
    problem = _find_problem(folder)
    if problem is None:
      return _read(folder)
    if folder.exists():
      _once.say(f"Rebuilding the QM9 cache in {folder}: {problem}")
    elif progress:
      _once.say(f"Preparing the QM9 cache in {folder}, once")
    records = sorted(_READERS[source](root, limit), key=lambda record: record.index)
    dataset = _write(folder, _featurise_all(records, progress))
    if progress:
      counts = [f"{count} by {route}" for route, count in dataset.route_counts.items()]
      _once.say(f"Found the bonds of {len(dataset)} molecules: {', '.join(counts)}")
    return dataset


# The cache: a folder of array_record files, complete if there is a manifest beside
# them, which is written last and has the digest of each.

_MANIFEST = "manifest.json"


def _digests(folder: Path) -> dict[str, str]:
  """SHA-256 of every file in the folder but the manifest, by relative path."""
  return {
    path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and path.name != _MANIFEST
  }


def _find_problem(folder: Path) -> str | None:
  """Why the cache in a folder cannot be used, None if it can."""
  try:
    manifest = json.loads((folder / _MANIFEST).read_text())
    version, files = manifest["version"], manifest["files"]
  except FileNotFoundError:
    return "it is not complete"
  except (ValueError, KeyError, TypeError):
    return f"{_MANIFEST} is damaged"
  if version != _CACHE_VERSION:
    return f"it has version {version}, not {_CACHE_VERSION}"
  if files != _digests(folder):
    return "files are missing or damaged"
  return None


def _read(folder: Path) -> QM9:
  from igb_jax.data import _tfds_qm9

  blocks = _tfds_qm9.read_blocks(folder)
  fields = [field.name for field in dataclasses.fields(QM9)]
  dataset = QM9(**{name: np.concatenate([b[name] for b in blocks]) for name in fields})
  dataset.validate()
  return dataset


def _write(folder: Path, blocks: list[_Block]) -> QM9:
  """Replaces the cache in a folder and reads it back."""
  from igb_jax.data import _tfds_qm9

  with _once.naming(folder, "QM9"):
    if folder.exists():
      shutil.rmtree(folder)
    _tfds_qm9.write_blocks(folder, blocks)
    # Read before the manifest is there, so that a failed write is never complete.
    dataset = _read(folder)
    manifest = {"version": _CACHE_VERSION, "files": _digests(folder)}
    unfinished = folder / f"{_MANIFEST}.unfinished"
    unfinished.write_text(json.dumps(manifest, indent=2))
    unfinished.replace(folder / _MANIFEST)
  return dataset


# Featurising.


def _featurise_block(records: Sequence[_Record]) -> _Block:
  """Featurises molecules, in a process of its own."""
  molecules = []
  for record in records:
    try:
      molecules.append(featurise(record.smiles, record.elements, record.positions))
    except ValueError as error:
      where = f"{record.file}, molecule {record.index}"
      raise ValueError(f"{where}: {error}") from error
  return {
    "index": np.array([record.index for record in records], np.int32),
    "num_atoms": np.array([len(m.nodes) for m in molecules], np.int32),
    "nodes": np.concatenate([m.nodes for m in molecules]),
    "positions": np.concatenate([m.positions for m in molecules]),
    "bonds": np.concatenate([m.bonds.ravel() for m in molecules]),
    "targets": np.array([record.targets for record in records], np.float32),
    "routes": np.array([ROUTES.index(m.route) for m in molecules], np.uint8),
  }


def _featurise_all(records: Sequence[_Record], progress: bool) -> list[_Block]:
  """Featurises molecules on all cores, in order."""
  chunks = [
    records[start : start + _BLOCK_SIZE]
    for start in range(0, len(records), _BLOCK_SIZE)
  ]
  blocks = _once.on_all_cores(_featurise_block, chunks, few=1)
  if progress and len(chunks) > 1:
    blocks = _once.shown(
      blocks,
      "Finding bonds",
      len(records),
      "molecules",
      count=lambda block: len(block["index"]),
    )
  return list(blocks)


# The sources.


def _energies_in_ev(targets: np.ndarray) -> np.ndarray:
  """Converts those of f64[11], in the order of `TARGETS`, that are in Hartree."""
  return targets * np.where(REPORT_SCALE == 1, 1, HARTREE)


def _read_qm9pack(root: Path, limit: int | None) -> list[_Record]:
  """Reads the CSV files of qm9pack, which need not be importable."""
  del root
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
      records += _read_csv(path, left)
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


def _read_csv(path: Path, num_rows: int | None) -> list[_Record]:
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


def _parse_row(file: str, fields: Mapping[str, str]) -> _Record:
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
  energies = _energies_in_ev(values[2:] - _ATOM_ENERGIES @ counts)
  return _Record(file, int(index), smiles, symbols, coordinates, energies)


def _parse_number(name: str, text: str) -> float:
  if not _NUMBER_ONLY.fullmatch(text):
    raise ValueError(f"{name}: not a number: {text[:80]!r}")
  value = float(text)
  if abs(value) > _LARGEST:
    raise ValueError(f"{name}: {value:g}, expected at most {_LARGEST:g}")
  return value


_TEXTS = ("SMILES", "Elements", "XYZ_Ang")
_NUMBERS = ("Index", "N_atoms", *_CSV_OF_TARGET.values())
_LAST_INDEX = 133_885
_LONGEST_SMILES = 200  # More than any of QM9; what is longer takes RDKit long.
_LARGEST = 1e6  # More than any number of QM9; float32 holds its square.
_ELEMENT_LIST = re.compile(r"\['[HCNOF]'(,'[HCNOF]')*\]")
# No two parts of it match the same digits, so that it fails in linear time.
_NUMBER = r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?"
_TRIPLE = rf"\[{_NUMBER},{_NUMBER},{_NUMBER}\]"
_NUMBER_ONLY = re.compile(_NUMBER)
_TRIPLE_LIST = re.compile(rf"\[{_TRIPLE}(,{_TRIPLE})*\]")


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


def _read_tfds(root: Path, limit: int | None) -> list[_Record]:
  """Reads `qm9/original` of the TFDS catalogue."""
  from igb_jax.data import _tfds_qm9

  symbols = dict(zip(ATOMIC_NUMBERS, ELEMENTS, strict=True))
  fields = [
    f"{name}_atomization" if name in _ATOM_ENERGIES_OF_TARGET else name
    for name in TARGETS
  ]
  records = []
  for example in _tfds_qm9.read_catalogue(root, limit):
    num_atoms = int(example["num_atoms"])
    charges = example["charges"][:num_atoms].tolist()
    targets = np.array([example[field] for field in fields], np.float64)
    records.append(
      _Record(
        file="qm9/original",
        index=int(example["index"]),
        smiles=example["SMILES"].decode(),
        elements=tuple(symbols.get(charge, str(charge)) for charge in charges),
        positions=example["positions"][:num_atoms],
        targets=_energies_in_ev(targets),
      )
    )
  return records


_READERS = {"qm9pack": _read_qm9pack, "tfds": _read_tfds}
