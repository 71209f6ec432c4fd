"""Gradients that nearly cancel, for claims that are checked in float64."""

import numpy as np


def lengths(vectors: np.ndarray) -> np.ndarray:
  return np.linalg.norm(vectors, axis=-1)


def relative_errors(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
  return lengths(actual - expected) / lengths(expected)


def nearly_cancelling(num_tasks: int, num_parameters: int, size: float) -> np.ndarray:
  """Gradients along one line, on both sides, but for a part of the given size."""
  generator = np.random.default_rng(num_tasks)
  line = generator.normal(size=(1000, 1, num_parameters))
  signs = generator.choice([-1.0, 1.0], size=(1000, num_tasks, 1))
  signs[:, 1] = -signs[:, 0]
  rest = generator.normal(size=(1000, num_tasks, num_parameters))
  return (signs * line + size * rest).astype(np.float32)
