"""The split of QM9: all molecules once, and the same ones held out."""

import numpy as np
import pytest

from igb_jax.data import qm9


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
