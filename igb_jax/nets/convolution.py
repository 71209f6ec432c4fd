"""3x3 convolution whose gradients are fast on CPU too.

With images x, kernel w and the gradient g of the result, the gradients are

    of x[b, h, w]:     sum_{i,j} g[b, h - i + 1, w - j + 1] w[i, j]^T,
    of w[i, j]:        sum_{b,h,w} x[b, h + i - 1, w + j - 1] outer g[b, h, w].

XLA writes both as convolutions with other orders of dimensions. On CPU it brings those
into the order that its fast code needs at the top level of a program alone: within a
branch or a loop, such as one over tasks, they are up to 40 times slower. So here they
are written in that order. The second, which sums over few b inside, is for each j a
convolution over h that sums over all (b, w) inside, a long matrix product. Elsewhere
XLA's own are used.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


def _plain(images: jax.Array, kernel: jax.Array) -> jax.Array:
  numbers = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(
    images, kernel, (1, 1), "SAME", dimension_numbers=numbers
  )


def _gradients_of_xla(
  images: jax.Array, kernel: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
  _, pull_back = jax.vjp(_plain, images, kernel)
  return pull_back(cotangent)


def _gradients_for_cpu(
  images: jax.Array, kernel: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
  flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
  return _plain(cotangent, flipped), _kernel_gradient_by_rows(images, cotangent)


def _kernel_gradient_by_rows(images: jax.Array, cotangent: jax.Array) -> jax.Array:
  batch, height, width, channels = images.shape
  # the cotangent plays the images, its channels the batch: transposed once
  rows = cotangent.transpose(3, 1, 0, 2).reshape(-1, height, batch * width)
  padded = jnp.pad(images, ((0, 0), (0, 0), (1, 1), (0, 0))).transpose(1, 0, 2, 3)
  columns = []
  for j in range(3):
    shifted = padded[:, :, j : j + width].reshape(height, batch * width, channels)
    columns.append(
      jax.lax.conv_general_dilated(
        rows, shifted, (1,), [(1, 1)], dimension_numbers=("NWC", "WIO", "NWC")
      )
    )
  # [j, out, i from the end, in] to [i, j, in, out]
  return jnp.stack(columns)[:, :, ::-1].transpose(2, 0, 3, 1)


@jax.custom_vjp
def _with_fast_gradients(images: jax.Array, kernel: jax.Array) -> jax.Array:
  return _plain(images, kernel)


def _forward(images, kernel):
  return _plain(images, kernel), (images, kernel)


def _backward(residuals, cotangent):
  return jax.lax.platform_dependent(
    *residuals, cotangent, cpu=_gradients_for_cpu, default=_gradients_of_xla
  )


_with_fast_gradients.defvjp(_forward, _backward)


def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """Cross-correlates images with a 3x3 kernel, zeros around them, stride 1.

  Equal to `jax.lax.conv_general_dilated` in value and gradients. Gradients are custom:
  reverse mode only, `jax.vmap` included.

  Args:
    images: f32[B, H, W, C] (or any float).
    kernel: f32[3, 3, C, D], of the same type.

  Returns:
    [B, H, W, D] of the same type.

  Raises:
    ValueError: if the kernel is not [3, 3, C, any].

  Example:
    >>> images = jnp.arange(4.0).reshape(1, 2, 2, 1)
    >>> convolve(images, jnp.ones((3, 3, 1, 1)))[0, :, :, 0].tolist()
    [[6.0, 6.0], [6.0, 6.0]]
  """
  channels = images.shape[-1]
  if kernel.ndim != 4 or kernel.shape[:3] != (3, 3, channels):
    raise ValueError(f"kernel must be [3, 3, {channels}, any], got {kernel.shape}")
  return _with_fast_gradients(images, kernel)


def pointwise(features: int, dtype: DTypeLike, name: str | None = None) -> nn.Dense:
  """A 1x1 convolution, which is a linear layer at every pixel.

  Args:
    features: number of channels it gives.
    dtype: what it is computed in; parameters are float32.
    name: the name of its parameters.
  """
  start = nn.initializers.glorot_normal()
  return nn.Dense(features, dtype=dtype, kernel_init=start, name=name)


def batch_norm(train: bool, dtype: DTypeLike, name: str | None = None) -> nn.BatchNorm:
  """Batch norm with PyTorch's momentum and epsilon; statistics are float32.

  Args:
    train: whether to use the batch's statistics and update the running ones.
    dtype: the dtype of the result.
    name: the name of its parameters.
  """
  return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)
