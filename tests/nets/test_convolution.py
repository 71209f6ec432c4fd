"""The convolution against XLA's own, in value, gradients, batching and lowering."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax.nets import convolution

SHAPES = [(3, 8), (64, 72), (72, 64)]  # channels in and out


def plain(images, kernel):
  return jax.lax.conv_general_dilated(
    images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def problem(channels, features, dtype=jnp.float32):
  """Images [2, 6, 9], a kernel and a cotangent, all whole numbers: sums are exact."""
  generator = np.random.default_rng(0)
  shapes = (2, 6, 9, channels), (3, 3, channels, features), (2, 6, 9, features)
  return [jnp.asarray(generator.integers(-2, 3, shape), dtype) for shape in shapes]


def value_and_gradients(convolve, images, kernel, cotangent):
  value, pullback = jax.vjp(convolve, images, kernel)
  return value, *pullback(cotangent)


@pytest.mark.parametrize(("channels", "features"), SHAPES)
def test_equals_xla(channels, features):
  arguments = problem(channels, features)
  ours = jax.jit(value_and_gradients, static_argnums=0)
  for got, expected in zip(
    ours(convolution.convolve, *arguments), ours(plain, *arguments), strict=True
  ):
    np.testing.assert_array_equal(got, expected)


def test_gradients_are_equal_on_every_platform():
  arguments = problem(5, 7)
  for ours, of_xla in zip(
    convolution._gradients_for_cpu(*arguments),
    convolution._gradients_of_xla(*arguments),
    strict=True,
  ):
    np.testing.assert_array_equal(ours, of_xla)


def test_all_convolutions_on_cpu_have_the_order_that_is_fast_in_branches():
  gradients = jax.jit(
    lambda *a: jax.lax.cond(
      a[0].sum() > 0,
      lambda: value_and_gradients(convolution.convolve, *a),
      lambda: (a[2], a[0], a[1]),
    )
  )
  text = gradients.lower(*problem(16, 8)).as_text()
  orders = re.findall(r"dim_numbers = (\[.*\]), window.*? reverse = \[(.*?)\]", text)
  assert len(orders) == 1 + 1 + 3  # forward, images, one for each column of the kernel
  assert {order for order, _ in orders} == {
    "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]",
    "[b, 0, f]x[0, i, o]->[b, 0, f]",
  }
  assert not any("true" in reverse for _, reverse in orders)


def test_works_under_vmap():
  images, kernel, cotangent = problem(64, 64)
  cotangents = jnp.stack([cotangent, 2 * cotangent, -cotangent])
  _, pullback = jax.vjp(convolution.convolve, images, kernel)
  for mapped, single in zip(
    jax.vmap(pullback)(cotangents), pullback(cotangent), strict=True
  ):
    np.testing.assert_array_equal(mapped, jnp.stack([single, 2 * single, -single]))
  kernels = jnp.stack([kernel, -kernel])
  values = jax.vmap(convolution.convolve, (None, 0))(images, kernels)
  np.testing.assert_array_equal(values[1], -plain(images, kernel))


def test_works_in_bfloat16():
  expected = value_and_gradients(plain, *problem(64, 64))
  got = value_and_gradients(convolution.convolve, *problem(64, 64, jnp.bfloat16))
  for ours, exact in zip(got, expected, strict=True):
    assert ours.dtype == jnp.bfloat16
    scale = float(jnp.abs(exact).max())
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, 0, 2**-6 * scale)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_keep_their_own_gradient(platform):
  def lowered(convolve):
    gradients = jax.jit(lambda *a: value_and_gradients(convolve, *a))
    exported = jax.export.export(gradients, platforms=[platform])
    return exported(*problem(64, 64)).mlir_module()

  # by rows there would be three more convolutions in place of one
  assert lowered(convolution.convolve).count("stablehlo.convolution") == 3


def test_other_kernels_are_refused():
  images = jnp.ones((1, 4, 4, 2))
  with pytest.raises(ValueError, match=r"\[3, 3, 2, any\], got \(1, 1, 2, 5\)"):
    convolution.convolve(images, jnp.ones((1, 1, 2, 5)))
