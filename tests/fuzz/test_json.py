"""Damaged JSON files of --stl-base: refused by name, or positive numbers."""

import json

import numpy as np
import pytest

from experiments.scene_base import read_base
from igb_jax import scene_tasks
from tests.fuzz.survey import Reader, assert_survives

NAMES = [f"{task}.json" for task in scene_tasks.TASKS]


def build(folder):
  """A summary of a single-task run for each task."""
  for task, name in zip(scene_tasks.TASKS, NAMES, strict=True):
    summary = {
      "dataset": "nyuv2",
      "balancer": "stl",
      "balancer_options": [f"task={task}"],
      "test": dict.fromkeys(scene_tasks.METRICS, 0.5),
    }
    (folder / name).write_text(json.dumps(summary, indent=2))


def read(folder):
  return {"base": np.array(read_base([folder / name for name in NAMES]))}


def check(found):
  (base,) = found.values()
  assert base.shape == (len(scene_tasks.METRICS),)
  assert np.isfinite(base).all()
  assert (base > 0).all()


def value_replaced(content, rng):
  """By one that JSON, or Python's, can say and nobody expects."""
  values = (b"NaN", b"Infinity", b"-1", b"null", b"true", b'"0.5"', b"[]", b"{}")
  values += (b"1" * 400, b"9" * 5000, b"1e999", b"[" * 100_000, b"3")
  places = [b"0.5", b'"stl"', content[content.index(b"[") : content.index(b"]") + 1]]
  place = places[rng.integers(len(places))]
  return content.replace(place, values[rng.integers(len(values))], 1)


READER = Reader(
  build=build,
  read=read,
  check=check,
  named=lambda path: path.name,
  attacks=(value_replaced,) * 3,
)


def test_some_faults():
  assert_survives("json", 30)


@pytest.mark.slow
def test_a_thousand_faults():
  assert_survives("json", 1000)
