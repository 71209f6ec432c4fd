"""SegNet with three heads: segmentation, depth and surface normals of one image.

Levels l = 0..4 have F = 64, 128, 256, 512, 512 channels, at 1/2^l of the size. A
layer is a 3x3 convolution, batch norm and ReLU. With x_0 the image,

    e_l = encoder_l(x_l),    f_l = encoder_block_l(e_l),    x_{l+1}, i_l = max_pool(f_l)

down the levels, then from the deepest up, from y_5 = x_5,

    u_l = unpool(y_{l+1}, i_l),    d_l = decoder_block_l(decoder_l(u_l)),    y_l = d_l

where encoder_l and decoder_l are one layer each and change the width, and blocks are
one layer at levels 0 and 1, two below, and keep it. Every task reads d_0 by a 3x3
and a 1x1 convolution with nothing between.

Reference: Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", TPAMI 2017. Widths and heads are those of the
network that MTAN (Liu et al., CVPR 2019) and its successors train on NYUv2.
Parameters start as there: kernels Xavier normal, biases 0.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from igb_jax.nets.convolution import convolve

_FILTERS = (64, 128, 256, 512, 512)
_NUM_LEVELS = len(_FILTERS)


class ScenePrediction(NamedTuple):
  """What a network says of every pixel.

  Attributes:
    segmentation: f32[B, H, W, classes], log-probabilities.
    depth: f32[B, H, W].
    normal: f32[B, H, W, 3], unit vectors.
  """

  segmentation: jax.Array
  depth: jax.Array
  normal: jax.Array


TASKS = ScenePrediction._fields


def _is_chosen(position: jax.Array) -> jax.Array:
  """One-hot bool[B, h, 2, w, 2, C] of positions [B, h, w, C] in 2x2 windows."""
  places = jnp.arange(4, dtype=position.dtype).reshape(2, 1, 2, 1)
  return position[:, :, None, :, None] == places


def max_pool(features: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest of each 2x2 window, and where in the window it was.

  Among equals the first counts, row by row; the gradient goes to it alone. A NaN
  counts as the largest.

  Args:
    features: f32[B, H, W, C] (or any float), H and W even.

  Returns:
    The maxima, [B, H/2, W/2, C], and their positions, u8[B, H/2, W/2, C]: 0 and 1 in
    the window's first row, 2 and 3 in the second.

  Raises:
    ValueError: if H or W is odd.

  Example:
    >>> image = jnp.array([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1)
    >>> pooled, position = max_pool(image)
    >>> float(pooled.item()), position.item()
    (5.0, 1)
    >>> jax.grad(lambda x: max_pool(x)[0].sum())(image)[0, :, :, 0].tolist()
    [[0.0, 1.0], [0.0, 0.0]]
  """
  batch, height, width, channels = features.shape
  if height % 2 or width % 2:
    raise ValueError(f"height and width must be even, got {height} x {width}")
  windows = features.reshape(batch, height // 2, 2, width // 2, 2, channels)
  values = jax.lax.stop_gradient(windows)
  largest = values[:, :, 0, :, 0]
  position = jnp.zeros(largest.shape, jnp.uint8)
  for place in range(1, 4):
    value = values[:, :, place // 2, :, place % 2]
    is_larger = (value > largest) | jnp.isnan(value)
    largest = jnp.where(is_larger, value, largest)
    position = jnp.where(is_larger, jnp.uint8(place), position)
  # a sum over one number and three zeros, for its gradient
  pooled = jnp.where(_is_chosen(position), windows, 0).sum(axis=(2, 4))
  return pooled, position


def unpool(pooled: jax.Array, position: jax.Array) -> jax.Array:
  """Puts each value back to its place in a 2x2 window of zeros.

  Args:
    pooled: f32[B, h, w, C] (or any float).
    position: u8[B, h, w, C], as `max_pool` gives it.

  Returns:
    [B, 2 h, 2 w, C] of the type of `pooled`.

  Raises:
    ValueError: if the two shapes differ.

  Example:
    >>> position = jnp.full((1, 1, 1, 1), 2, jnp.uint8)
    >>> unpool(jnp.full((1, 1, 1, 1), 7.0), position)[0, :, :, 0].tolist()
    [[0.0, 0.0], [7.0, 0.0]]
  """
  if pooled.shape != position.shape:
    raise ValueError(f"values are {pooled.shape} but positions {position.shape}")
  batch, height, width, channels = pooled.shape
  windows = jnp.where(_is_chosen(position), pooled[:, :, None, :, None], 0)
  return windows.reshape(batch, 2 * height, 2 * width, channels)


def filters(width: float) -> tuple[int, ...]:
  """Channels of the five levels: multiples of 4, at least 4.

  Args:
    width: what 64, 128, 256, 512 and 512 are multiplied by, then rounded.

  Raises:
    ValueError: if `width` is not positive.

  Example:
    >>> filters(1.0), filters(0.05)
    ((64, 128, 256, 512, 512), (4, 8, 12, 24, 24))
  """
  if not width > 0:
    raise ValueError(f"width must be positive, got {width}")
  return tuple(max(4, 4 * round(width * channels / 4)) for channels in _FILTERS)


def check_images(images: jax.Array) -> None:
  """Raises ValueError unless images are [B, H, W, 3], H and W multiples of 32."""
  size = 2**_NUM_LEVELS
  if images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(f"images must be [B, H, W, 3], got {images.shape}")
  if images.shape[1] % size or images.shape[2] % size:
    raise ValueError(
      f"height and width must be multiples of {size}, "
      f"got {images.shape[1]} x {images.shape[2]}"
    )


def pointwise(features: int, dtype: DTypeLike, name: str | None = None) -> nn.Dense:
  """A 1x1 convolution, which is a linear layer at every pixel.

  Args:
    features: number of channels it gives.
    dtype: what it is computed in; parameters are float32.
    name: of its parameters.
  """
  start = nn.initializers.glorot_normal()
  return nn.Dense(features, dtype=dtype, kernel_init=start, name=name)


def batch_norm(train: bool, dtype: DTypeLike, name: str | None = None) -> nn.BatchNorm:
  """Batch norm with PyTorch's momentum and epsilon; statistics are float32.

  Args:
    train: whether to use the batch's statistics and update the running ones.
    dtype: of the result.
    name: of its parameters.
  """
  return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)


class _Convolution(nn.Module):
  """3x3 convolution with bias."""

  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    shape = (3, 3, features.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.glorot_normal(), shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    features, kernel, bias = (
      jnp.asarray(x, self.dtype) for x in (features, kernel, bias)
    )
    return convolve(features, kernel) + bias


class Layers(nn.Module):
  """3x3 convolution, batch norm and ReLU, one or more times.

  Attributes:
    features: number of channels of each.
    count: how many times.
    dtype: what convolutions are computed in.
  """

  features: int
  count: int = 1
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
    """From [B, H, W, any] to [B, H, W, features] of type `dtype`."""
    for index in range(self.count):
      convolution = _Convolution(self.features, self.dtype, name=f"convolution_{index}")
      norm = batch_norm(train, self.dtype, name=f"norm_{index}")
      features = nn.relu(norm(convolution(features)))
    return features


class TrunkFeatures(NamedTuple):
  """Features of every level, finest first; level l is at 1/2^l of the image's size.

  Attributes:
    entered: e_l, as the encoder's first layer gives them.
    encoded: f_l, as the encoder's block gives them.
    unpooled: u_l, what comes from below.
    decoded: d_l, as the decoder's block gives them.
  """

  entered: list[jax.Array]
  encoded: list[jax.Array]
  unpooled: list[jax.Array]
  decoded: list[jax.Array]


class Trunk(nn.Module):
  """SegNet's encoder and decoder.

  Attributes:
    filters: F_l, the channels of the levels.
    dtype: what convolutions are computed in.
  """

  filters: tuple[int, ...]
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> TrunkFeatures:
    """Features of every level of images f32[B, H, W, 3]."""

    def apply(name: str, features: int, count: int, inputs: jax.Array) -> jax.Array:
      return Layers(features, count, self.dtype, name=name)(inputs, train=train)

    levels = range(len(self.filters))
    depths = [1 if level < 2 else 2 for level in levels]
    entered, encoded, positions = [], [], []
    x = jnp.asarray(images, self.dtype)
    for level, width in enumerate(self.filters):
      entered.append(apply(f"encoder_{level}", width, 1, x))
      block = f"encoder_block_{level}"
      encoded.append(apply(block, width, depths[level], entered[-1]))
      x, position = max_pool(encoded[-1])
      positions.append(position)

    unpooled, decoded = [], []
    for level in reversed(levels):
      width = self.filters[max(level - 1, 0)]
      unpooled.append(unpool(x, positions[level]))
      x = apply(f"decoder_{level}", width, 1, unpooled[-1])
      x = apply(f"decoder_block_{level}", width, depths[level], x)
      decoded.append(x)
    return TrunkFeatures(entered, encoded, unpooled[::-1], decoded[::-1])


class _Head(nn.Module):
  """3x3 then 1x1 convolution, the second in float32 whatever the first."""

  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, features: jax.Array) -> jax.Array:
    hidden = _Convolution(features.shape[-1], self.dtype, name="convolution")(features)
    return pointwise(self.features, jnp.float32, name="output")(hidden)


class Heads(nn.Module):
  """One head a task: `segmentation`, `depth` and `normal`.

  Attributes:
    num_classes: number of classes of the segmentation.
    dtype: what the 3x3 convolutions are computed in.
  """

  num_classes: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, segmentation: jax.Array, depth: jax.Array, normal: jax.Array
  ) -> ScenePrediction:
    """Predictions from the features [B, H, W, F] that each task reads."""
    logits = _Head(self.num_classes, self.dtype, name="segmentation")(segmentation)
    distance = _Head(1, self.dtype, name="depth")(depth)
    vector = _Head(3, self.dtype, name="normal")(normal)
    # bounded, so that a zero vector gives numbers and not NaN
    square = jnp.maximum((vector**2).sum(axis=-1, keepdims=True), 1e-24)
    return ScenePrediction(
      segmentation=nn.log_softmax(logits),
      depth=distance[..., 0],
      normal=vector / jnp.sqrt(square),
    )


