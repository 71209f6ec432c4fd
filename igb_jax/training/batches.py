"""Sources of batches: rows of arrays, and the epochs of a run one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from igb_jax.data.loader import BatchSource
from igb_jax.data.part import WHOLE, Part
from igb_jax.training.step import Batch


class ArrayBatches:
  """The whole batches of some rows of arrays, by number.

  The rows that are left over at the end, fewer than a batch, are in none. Of several
  processes each assembles its part.
  """

  def __init__(
    self, arrays: Any, order: np.ndarray, batch_size: int, part: Part = WHOLE
  ):
    """Makes the source; nothing is assembled yet.

    Args:
      arrays: a pytree of arrays with a common first axis.
      order: i64[N], which rows, in the order in which they are batched.
      batch_size: B.
      part: the part of every batch.

    Raises:
      ValueError: a batch cannot be divided into parts.
    """
    self._arrays = arrays
    self._batch_size = batch_size
    self._order = order[: len(order) // batch_size * batch_size]
    self._rows = part.rows(batch_size)

  def __len__(self) -> int:
    """Number of batches."""
    return len(self._order) // self._batch_size

  def __getitem__(self, index: int) -> Batch:
    """Assembles batch number `index`.

    Example:
      >>> batches = ArrayBatches({"x": np.arange(5) ** 2}, np.array([4, 1, 0]), 2)
      >>> len(batches), batches[0]["x"].tolist()
      (1, [16, 1])
    """
    rows = self._order[index * self._batch_size :][: self._batch_size][self._rows]
    return jax.tree.map(lambda leaf: leaf[rows], self._arrays)


class EpochBatches:
  """All batches of a run by number, from a source for each epoch, `of_epoch`."""

  def __init__(
    self,
    of_epoch: Callable[[int], BatchSource[Batch]],
    steps_per_epoch: int,
    num_epochs: int,
  ):
    self._of_epoch = of_epoch
    self._steps_per_epoch = steps_per_epoch
    self._num_epochs = num_epochs
    self._latest: tuple[int, BatchSource[Batch] | None] = (-1, None)

  def __len__(self) -> int:
    """Number of batches in all epochs."""
    return self._steps_per_epoch * self._num_epochs

  def __getitem__(self, index: int) -> Batch:
    """Batch number `index`, counted over all epochs.

    Example:
      >>> EpochBatches(lambda epoch: range(10 * epoch, 10 * epoch + 4), 4, 3)[5]
      11
    """
    number, place = divmod(index, self._steps_per_epoch)
    epoch, batches = self._latest
    if epoch != number or batches is None:
      batches = self._of_epoch(number)
      self._latest = number, batches
    return batches[place]
