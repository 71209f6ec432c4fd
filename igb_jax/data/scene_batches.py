"""Scenes as batches in fixed shapes, for one pass or for all epochs of a run."""

import dataclasses
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


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationBatches:
  """The batches of one pass over some scenes, in order; the last may be smaller.

  Attributes:
    scenes: the data set.
    positions: i64[N], which of them.
    batch_size: B.
    resolution: height and width.
    part: which part of every batch.

  Raises:
    ValueError: a batch cannot be divided.
  """

  scenes: Scenes
  positions: np.ndarray
  batch_size: int
  resolution: tuple[int, int]
  part: Part = WHOLE

  def __post_init__(self) -> None:
    """Checks that a batch can be divided."""
    self.part.rows(self.batch_size)

  def __len__(self) -> int:
    """Number of batches."""
    return -(-len(self.positions) // self.batch_size)

  def __getitem__(self, index: int) -> SceneBatch:
    """Batch number `index`."""
    rows = self.part.rows(self.batch_size)
    batch = self.positions[index * self.batch_size :][: self.batch_size]
    own = batch[rows]
    scenes = [
      resize(self.scenes[int(position)], *self.resolution)
      for position in (own if len(own) else batch[:1])
    ]
    size = rows.stop - rows.start
    return SceneBatch.of(scenes, size)._replace(mask=np.arange(size) < len(own))


@dataclasses.dataclass(frozen=True, eq=False)
class TrainBatches:
  """The augmented batches of all epochs, a function of seed, epoch and place.

  Every epoch takes the scenes in an order of its own and leaves out the last ones that
  fill no batch, as the published code does. Pickled, it can be read by any process.

  Attributes:
    scenes: the data set.
    positions: i64[N], which of them.
    batch_size: B, at most N.
    resolution: height and width.
    seed: the seed of order and augmentation.
    num_epochs: the number of epochs of the run.
    augmented: whether scenes are cropped and flipped.
    part: which part of every batch.

  Raises:
    ValueError: there are fewer scenes than a batch has, or a batch cannot be divided.
  """

  scenes: Scenes
  positions: np.ndarray
  batch_size: int
  resolution: tuple[int, int]
  _: dataclasses.KW_ONLY
  seed: int
  num_epochs: int
  augmented: bool = True
  part: Part = WHOLE

  def __post_init__(self) -> None:
    """Checks that there are scenes enough, and that a batch can be divided."""
    if len(self.positions) < self.batch_size:
      raise ValueError(
        f"a batch of {self.batch_size} needs as many training scenes, got "
        f"{len(self.positions)}."
      )
    self.part.rows(self.batch_size)

  @property
  def steps_per_epoch(self) -> int:
    """Batches in an epoch."""
    return len(self.positions) // self.batch_size

  def __len__(self) -> int:
    """Number of batches in all epochs."""
    return self.steps_per_epoch * self.num_epochs

  def __getitem__(self, index: int) -> SceneBatch:
    """Batch number `index`, counted over all epochs."""
    epoch, step = divmod(index, self.steps_per_epoch)
    order = np.random.default_rng((self.seed, epoch)).permutation(self.positions)
    rows = self.part.rows(self.batch_size)
    start = step * self.batch_size
    scenes = []
    for place in range(start + rows.start, start + rows.stop):
      scene = resize(self.scenes[int(order[place])], *self.resolution)
      if self.augmented:
        scene = augment(scene, np.random.default_rng((self.seed, epoch, place)))
      scenes.append(scene)
    return SceneBatch.of(scenes, len(scenes))
