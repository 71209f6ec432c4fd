"""Multi-task attention network (MTAN): SegNet with an attention branch per task.

With e, f, u, d the features of SegNet's trunk (see `igb_jax.nets.segnet`), task t
has, down the levels l = 0..4 and then back up from z_5 = a_4,

    a_l = max_pool(encoder_share_l(m_l * f_l)),    m_l = attention(e_l, a_{l-1})
    z_l = n_l * d_l,    n_l = attention(u_l, decoder_share_l(upsample(z_{l+1})))

without a_{-1} at level 0. Attention is 1x1 convolution, batch norm, ReLU, 1x1
convolution, batch norm, sigmoid on its inputs side by side, and every task has its
own; the share layers are the trunk's kind and shared by the tasks. Upsampling is
bilinear. The head of task t reads its z_0.

Reference: Liu et al., "End-to-End Multi-Task Learning with Attention", CVPR 2019.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from igb_jax.nets import convolution, pooling, segnet


def _upsample_axis(features: jax.Array, axis: int) -> jax.Array:
  size = features.shape[axis]
  first = jax.lax.slice_in_dim(features, 0, 1, axis=axis)
  last = jax.lax.slice_in_dim(features, size - 1, size, axis=axis)
  rest = jax.lax.slice_in_dim(features, 1, size, axis=axis)
  start = jax.lax.slice_in_dim(features, 0, size - 1, axis=axis)
  before = jnp.concatenate([first, start], axis)
  after = jnp.concatenate([rest, last], axis)
  dtype = jnp.promote_types(features.dtype, jnp.float32)
  share = jnp.arange(size, dtype=dtype) / (2 * size - 1)
  share = jnp.expand_dims(share, [i for i in range(features.ndim) if i != axis])
  even = features + share * (before - features)
  odd = features + jnp.flip(share, axis) * (after - features)
  shape = list(features.shape)
  shape[axis] *= 2
  both = jnp.stack([even, odd], axis + 1)
  return both.reshape(shape).astype(features.dtype)


def upsample(features: jax.Array) -> jax.Array:
  """Bilinear interpolation to twice the size, corners on corners.

  Of n values, result i is the interpolation at i (n - 1) / (2 n - 1). Result 2 k lies
  k / (2 n - 1) before value k and result 2 k + 1 lies (n - 1 - k) / (2 n - 1) after
  it, so that neighbours and fixed weights are enough: no gather.

  Args:
    features: f32[B, H, W, C] (or any float).

  Returns:
    [B, 2 H, 2 W, C] of the same type.

  Example:
    >>> upsample(jnp.array([0.0, 3.0]).reshape(1, 1, 2, 1))[0, 0, :, 0].tolist()
    [0.0, 1.0, 2.0, 3.0]
  """
  return _upsample_axis(_upsample_axis(features, 1), 2)


class _Attention(nn.Module):
  """A mask in (0, 1) of the given width, from features side by side."""

  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, *inputs: jax.Array, train: bool) -> jax.Array:
    x = jnp.concatenate(inputs, axis=-1)
    for index, activation in enumerate((nn.relu, nn.sigmoid)):
      x = convolution.pointwise(self.features, self.dtype, f"convolution_{index}")(x)
      x = activation(convolution.batch_norm(train, self.dtype, f"norm_{index}")(x))
    return x


class _AttendedTrunk(nn.Module):
  """From images to the features [B, H, W, F_0] of each task."""

  filters: tuple[int, ...]
  dtype: DTypeLike

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool) -> list[jax.Array]:
    trunk = segnet.Trunk(self.filters, self.dtype, name="trunk")
    features = trunk(images, train=train)
    below = (*self.filters[1:], self.filters[-1])
    above = (self.filters[0], *self.filters[:-1])

    def shares(name: str, widths: tuple[int, ...]) -> list[segnet.Layers]:
      return [
        segnet.Layers(width, 1, self.dtype, name=f"{name}_share_{level}")
        for level, width in enumerate(widths)
      ]

    def attend(name: str, width: int, *inputs: jax.Array) -> jax.Array:
      return _Attention(width, self.dtype, name=name)(*inputs, train=train)

    encoder_share, decoder_share = shares("encoder", below), shares("decoder", above)
    attended = []
    for task in segnet.TASKS:
      inner: list[jax.Array] = []  # nothing comes from above at level 0
      for level, width in enumerate(self.filters):
        name = f"encoder_attention_{task}_{level}"
        mask = attend(name, width, features.entered[level], *inner)
        x = encoder_share[level](mask * features.encoded[level], train=train)
        inner = [pooling.max_pool(x)[0]]
      (x,) = inner
      for level in reversed(range(len(self.filters))):
        x = decoder_share[level](upsample(x), train=train)
        name = f"decoder_attention_{task}_{level}"
        mask = attend(name, above[level], features.unpooled[level], x)
        x = mask * features.decoded[level]
      attended.append(x)
    return attended


class MTAN(nn.Module):
  """Multi-task attention network on SegNet's trunk, with three heads.

  The parameters' top level is `shared` and `heads`; all but the heads count as
  shared, the tasks' attention modules too. Otherwise as `segnet.SegNet`: statistics,
  types and what they differ by from PyTorch's. The share layers see one task after
  the other in `segnet.TASKS`'s order, so their running statistics move three times a
  step.

  Attributes:
    width: factor on the number of channels, see `segnet.filters`.
    num_classes: number of classes of the segmentation.
    dtype: what convolutions are computed in and what is kept between layers.

  Example:
    >>> net = MTAN(width=0.05)
    >>> images = jnp.ones((2, 32, 32, 3))
    >>> variables = jax.eval_shape(
    ...   lambda: net.init(jax.random.key(0), images, train=False))
    >>> sorted(variables["params"]), sorted(variables["params"]["heads"])
    (['heads', 'shared'], ['depth', 'normal', 'segmentation'])
  """

  width: float = 1.0
  num_classes: int = 13
  dtype: DTypeLike = jnp.float32

  def setup(self) -> None:
    """Makes the trunk with its attention, and the heads."""
    self.shared = _AttendedTrunk(segnet.filters(self.width), self.dtype)
    self.heads = segnet.Heads(self.num_classes, self.dtype)

  def features(self, images: jax.Array, *, train: bool) -> list[jax.Array]:
    """What each head reads, float[B, H, W, C]; arguments as `__call__`."""
    segnet.check_images(images)
    return self.shared(images, train=train)

  def predict(self, features: list[jax.Array]) -> segnet.ScenePrediction:
    """What the heads make of the features.

    Args:
      features: what `features` returns.
    """
    return self.heads(*features)

  def __call__(self, images: jax.Array, *, train: bool) -> segnet.ScenePrediction:
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
