"""QM9 from `qm9/original` of the TFDS catalogue, prepared by the user."""

from pathlib import Path

import numpy as np

from igb_jax.data.molecules import ATOMIC_NUMBERS, ELEMENTS
from igb_jax.data.qm9._featurising import Record
from igb_jax.data.qm9.targets import ATOM_ENERGIES_OF_TARGET, TARGETS, energies_in_ev


def read_catalogue(root: Path, limit: int | None) -> list[Record]:
  """Reads the first molecules, all if there is no limit.

  Args:
    root: Folder to look in before TFDS's own.
    limit: Number of molecules.

  Raises:
    FileNotFoundError: If it is not prepared, or not as array_record files.
  """
  import tensorflow_datasets as tfds  # which takes a second

  data_dir = root if (root / "qm9" / "original").is_dir() else None
  builder = tfds.builder("qm9/original", data_dir=data_dir)
  try:
    source = builder.as_data_source("train")  # pyright: ignore[reportCallIssue]
  except (AssertionError, NotImplementedError, ValueError) as error:
    raise FileNotFoundError(
      f"the TFDS data set qm9/original is not prepared as array_record files in "
      f"{builder.data_path}. Prepare it with:\n"
      "  pip install importlib_resources\n"
      '  python -c "import tensorflow_datasets as tfds; '
      "tfds.builder('qm9/original', file_format='array_record')"
      '.download_and_prepare()"\n'
      "or use the source qm9pack, which needs no preparation."
    ) from error
  symbols = dict(zip(ATOMIC_NUMBERS, ELEMENTS, strict=True))
  fields = [
    f"{name}_atomization" if name in ATOM_ENERGIES_OF_TARGET else name
    for name in TARGETS
  ]
  records = []
  for i in range(len(source) if limit is None else min(limit, len(source))):
    example = source[i]
    num_atoms = int(example["num_atoms"])
    charges = example["charges"][:num_atoms].tolist()
    targets = np.array([example[field] for field in fields], np.float64)
    records.append(
      Record(
        file="qm9/original",
        index=int(example["index"]),
        smiles=example["SMILES"].decode(),
        elements=tuple(symbols.get(charge, str(charge)) for charge in charges),
        positions=example["positions"][:num_atoms],
        targets=energies_in_ev(targets),
      )
    )
  return records
