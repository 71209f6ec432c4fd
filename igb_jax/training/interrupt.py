"""Signals as a request: the loop saves what there is when it safely can, and ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils


class StopRequest:
  """Whether somebody asked the run to stop.

  Attributes:
    requested: true from the first Ctrl-C or SIGTERM on.
    at_once: true from the first SIGTERM on, which leaves no time for a test.
    heard: true from the first signal on that this one of several processes got. The
      other two are true once all processes know, see `agree`.
  """

  requested: bool = False
  at_once: bool = False
  heard: bool = False

  def agree(self) -> bool:
    """Makes a request to one of several processes that of all.

    All processes must call it after the same step. JAX's own preemption service would
    need a call after each step, and orbax calls it with numbers of its own.

    Returns:
      Whether a stop was requested, the same in every process.
    """
    if jax.process_count() > 1 and not self.requested:
      heard = multihost_utils.process_allgather(np.array(self.heard))
      self.requested = self.at_once = bool(np.any(heard))
    return self.requested


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
  """Turns Ctrl-C and SIGTERM into a request; a second Ctrl-C raises KeyboardInterrupt.

  With several processes Ctrl-C asks for what SIGTERM does, as whatever started them
  seldom waits for a test.

  Yields:
    The request, to be looked at between steps.
  """
  request = StopRequest()
  signals = signal.SIGINT, signal.SIGTERM
  previous = [signal.getsignal(number) for number in signals]
  is_alone = jax.process_count() == 1

  def handle(number, frame):
    del frame
    request.heard = True
    if is_alone:
      request.requested = True
      request.at_once = request.at_once or number == signal.SIGTERM
    if number == signal.SIGINT:
      signal.signal(signal.SIGINT, signal.default_int_handler)

  for number in signals:
    signal.signal(number, handle)
  try:
    yield request
  finally:
    for number, handler in zip(signals, previous, strict=True):
      signal.signal(number, handler)
