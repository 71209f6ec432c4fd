"""What a run shows while it trains: a rich bar, or plain lines without a terminal."""

import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 15.0


class TrainProgress:
  """Shows epoch, losses, weights, steps a second and the time that remains.

  On a terminal it is one bar for the run with a line below it; elsewhere a plain line
  at most every 15 seconds and at the end of each epoch.

  Attributes:
    steps_per_epoch: the number of steps of each epoch.
  """

  def __init__(self, console: Console, num_epochs: int, steps_per_epoch: int):
    self._console = console
    self._num_epochs = num_epochs
    self.steps_per_epoch = steps_per_epoch
    self._total = num_epochs * steps_per_epoch
    self._live = None
    if console.is_terminal:
      self._bar = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed}/{task.total} steps, {task.fields[rate]}, left"),
        TimeRemainingColumn(),
        console=console,
      )
      self._task = self._bar.add_task("", total=self._total, epoch="", rate="")
      self._numbers = Text(no_wrap=True, overflow="ellipsis")
      self._live = Live(Group(self._bar, self._numbers), console=console)
    self._line_time = time.monotonic()

  def steps(
    self,
    epoch: int,
    step_in_epoch: int,
    losses: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    seconds_per_step: float,
  ) -> None:
    """Shows how far an epoch is.

    Args:
      epoch: its number, from 0.
      step_in_epoch: steps of it that are done.
      losses: mean task losses of the epoch so far.
      weights: mean task weights of the epoch so far.
      seconds_per_step: the seconds that each of the latest steps took.
    """
    done = epoch * self.steps_per_epoch + step_in_epoch
    rate = f"{1 / seconds_per_step:.3g} steps/s"
    text = (
      f"loss {np.mean(losses):.4g} [{np.min(losses):.3g}..{np.max(losses):.3g}] "
      f"weights [{np.min(weights):.3g}..{np.max(weights):.3g}]"
    )
    epochs = f"{epoch + 1}/{self._num_epochs}"
    if self._live is not None:
      self._bar.update(self._task, completed=done, epoch=epochs, rate=rate)
      self._numbers.plain = text
    elif time.monotonic() - self._line_time >= SECONDS_BETWEEN_LINES:
      left = (self._total - done) * seconds_per_step
      self.line(
        f"epoch {epochs}: step {step_in_epoch}/{self.steps_per_epoch}, {rate}, "
        f"{left:.0f} s left, {text}"
      )

  def line(self, text: str) -> None:
    """Prints a line above the bar."""
    self._line_time = time.monotonic()
    self._console.print(text, highlight=False, soft_wrap=True, markup=False)

  def __enter__(self) -> "TrainProgress":
    """Starts the display."""
    if self._live is not None:
      self._live.start()
    return self

  def __exit__(self, *raised: object) -> None:
    """Ends the display."""
    if self._live is not None:
      self._live.stop()
