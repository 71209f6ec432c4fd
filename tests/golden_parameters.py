"""The formula from which every parameter of the golden scene networks comes."""

from collections.abc import Sequence

import numpy as np


def golden_parameter(number: int, name: str, shape: Sequence[int]) -> np.ndarray:
  """Parameter `number` of a published network, as float32.

  Args:
    number: its place in the network's list.
    name: its name there; scales end in "weight".
    shape: as PyTorch has it.
  """
  index = np.arange(np.prod(shape), dtype=np.float64)
  if len(shape) > 1:
    value = np.sin(12.9898 * (index + 1) + 78.233 * (number + 1)) * 43758.5453
    value = np.sqrt(6 / np.prod(shape[1:])) * (2 * (value - np.floor(value)) - 1)
  elif name.endswith("weight"):
    value = np.ones(shape)
  else:
    value = 0.01 * np.sin(0.3 * index + number)
  return value.reshape(shape).astype(np.float32)
