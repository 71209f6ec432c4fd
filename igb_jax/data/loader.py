"""Batches ahead of time: a grain pipeline over any source of batches."""

from collections.abc import Iterator
from typing import Protocol, TypeVar

import grain

Batch_co = TypeVar("Batch_co", covariant=True)
Batch = TypeVar("Batch")


class BatchSource(Protocol[Batch_co]):
  """Random access to the batches of one epoch."""

  def __len__(self) -> int:
    """Number of batches."""
    ...

  def __getitem__(self, index: int) -> Batch_co:
    """Batch number `index`, a pytree of NumPy arrays."""
    ...


def prefetch(source: BatchSource[Batch], *, ahead: int = 8) -> Iterator[Batch]:
  """Iterates over a source in order, while a thread makes the batches to come.

  Args:
    source: the batches of an epoch.
    ahead: how many batches are made ahead of the one in use.

  Yields:
    The batches, in order.

  Example:
    >>> list(prefetch(range(3)))
    [0, 1, 2]
  """
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
  yield from grain.MapDataset.source(source).to_iter_dataset(options)  # pyright: ignore[reportArgumentType]
