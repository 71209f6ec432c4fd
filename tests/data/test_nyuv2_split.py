"""Which scenes of NYUv2 there are to train on, validate and test."""

import numpy as np
import pytest

from igb_jax.data import nyuv2
from tests.data.scene_files import fill, load, write_arrays, write_images


def test_own_validation_scenes(source, cache):
  write_arrays(source, (("train", 2), ("val", 1), ("test", 3)))
  dataset = load(source)
  assert (dataset.num_train, dataset.num_validation, dataset.num_test) == (2, 1, 3)
  standard, paper = dataset.split("standard"), dataset.split("paper")
  assert standard.validation.tolist() == []
  assert standard.test.tolist() == [2, 3, 4, 5]
  assert paper.validation.tolist() == [2]
  assert paper.test.tolist() == [3, 4, 5]


def test_standard_split():
  parts = nyuv2.split(795, 0, 654)
  assert parts.train.tolist() == list(range(795))
  assert parts.validation.tolist() == []
  assert parts.test.tolist() == list(range(795, 1449))


def test_papers_split_depends_on_the_seed_alone():
  first, again, other = (nyuv2.split(795, 0, 654, "paper", seed=s) for s in (0, 0, 1))
  for parts in (first, other):
    assert parts.train.tolist() == list(range(795))
    assert (len(parts.validation), len(parts.test)) == (197, 457)
    both = np.concatenate([parts.validation, parts.test])
    assert sorted(both.tolist()) == list(range(795, 1449))
  np.testing.assert_array_equal(first.test, again.test)
  assert set(first.test.tolist()) != set(other.test.tolist())


def test_split_of_few_scenes():
  parts = nyuv2.split(1, 0, 2, "paper")
  assert (len(parts.validation), len(parts.test)) == (1, 1)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((2, 0, 2, "other"), r"unknown split 'other', expected one of \['standard', 'pap"),
    ((0, 0, 2), "must be training and test scenes, got 0 train, 0 val"),
    ((2, 0, 1, "paper"), "test scenes .* needs at least 2 of them, got 1; .* `limit`"),
  ],
)
def test_split_errors(arguments, message):
  with pytest.raises(ValueError, match=message):
    nyuv2.split(*arguments)


@pytest.mark.parametrize("position", [-1, 5])
def test_positions(source, cache, position):
  write_images(source)
  with pytest.raises(IndexError, match=f"no scene {position}, there are 5"):
    load(source)[position]


def test_limit(source, cache):
  write_images(source)
  dataset = load(source, limit=2)
  assert dataset.names == ("train/0001", "train/0002", "test/0001", "test/0002")
  assert "the first 2 at most" in dataset.description
  assert len(load(source)) == 5  # which has a cache of its own
  with pytest.raises(ValueError, match="limit must be positive, got 0"):
    load(source, limit=0)


@pytest.mark.parametrize(
  ("files", "value", "found"),
  [
    ("label", 255, "label, which the task segmentation needs"),
    ("depth", 0, "depth, which the task depth needs; none of its .* with a normal, wh"),
    ("normal", 127, "normal, which the task normal needs"),
  ],
)
@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_split_without_anything_of_a_task_is_refused(
  source, cache, files, value, found, part
):
  write_images(source, (("train", 1), ("test", 4)), normals=files == "normal")
  paper = nyuv2.split(1, 0, 4, "paper")
  for position in getattr(paper, part):
    fill(source, f"test/{files}/{position:04d}.png", value)
  for dataset in (load(source), load(source)):  # prepared, and from the cache
    number = len(getattr(paper, part))
    with pytest.raises(
      ValueError,
      match=f"split paper with the seed 0 .*: none of its {number} {part} scenes has "
      f"a pixel with a {found}.* Take another seed of the split, more scenes",
    ):
      dataset.split("paper")
    dataset.split("standard")
    others = [nyuv2.split(1, 0, 4, "paper", seed=seed) for seed in range(9)]
    seed = next(s for s, o in enumerate(others) if list(o.test) != list(paper.test))
    if part == "validation":  # a single scene, which the tests have with this seed
      dataset.split("paper", seed=seed)
