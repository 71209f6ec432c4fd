"""From the records of QM9's sources to blocks of arrays, on all cores."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from igb_jax.data import _processes
from igb_jax.data.molecules import ROUTES, featurise

_BLOCK_SIZE = 512

Block = dict[str, np.ndarray]  # The fields of QM9 for some molecules.


@dataclasses.dataclass(frozen=True)
class Record:
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


def featurise_block(records: Sequence[Record]) -> Block:
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


def featurise_all(records: Sequence[Record], progress: bool) -> list[Block]:
  """Featurises molecules on all cores, in order."""
  chunks = [
    records[start : start + _BLOCK_SIZE]
    for start in range(0, len(records), _BLOCK_SIZE)
  ]
  blocks = _processes.on_all_cores(featurise_block, chunks, few=1)
  if progress and len(chunks) > 1:
    blocks = _processes.shown(
      blocks,
      "Finding bonds",
      len(records),
      "molecules",
      count=lambda block: len(block["index"]),
    )
  return list(blocks)
