"""Gradients of which one is far from the others and one absent, and the mask."""

import numpy as np

GRADS = np.array([[1.0, 5], [1, 6], [2, 7], [100, -9], [np.nan, 0]], np.float32)
PRESENT = np.array([True, True, True, True, False])
