"""The one layer that networks and the agent share."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp


def uniform(fan_in: int) -> nn.initializers.Initializer:
  """Uniform in +-1/sqrt(fan_in), PyTorch's start of linear and recurrent layers.

  Args:
    fan_in: number of inputs of the layer.
  """
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def linear(
  features: int,
  fan_in: int,
  *,
  use_bias: bool = True,
  precision: jax.lax.Precision | None = None,
) -> nn.Dense:
  """A linear layer whose kernel and bias start as PyTorch's do.

  Args:
    features: number of outputs.
    fan_in: number of inputs, or what stands for it in the bound of the start.
    use_bias: whether there is a bias.
    precision: the precision of the matrix product.

  Example:
    >>> params = linear(2, 4).init(jax.random.key(0), jnp.ones((1, 4)))["params"]
    >>> bool(abs(params["kernel"]).max() <= 0.5)
    True
  """
  start = uniform(fan_in)
  return nn.Dense(
    features, use_bias, precision=precision, kernel_init=start, bias_init=start
  )
