"""Two handwritten digits overlaid on one canvas: which is left, which is right?

MultiMNIST at a size for a CPU. Two of scikit-learn's 1,797 images of 8x8 pixels are put
on a canvas of 10x10, one at the upper left and one at the lower right, and each pixel
is the brighter of the two. The originals are split first, so that no image of the
training pairs is in a pair of another split.

Reference: Sabour et al., "Dynamic Routing Between Capsules", NeurIPS 2017, for the
overlay; Sener and Koltun, "Multi-Task Learning as Multi-Objective Optimization",
NeurIPS 2018, for its two tasks.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from igb_jax.training.array_task import ArrayTask
from igb_jax.training.problem import TaskMetric

from .base import Training

ORIGINALS = {"train": 1200, "validation": 250, "test": 347}
PAIRS = {"train": 12000, "validation": 2000, "test": 4000}
SIDES = ("left", "right")
CANVAS = 10
FEATURES = 16  # few, so that the two compete

TRAINING = Training(
  epochs=14,
  batch_size=128,
  learning_rates=(4e-3, 1e-2, 2e-2),
  judged_by="delta_m",
  trivial=(90.0, 90.0),  # a guess
  at_once=False,
)


def patches(images: jax.Array, size: int, stride: int) -> jax.Array:
  """Squares of pixels, so that a dense layer on them is a convolution.

  A convolution with kernels of its own in each lane of a `vmap` is slow on a CPU; a
  matrix product is not.

  Args:
    images: f32[B, H, H, C].
    size: the side of a square.
    stride: between one and the next.

  Returns:
    f32[B, (H - size) // stride + 1, the same, size^2 C].
  """
  last = images.shape[1] - size
  shifted = [
    images[:, i : i + last + 1 : stride, j : j + last + 1 : stride]
    for i in range(size)
    for j in range(size)
  ]
  return jnp.concatenate(shifted, axis=-1)


class Trunk(nn.Module):
  """Two convolutions and a dense layer: f32[B, 10, 10] -> f32[B, FEATURES]."""

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """The features of images."""
    x = nn.relu(nn.Dense(16)(patches(images[..., None], 4, 2)))  # 4x4
    x = nn.relu(nn.Dense(24)(patches(x, 3, 1)))  # 2x2
    return nn.relu(nn.Dense(FEATURES)(x.reshape(len(x), -1)))


def split_originals() -> dict[str, np.ndarray]:
  """Which of the 1,797 images each split pairs."""
  order = np.random.default_rng(0).permutation(sum(ORIGINALS.values()))
  ends = np.cumsum([*ORIGINALS.values()])[:-1]
  return dict(zip(ORIGINALS, np.split(order, ends), strict=True))


def pair(originals: np.ndarray, count: int, seed: int) -> dict[str, np.ndarray]:
  """Overlays images that are drawn at random."""
  pixels, digits = load_digits(return_X_y=True)
  images = pixels.reshape(-1, 8, 8) / 16
  left, right = np.random.default_rng([1, seed]).choice(originals, (2, count))
  canvas = np.zeros((2, count, CANVAS, CANVAS), np.float32)
  canvas[0, :, :8, :8], canvas[1, :, -8:, -8:] = images[left], images[right]
  labels = np.stack([digits[left], digits[right]], axis=1)
  return {"image": canvas.max(axis=0), "digit": labels.astype(np.int32)}


def make_task() -> ArrayTask:
  """Pairs drawn from a fixed seed, and a small convolutional net with two heads."""
  trunk_net, heads_net = Trunk(), nn.DenseGeneral((len(SIDES), 10))

  def init(key: jax.Array) -> Any:
    keys = jax.random.split(key)
    return {
      "shared": trunk_net.init(keys[0], jnp.zeros((1, CANVAS, CANVAS)))["params"],
      "heads": heads_net.init(keys[1], jnp.zeros((1, FEATURES)))["params"],
    }

  def trunk(params: Any, batch: Any) -> Any:
    return trunk_net.apply({"params": params["shared"]}, batch["image"])

  def logits_of(params: Any, features: Any) -> jax.Array:
    return jnp.asarray(heads_net.apply({"params": params["heads"]}, features))

  def losses(params: Any, features: Any, batch: Any) -> jax.Array:
    entropies = optax.softmax_cross_entropy_with_integer_labels(
      logits_of(params, features), batch["digit"]
    )
    return entropies.mean(axis=0)

  def measures(params: Any, split: Any) -> jax.Array:
    guesses = logits_of(params, trunk(params, split)).argmax(axis=-1)
    return 100 * jnp.mean(guesses != split["digit"], axis=0)

  splits: dict[str, Any] = {
    split: pair(originals, PAIRS[split], seed)
    for seed, (split, originals) in enumerate(split_originals().items())
  }
  return ArrayTask(
    name="digits",
    task_names=SIDES,
    metrics=[TaskMetric(f"{side} error", "%", side) for side in SIDES],
    **splits,
    init=init,
    losses=losses,
    measures=measures,
    trunk=trunk,
  )
