"""Scenes as batches in fixed shapes, for one pass or for all epochs of a run."""

from typing import NamedTuple, Protocol

import numpy as np

from igb_jax.data.augment import augment, resize
from igb_jax.data.part import WHOLE, Part
from igb_jax.data.scene import Scene


class Scenes(Protocol):
  """Random access to scenes."""

  def __len__(self) -> int:
    """Number of scenes."""
    ...

  def __getitem__(self, index: int, /) -> Scene:
    """Scene number `index`."""
    ...


class SceneBatch(NamedTuple):
  """A batch of B places for scenes.

  Attributes:
    image: f32[B, H, W, 3] in [0, 1].
    label: i32[B, H, W], -1 where it is to be ignored.
    depth: f32[B, H, W], metres, 0 where it is unknown.
    normal: f32[B, H, W, 3], 0 where it is unknown.
    mask: bool[B], where there is a scene; an empty place repeats the first.
  """

  image: np.ndarray
  label: np.ndarray
  depth: np.ndarray
  normal: np.ndarray
  mask: np.ndarray

  @classmethod
  def of(cls, scenes: list[Scene], batch_size: int) -> "SceneBatch":
    """Stacks scenes of one shape.

    Args:
      scenes: 1 to `batch_size` of them.
      batch_size: B.
    """
    places = scenes + [scenes[0]] * (batch_size - len(scenes))
    stacked = (np.stack(parts) for parts in zip(*places, strict=True))
    return cls(*stacked, mask=np.arange(batch_size) < len(scenes))


class EvaluationBatches:
  """The batches of one pass over some scenes, in order; the last may be smaller."""

  def __init__(
    self,
    scenes: Scenes,
    positions: np.ndarray,
    batch_size: int,
    resolution: tuple[int, int],
    part: Part = WHOLE,
  ):
    """Makes the source; nothing is read yet.

    Args:
      scenes: the data set.
      positions: i64[N], which of them.
      batch_size: B.
      resolution: height and width.
      part: of every batch.

    Raises:
      ValueError: a batch cannot be divided.
    """
    self._scenes = scenes
    self._positions = positions
    self._batch_size = batch_size
    self._resolution = resolution
    self._rows = part.rows(batch_size)

  def __len__(self) -> int:
    """Number of batches."""
    return -(-len(self._positions) // self._batch_size)

  def __getitem__(self, index: int) -> SceneBatch:
    """Batch number `index`."""
    start = index * self._batch_size
    batch = self._positions[start : start + self._batch_size]
    own = batch[self._rows]
    scenes = [
      resize(self._scenes[int(position)], *self._resolution)
      for position in (own if len(own) else batch[:1])
    ]
    size = self._rows.stop - self._rows.start
    return SceneBatch.of(scenes, size)._replace(mask=np.arange(size) < len(own))


class TrainBatches:
  """The augmented batches of all epochs, a function of seed, epoch and place.

  Every epoch takes the scenes in an order of its own and leaves out the last ones that
  fill no batch, as the published code does. Pickled, it can be read by any process.

  Attributes:
    steps_per_epoch: batches in an epoch.
  """

  def __init__(
    self,
    scenes: Scenes,
    positions: np.ndarray,
    batch_size: int,
    resolution: tuple[int, int],
    *,
    seed: int,
    num_epochs: int,
    augmented: bool = True,
    part: Part = WHOLE,
  ):
    """Makes the source; nothing is read yet.

    Args:
      scenes: the data set.
      positions: i64[N], which of them.
      batch_size: B, at most N.
      resolution: height and width.
      seed: of order and augmentation.
      num_epochs: of the run.
      augmented: whether scenes are cropped and flipped.
      part: of every batch.

    Raises:
      ValueError: there are fewer scenes than a batch has, or a batch cannot be divided.
    """
    if len(positions) < batch_size:
      raise ValueError(
        f"a batch of {batch_size} needs as many training scenes, got {len(positions)}."
      )
    self._scenes = scenes
    self._positions = positions
    self._batch_size = batch_size
    self._resolution = resolution
    self._seed = seed
    self._num_epochs = num_epochs
    self._augmented = augmented
    self._rows = part.rows(batch_size)
    self.steps_per_epoch = len(positions) // batch_size

  def __len__(self) -> int:
    """Number of batches in all epochs."""
    return self.steps_per_epoch * self._num_epochs

  def __getitem__(self, index: int) -> SceneBatch:
    """Batch number `index`, counted over all epochs."""
    epoch, step = divmod(index, self.steps_per_epoch)
    order = np.random.default_rng((self._seed, epoch)).permutation(self._positions)
    start = step * self._batch_size
    scenes = []
    for place in range(start + self._rows.start, start + self._rows.stop):
      scene = resize(self._scenes[int(order[place])], *self._resolution)
      if self._augmented:
        scene = augment(scene, np.random.default_rng((self._seed, epoch, place)))
      scenes.append(scene)
    return SceneBatch.of(scenes, len(scenes))
