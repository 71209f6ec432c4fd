"""Reading back what a run wrote for TensorBoard, by TensorBoard's own reader."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from igb_jax.training.loggers import scalars_of


def read_scalars(folder: Path) -> dict[int, dict[str, float]]:
  """Epoch -> name -> number, of the event files in a folder; none is there twice."""
  events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
  found: dict[int, dict[str, float]] = {}
  for name in events.Tags()["scalars"]:
    for event in events.Scalars(name):
      of_epoch = found.setdefault(event.step, {})
      assert name not in of_epoch, f"{name} of epoch {event.step} is there twice"
      of_epoch[name] = event.value
  return found


def as_float32(lines: list[dict]) -> dict[int, dict[str, float]]:
  """What should be read of lines of metrics.jsonl; events hold float32."""
  return {
    line["epoch"]: {
      name: float(np.float32(value)) for name, value in scalars_of(line).items()
    }
    for line in lines
  }
