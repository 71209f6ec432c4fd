"""Signals as a request: the loop saves what there is when it safely can, and ends."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
  """Whether somebody asked the run to stop.

  Attributes:
    requested: true from the first Ctrl-C or SIGTERM on.
    at_once: true from the first SIGTERM on, which leaves no time for a test.
  """

  requested: bool = False
  at_once: bool = False


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
  """Turns Ctrl-C and SIGTERM into a request; a second Ctrl-C raises KeyboardInterrupt.

  Yields:
    The request, to be looked at between steps.
  """
  request = StopRequest()
  signals = signal.SIGINT, signal.SIGTERM
  previous = [signal.getsignal(number) for number in signals]

  def handle(number, frame):
    del frame
    request.requested = True
    if number == signal.SIGTERM:
      request.at_once = True
    else:
      signal.signal(signal.SIGINT, signal.default_int_handler)

  for number in signals:
    signal.signal(number, handle)
  try:
    yield request
  finally:
    for number, handler in zip(signals, previous, strict=True):
      signal.signal(number, handler)
