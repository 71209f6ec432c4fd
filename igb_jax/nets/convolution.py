"""3x3 convolution whose kernel gradient is fast on CPU too.

With images x and the gradient g of the result, the gradient of kernel entry (i, j) is

    sum_{b,h,w} x[b, h + i - 1, w + j - 1] outer g[b, h, w].

XLA makes it one convolution over h and w that sums over b alone inside, and b is 2 in
dense prediction. On CPU that is slow; here, for each j, it is a convolution over h
that sums over all (b, w) inside, a long matrix product. Elsewhere XLA's own is used.
"""

import jax
import jax.numpy as jnp

_MIN_CHANNELS = 64  # with fewer, XLA's own gradient is as fast or faster


def _plain(images: jax.Array, kernel: jax.Array) -> jax.Array:
  numbers = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(
    images, kernel, (1, 1), "SAME", dimension_numbers=numbers
  )


def _kernel_gradient_of_xla(images: jax.Array, cotangent: jax.Array) -> jax.Array:
  shape = (3, 3, images.shape[-1], cotangent.shape[-1])
  kernel = jax.ShapeDtypeStruct(shape, images.dtype)
  (gradient,) = jax.linear_transpose(lambda k: _plain(images, k), kernel)(cotangent)
  return gradient


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
def _with_fast_gradient(images: jax.Array, kernel: jax.Array) -> jax.Array:
  return _plain(images, kernel)


def _forward(images, kernel):
  return _plain(images, kernel), (images, kernel)


def _backward(residuals, cotangent):
  images, kernel = residuals
  shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
  (of_images,) = jax.linear_transpose(lambda x: _plain(x, kernel), shape)(cotangent)
  of_kernel = jax.lax.platform_dependent(
    images,
    cotangent,
    cpu=_kernel_gradient_by_rows,
    default=_kernel_gradient_of_xla,
  )
  return of_images, of_kernel


_with_fast_gradient.defvjp(_forward, _backward)


def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """Cross-correlates images with a 3x3 kernel, zeros around them, stride 1.

  Equal to `jax.lax.conv_general_dilated` in value and gradients. With 64 channels or
  more on both sides the gradients are custom: reverse mode only, `jax.vmap` included.

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
  if min(kernel.shape[2:]) < _MIN_CHANNELS:
    return _plain(images, kernel)
  return _with_fast_gradient(images, kernel)
