"""Ctrl-C as a request: the loop ends at the next safe place, with what there is."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
  """Whether somebody asked the run to stop.

  Attributes:
    requested: true from the first Ctrl-C on.
  """

  requested: bool = False


@contextmanager
def stop_on_interrupt() -> Iterator[StopRequest]:
  """Turns the first Ctrl-C into a request; a second one raises KeyboardInterrupt.

  Yields:
    The request, to be looked at between steps.
  """
  request = StopRequest()
  previous = signal.getsignal(signal.SIGINT)

  def handle(signum, frame):
    del signum, frame
    request.requested = True
    signal.signal(signal.SIGINT, signal.default_int_handler)

  signal.signal(signal.SIGINT, handle)
  try:
    yield request
  finally:
    signal.signal(signal.SIGINT, previous)
