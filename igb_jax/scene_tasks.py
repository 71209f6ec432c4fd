"""The three tasks of a scene: segmentation, depth and surface normals.

Losses are what the published code trains on; metrics are taken over all pixels of a
split, accumulated on the device. The published code averages the depth and normal
metrics over batches of two images instead, so that an image with few valid pixels
counts as much as one with many.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TASKS = ("segmentation", "depth", "normal")
NUM_CLASSES = 13

# Metrics in the order and units of the paper's table.
METRICS = (
  "miou", "pixel_accuracy", "depth_abs_err", "depth_rel_err", "normal_mean",
  "normal_median", "normal_11.25", "normal_22.5", "normal_30",
)  # fmt: skip
METRICS_OF_TASK = {
  "segmentation": METRICS[:2], "depth": METRICS[2:4], "normal": METRICS[4:],
}  # fmt: skip
HIGHER_IS_BETTER = (True, True, False, False, False, False, True, True, True)
UNITS = ("%", "%", "m", "", "degrees", "degrees", "%", "%", "%")
THRESHOLDS = (11.25, 22.5, 30.0)  # degrees

_BIN = 0.01  # degrees, of the histogram from which the median is read
_NUM_BINS = 18_000


def losses(prediction: Any, scenes: Any) -> jax.Array:
  """Cross entropy, absolute depth error and 1 - cosine of the normals.

  Each is a mean over the pixels of the batch where the target is known: label not -1,
  depth above 0, normal not 0. A task without any such pixel has the loss 0.

  Args:
    prediction: with segmentation f32[B, H, W, C] (log-probabilities), depth
      f32[B, H, W] and normal f32[B, H, W, 3] (of length 1).
    scenes: with label i32[B, H, W], depth f32[B, H, W] in metres and normal
      f32[B, H, W, 3].

  Returns:
    f32[3], in the order of `TASKS`.

  Example:
    >>> import types
    >>> scenes = types.SimpleNamespace(
    ...   label=jnp.zeros((1, 2, 2), int), depth=jnp.ones((1, 2, 2)),
    ...   normal=jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), (1, 2, 2, 3)))
    >>> prediction = types.SimpleNamespace(
    ...   segmentation=jnp.log(jnp.full((1, 2, 2, 13), 1 / 13)),
    ...   depth=1.5 * scenes.depth, normal=scenes.normal)
    >>> print(losses(prediction, scenes))
    [2.5649493 0.5       0.       ]
  """
  has_label, has_depth, has_normal = _known(scenes)
  classes = jnp.maximum(scenes.label, 0)[..., None]
  log_probability = jnp.take_along_axis(prediction.segmentation, classes, axis=-1)
  cosine = jnp.sum(prediction.normal * scenes.normal, axis=-1)
  return jnp.stack(
    [
      _mean(-log_probability[..., 0], has_label),
      _mean(jnp.abs(prediction.depth - scenes.depth), has_depth),
      _mean(1 - cosine, has_normal),
    ]
  )


def present(scenes: Any) -> jax.Array:
  """Which tasks have a known pixel in a batch.

  Args:
    scenes: see `losses`.

  Returns:
    bool[3], in the order of `TASKS`.

  Example:
    >>> import types
    >>> scenes = types.SimpleNamespace(
    ...   label=jnp.full((1, 2, 2), -1), depth=jnp.ones((1, 2, 2)),
    ...   normal=jnp.zeros((1, 2, 2, 3)))
    >>> print(present(scenes))
    [False  True False]
  """
  return jnp.stack([known.any() for known in _known(scenes)])


def _known(scenes: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Which pixels have a label, a depth and a normal: bool[B, H, W] each."""
  return scenes.label >= 0, scenes.depth > 0, jnp.any(scenes.normal != 0, axis=-1)


def _mean(values: jax.Array, where: jax.Array) -> jax.Array:
  total = jnp.sum(jnp.where(where, values, 0.0))
  return total / jnp.maximum(jnp.sum(where), 1)


class Sum(NamedTuple):
  """A sum of many float32 numbers with what rounding has lost so far (Neumaier).

  Attributes:
    total: f32[].
    lost: f32[].
  """

  total: jax.Array
  lost: jax.Array

  @classmethod
  def zero(cls) -> "Sum":
    """The empty sum."""
    return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

  def plus(self, value: jax.Array) -> "Sum":
    """Adds one number, f32[]."""
    total = self.total + value
    larger = jnp.abs(self.total) >= jnp.abs(value)
    rounding = jnp.where(
      larger, (self.total - total) + value, (value - total) + self.total
    )
    return Sum(total, self.lost + rounding)


