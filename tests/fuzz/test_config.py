"""Damaged config.json of a run that is resumed: refused, unless it says the same."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.qm9 import Config
from igb_jax.training.run_folder import FREE_OPTIONS, RunFolder
from tests.fuzz.survey import Reader, assert_survives

OPTIONS = dataclasses.asdict(Config(balancer_options=("base_epoch=2",)))


def build(folder):
  RunFolder(folder).write_json("config.json", OPTIONS)


def read(folder):
  """Passes only if the run that is there is the one that is to go on."""
  RunFolder.check_resumable(folder, OPTIONS)
  found = json.loads((folder / "config.json").read_text())
  names = sorted(OPTIONS.keys() - FREE_OPTIONS)
  said = json.dumps({name: found.get(name) for name in names})
  return {"options": np.frombuffer(said.encode(), np.uint8)}


def check(found):
  names = sorted(OPTIONS.keys() - FREE_OPTIONS)
  expected = json.dumps({name: OPTIONS[name] for name in names})
  assert found["options"].tobytes().decode() == expected


def value_replaced(content, rng):
  """By one that JSON, or Python's, can say and nobody expects."""
  values = (b"NaN", b"-Infinity", b"1e999", b"null", b"true", b'"1"', b"[]", b"{}")
  values += (b"9" * 5000, b"[" * 100_000, b'"\\ud800"', b"1.0", b"0")
  places = (b"0.001", b"40", b'"igb', b"64", b"{", b'"base_epoch=2"')
  place = places[rng.integers(len(places))]
  return content.replace(place, values[rng.integers(len(values))], 1)


READER = Reader(
  build=build,
  read=read,
  check=check,
  named=lambda path: "config.json" if path.name == "config.json" else path.name,
  attacks=(value_replaced,) * 3,
  only="config.json",
)


def test_some_faults():
  assert_survives("config", 30)


@pytest.mark.slow
def test_a_thousand_faults():
  assert_survives("config", 1000)