class SegNet(nn.Module):
  """SegNet with one trunk and three heads.

  The parameters' top level is `shared` and `heads`; `heads` has an entry a task:
  `segmentation`, `depth` and `normal`. Running statistics of batch norm are the
  collection `batch_stats`, which training must name as mutable. Their variance is
  the batch's own, divided by n; PyTorch keeps n / (n - 1) of it. With two images of
  288 x 384, n is 864 at the deepest level, so they differ by 0.1 % at most.

  Attributes:
    width: factor on the number of channels, see `filters`.
    num_classes: number of classes of the segmentation.
    dtype: what convolutions are computed in and what is kept between layers.
      Parameters, statistics and predictions are float32 in any case.

  Example:
    >>> net = SegNet(width=0.05)
    >>> images = jnp.ones((2, 32, 64, 3))
    >>> variables = jax.eval_shape(
    ...   lambda: net.init(jax.random.key(0), images, train=False))
    >>> sorted(variables["params"]), sorted(variables["params"]["heads"])
    (['heads', 'shared'], ['depth', 'normal', 'segmentation'])
    >>> predictions, updates = jax.eval_shape(
    ...   lambda variables: net.apply(
    ...     variables, images, train=True, mutable="batch_stats"), variables)
    >>> [x.shape for x in predictions], sorted(updates)
    ([(2, 32, 64, 13), (2, 32, 64), (2, 32, 64, 3)], ['batch_stats'])
  """

  width: float = 1.0
  num_classes: int = 13
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    """Makes the trunk and the heads."""
    self.shared = Trunk(filters(self.width), self.dtype)
    self.heads = Heads(self.num_classes, self.dtype)

  def features(self, images: jax.Array, *, train: bool) -> jax.Array:
    """What the heads read: float[B, H, W, C]; arguments as `__call__`."""
    check_images(images)
    return self.shared(images, train=train).decoded[0]

  def predict(self, features: jax.Array) -> ScenePrediction:
    """What the heads make of the features.

    Args:
      features: what `features` returns.
    """
    return self.heads(features, features, features)

  def __call__(self, images: jax.Array, *, train: bool) -> ScenePrediction:
    """Predicts segmentation, depth and normals.

    Args:
      images: f32[B, H, W, 3], H and W multiples of 32.
      train: whether batch norm uses the batch's statistics and updates the running
        ones, or uses the running ones.

    Returns:
      A `ScenePrediction`, float32.

    Raises:
      ValueError: if `images` have another shape.
    """
    return self.predict(self.features(images, train=train))
