"""Batches ahead of time: a grain pipeline over any source of batches."""

import signal
from collections.abc import Generator
from typing import Protocol, TypeVar

import grain
from absl import flags

from igb_jax.data.errors import LoadingError

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


def prefetch(
  source: BatchSource[Batch], *, ahead: int = 8, workers: int = 0, start: int = 0
) -> Generator[Batch]:
  """Iterates over a source in order, while a thread makes the batches to come.

  Args:
    source: the batches, of an epoch or of all.
    ahead: how many batches are made ahead of the one in use.
    workers: processes that make them instead of the thread; the source goes to each,
      pickled. They start anew with every call, and end with the iterator, which
      `close` ends early.
    start: number of the first batch.

  Yields:
    The batches, in order.

  Raises:
    LoadingError: the source raised an error, or a process ended.

  Example:
    >>> list(prefetch(range(3)))
    [0, 1, 2]
  """
  options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=ahead)
  batches = grain.MapDataset.source(source)[start:]  # pyright: ignore[reportArgumentType]
  dataset = batches.to_iter_dataset(options)
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain reads absl's flags, which nobody parses here
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead),
      worker_init_fn=_leave_signals_to_the_parent,
    )
  iterator = iter(dataset)
  try:
    while True:
      try:
        batch = next(iterator)
      except StopIteration:
        return
      except Exception as error:
        raise LoadingError(f"a batch could not be loaded: {error}") from error
      yield batch
  finally:
    iterator.close()


def _leave_signals_to_the_parent(index: int, count: int) -> None:
  del index, count
  for number in (signal.SIGINT, signal.SIGTERM):  # which a whole group may get
    signal.signal(number, signal.SIG_IGN)
