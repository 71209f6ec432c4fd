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
Architecture for Image Segmentation", TPAMI 2017. Widths, heads and the first parameters
are as in MTAN (Liu et al., CVPR 2019).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from igb_jax.nets.convolution import batch_norm, convolve, pointwise
from igb_jax.nets.pooling import max_pool, unpool

_FILTERS = (64, 128, 256, 512, 512)


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
  size = 2 ** len(_FILTERS)
  if images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(f"images must be [B, H, W, 3], got {images.shape}")
  if images.shape[1] % size or images.shape[2] % size:
    raise ValueError(
      f"height and width must be multiples of {size}, "
      f"got {images.shape[1]} x {images.shape[2]}"
    )


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
  """One head per task: `segmentation`, `depth` and `normal`.

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

  The parameters' top level is `shared` and `heads`; `heads` has an entry per task:
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
