"""Damaged CSV files of QM9: refused by name, or molecules that could be.

The files of qm9pack as pip installs them have checksums, so that any damage is noticed.
"""

import base64
import csv
import hashlib
import importlib.util
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from igb_jax.data import qm9
from igb_jax.data.qm9._featurising import featurise_block
from igb_jax.data.qm9.qm9pack import read_csv
from tests.fuzz.faults import FAULTS
from tests.fuzz.survey import Reader, assert_survives

_SPEC = importlib.util.find_spec("qm9pack")
assert _SPEC is not None
assert _SPEC.submodule_search_locations
DATA = Path(_SPEC.submodule_search_locations[0], "data")
FILES = ("qm9_part1.csv", "qm9_part2.csv")
ROWS = 6


def build(folder):
  for name in FILES:
    with (DATA / name).open(newline="\n") as file:
      (folder / name).write_text("".join(itertools.islice(file, ROWS + 1)))


def read(folder):
  """What `qm9.load` does of it, but for the cache."""
  records = [record for name in FILES for record in read_csv(folder / name, None)]
  block = featurise_block(sorted(records, key=lambda record: record.index))
  return block


def check(fields):
  count = len(fields["index"])
  assert count > 0
  qm9.QM9(**fields)
  assert np.isfinite(fields["targets"]).all()
  assert np.isfinite(fields["positions"]).all()
  assert fields["index"].min() >= 1
  assert (fields["nodes"][:, :5].sum(axis=1) == 1).all()
  assert fields["num_atoms"].sum() == len(fields["nodes"]) == len(fields["positions"])


def number_replaced(content, rng):
  """By one that is none, or not of any molecule."""
  numbers = list(re.finditer(rb"-?\d+\.?\d*", content))
  chosen = numbers[rng.integers(len(numbers))]
  others = (b"nan", b"inf", b"1e999", b"-1e39", b"0x10", b"1_0", b"9" * 5000, b"")
  return content[: chosen.start()] + rng.choice(others) + content[chosen.end() :]


def code_put_in(content, rng):
  """Where somebody might evaluate it."""
  lists = list(re.finditer(rb'"\[[^"]*\]"', content))
  chosen = lists[rng.integers(len(lists))]
  code = b"\"__import__('os').abort()\""
  return content[: chosen.start()] + code + content[chosen.end() :]


def smiles_replaced(content, rng):
  """By one that is long, deep or not of organic chemistry."""
  lines = content.split(b"\n")
  row = int(rng.integers(1, ROWS + 1))
  cells = next(csv.reader([lines[row].decode()]))
  others = ("C" * 20_000, "C(" * 2_000, "[U]", "C$C", "*", "[H]~[H]", "C%99C%99", "\0")
  smiles = f'"{cells[2]}"'.encode()
  other = f'"{others[rng.integers(len(others))]}"'.encode()
  lines[row] = lines[row].replace(smiles, other, 1)
  return b"\n".join(lines)


READER = Reader(
  build=build,
  read=read,
  check=check,
  named=lambda path: path.name,
  attacks=(number_replaced, code_put_in, smiles_replaced),
)


def test_some_faults():
  assert_survives("qm9_csv", 30)


@pytest.fixture
def installed(tmp_path, monkeypatch):
  """Two files of a package qm9pack that was installed by pip."""
  folder = tmp_path / "qm9pack" / "data"
  folder.mkdir(parents=True)
  (folder.parent / "__init__.py").write_text("")
  build(folder)
  lines = []
  for name in FILES:
    digest = base64.urlsafe_b64encode(
      hashlib.sha256((folder / name).read_bytes()).digest()
    )
    lines.append(f"qm9pack/data/{name},sha256={digest.decode().rstrip('=')},")
  information = tmp_path / "qm9pack-1.0.dist-info"
  information.mkdir()
  (information / "METADATA").write_text("Name: qm9pack\nVersion: 1.0\n")
  (information / "RECORD").write_text("\n".join(lines))
  monkeypatch.syspath_prepend(tmp_path)
  return [folder / name for name in FILES]


def test_every_change_of_an_installed_file_is_noticed(installed, tmp_path):
  assert len(qm9.load(tmp_path, limit=2 * ROWS)) == 2 * ROWS
  (tmp_path / "igb_qm9" / f"qm9pack-limit{2 * ROWS}" / "manifest.json").unlink()
  rng = np.random.default_rng(0)
  for path in installed:
    content = path.read_bytes()
    for fault in FAULTS.values():
      path.write_bytes(fault(content, rng))
      with pytest.raises(
        ValueError, match=f"{path.name}: has changed since it was inst"
      ):
        qm9.load(tmp_path, limit=2 * ROWS, progress=False)
    path.write_bytes(content)
  assert len(qm9.load(tmp_path, limit=2 * ROWS, progress=False)) == 2 * ROWS


@pytest.mark.slow
def test_a_thousand_faults():
  assert_survives("qm9_csv", 1000)