class SceneMetrics(NamedTuple):
  """What is known of a split so far; a pytree that is updated inside jit.

  Attributes:
    confusion: i32[C, C], pixels by true class (rows) and predicted class.
    depth_pixels: i32[], pixels with a known depth.
    depth_abs: sum of |predicted - true|, metres.
    depth_rel: sum of |predicted - true| / true.
    normal_pixels: i32[], pixels with a known normal.
    angles: sum of the angles between predicted and true normal, degrees.
    histogram: i32[18001], pixels by angle, in bins of 0.01 degrees.
    within: i32[3], pixels whose angle is below 11.25, 22.5 and 30 degrees.
    undecided: i32[], pixels with a label for which a log-probability is NaN.
  """

  confusion: jax.Array
  depth_pixels: jax.Array
  depth_abs: Sum
  depth_rel: Sum
  normal_pixels: jax.Array
  angles: Sum
  histogram: jax.Array
  within: jax.Array
  undecided: jax.Array

  @classmethod
  def zeros(cls, num_classes: int = NUM_CLASSES) -> "SceneMetrics":
    """Before the first batch."""
    return cls(
      confusion=jnp.zeros((num_classes, num_classes), jnp.int32),
      depth_pixels=jnp.zeros((), jnp.int32),
      depth_abs=Sum.zero(),
      depth_rel=Sum.zero(),
      normal_pixels=jnp.zeros((), jnp.int32),
      angles=Sum.zero(),
      histogram=jnp.zeros(_NUM_BINS + 1, jnp.int32),
      within=jnp.zeros(len(THRESHOLDS), jnp.int32),
      undecided=jnp.zeros((), jnp.int32),
    )

  def plus(self, prediction: Any, scenes: Any, mask: jax.Array) -> "SceneMetrics":
    """Takes in a batch.

    Args:
      prediction: see `losses`.
      scenes: see `losses`.
      mask: bool[B], which scenes of the batch are there.
    """
    there = mask[:, None, None]
    num_classes = self.confusion.shape[0]
    has_label, has_depth, _ = (known & there for known in _known(scenes))
    predicted = jnp.argmax(prediction.segmentation, axis=-1)
    cell = jnp.where(has_label, scenes.label * num_classes + predicted, num_classes**2)
    confusion = jnp.bincount(cell.ravel(), length=num_classes**2 + 1)[:-1]

    error = jnp.where(has_depth, jnp.abs(prediction.depth - scenes.depth), 0.0)
    relative = error / jnp.where(has_depth, scenes.depth, 1.0)

    length = jnp.linalg.norm(scenes.normal, axis=-1)
    has_normal = (length > 0) & there
    cosine = jnp.sum(prediction.normal * scenes.normal, axis=-1)
    cosine /= jnp.where(has_normal, length, 1.0)
    angle = jnp.rad2deg(jnp.arccos(jnp.clip(cosine, -1.0, 1.0)))
    bins = jnp.where(
      has_normal, jnp.floor(angle / _BIN).astype(jnp.int32), _NUM_BINS + 1
    )
    histogram = jnp.bincount(bins.ravel(), length=_NUM_BINS + 2)[:-1]
    below = angle[..., None] < jnp.asarray(THRESHOLDS, jnp.float32)

    def count(where: jax.Array) -> jax.Array:
      return jnp.sum(where, axis=(0, 1, 2), dtype=jnp.int32)

    return SceneMetrics(
      confusion=self.confusion
      + confusion.reshape(self.confusion.shape).astype(jnp.int32),
      depth_pixels=self.depth_pixels + count(has_depth),
      depth_abs=self.depth_abs.plus(error.sum()),
      depth_rel=self.depth_rel.plus(relative.sum()),
      normal_pixels=self.normal_pixels + count(has_normal),
      angles=self.angles.plus(jnp.sum(jnp.where(has_normal, angle, 0.0))),
      histogram=self.histogram + histogram.astype(jnp.int32),
      within=self.within + count(below & has_normal[..., None]),
      undecided=self.undecided
      + count(jnp.isnan(prediction.segmentation).any(axis=-1) & has_label),
    )

  def compute(self) -> dict[str, float]:
    """The metrics, on the host.

    Returns:
      `METRICS` in the units of `UNITS`. mIoU is the mean over the classes that occur,
      as truth or as prediction. A task without any known pixel, or with a prediction
      that is not a number, has NaN.
    """
    sums: SceneMetrics = jax.tree.map(
      lambda leaf: np.asarray(leaf, np.float64), jax.device_get(self)
    )
    hits = np.diagonal(sums.confusion)
    union = sums.confusion.sum(axis=0) + sums.confusion.sum(axis=1) - hits
    occurs = union > 0
    with np.errstate(invalid="ignore", divide="ignore"):
      accuracy = hits.sum() / sums.confusion.sum()
      miou = (hits[occurs] / union[occurs]).mean() if occurs.any() else np.nan
      if sums.undecided:
        accuracy = miou = np.nan
      angles = sums.angles.total + sums.angles.lost
      within = sums.within / sums.normal_pixels
      median = _median(np.asarray(sums.histogram))
      if np.isnan(angles):
        within, median = np.full_like(within, np.nan), np.nan
      values = (
        100 * miou,
        100 * accuracy,
        (sums.depth_abs.total + sums.depth_abs.lost) / sums.depth_pixels,
        (sums.depth_rel.total + sums.depth_rel.lost) / sums.depth_pixels,
        angles / sums.normal_pixels,
        median,
        *(100 * within),
      )
    return dict(zip(METRICS, map(float, values), strict=True))


def _median(histogram: np.ndarray) -> float:
  """The middle of the bin that holds the median, degrees; NaN without pixels."""
  total = histogram.sum()
  if total == 0:
    return np.nan
  place = np.searchsorted(np.cumsum(histogram), total / 2)
  return (float(place) + 0.5) * _BIN
