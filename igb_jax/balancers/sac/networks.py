"""Actor and twin critics of the soft actor-critic agent.

    actor:   losses [K] -> 128 -> 128, ReLU after both; heads mu and log std [K]
    critics: losses and weights [2 K] -> 128 -> 128 -> 1, ReLU between, two of them

Reference: Dai et al., UAI 2023, appendix; linear layers start uniform in
+-1/sqrt(fan_in), as in the published code.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from igb_jax.layers import linear

LOG_STD_MIN = -20.0
LOG_STD_MAX = 2.0


def _linear(features: int, fan_in: int) -> nn.Dense:
  return linear(features, fan_in, precision=jax.lax.Precision.HIGHEST)


class _Hidden(nn.Module):
  """Linear layers with ReLU after each."""

  sizes: Sequence[int]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for size in self.sizes:
      x = nn.relu(_linear(size, x.shape[-1])(x))
    return x


class Actor(nn.Module):
  """The policy: a normal distribution of logits for every state.

  Attributes:
    num_tasks: K.
    hidden_sizes: widths of the hidden layers.
  """

  num_tasks: int
  hidden_sizes: Sequence[int] = (128, 128)

  @nn.compact
  def __call__(self, losses: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of the logits u.

    Args:
      losses: f32[..., K], the states.

    Returns:
      mu f32[..., K], and std f32[..., K] within e^-20 and e^2.
    """
    hidden = _Hidden(self.hidden_sizes, name="hidden")(losses)
    mu = _linear(self.num_tasks, hidden.shape[-1])
    log_std = _linear(self.num_tasks, hidden.shape[-1])
    return mu(hidden), jnp.exp(jnp.clip(log_std(hidden), LOG_STD_MIN, LOG_STD_MAX))


class TwinCritic(nn.Module):
  """Two action values of the same form, of which the lesser one counts.

  Attributes:
    hidden_sizes: widths of the hidden layers.
  """

  hidden_sizes: Sequence[int] = (128, 128)

  @nn.compact
  def __call__(self, losses: jax.Array, weights: jax.Array) -> jax.Array:
    """The values of both critics.

    Args:
      losses: f32[..., K], the states.
      weights: f32[..., K], the actions.

    Returns:
      f32[2, ...].
    """
    inputs = jnp.concatenate([losses, weights], axis=-1)
    values = []
    for name in ("first", "second"):
      hidden = _Hidden(self.hidden_sizes, name=name)(inputs)
      values.append(_linear(1, hidden.shape[-1])(hidden)[..., 0])
    return jnp.stack(values)
