"""Log-probabilities of actions w = K softmax(u), u ~ N(mu, std^2), and their targets.

    squashed:  sum_k log N(u_k; mu_k, std_k) - 2 (log 2 - u_k - softplus(-2 u_k))
    simplex :  log N(v; m, S) - sum_k log p_k,    p = softmax(u), v_k = u_k - u_K,
               m_k = mu_k - mu_K, S = diag(std_1^2 .. std_{K-1}^2) + std_K^2 1 1^T

`squashed` is that of a = tanh(u), which the published code takes. `simplex` is exact: a
softmax forgets the mean of u, so it has K - 1 dimensions, in which v is normal.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Density(NamedTuple):
  """How probable an action is.

  Attributes:
    log_prob: `(std, noise, u) -> f32[N]`, all three f32[N, K], with u = mu + std noise.
    target_entropy: K -> the entropy that the temperature aims at.
  """

  log_prob: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  target_entropy: Callable[[int], float]


def _squashed(std: jax.Array, noise: jax.Array, u: jax.Array) -> jax.Array:
  normal = -0.5 * noise**2 - jnp.log(std) - 0.5 * jnp.log(2 * jnp.pi)
  squash = 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))
  return jnp.sum(normal - squash, axis=-1)


def _simplex(std: jax.Array, noise: jax.Array, u: jax.Array) -> jax.Array:
  ratio = std[..., -1:] / std[..., :-1]
  off = noise[..., :-1] - ratio * noise[..., -1:]  # (v - m) / std
  # the determinant and the inverse of S, by Sherman and Morrison
  spread = 1 + jnp.sum(ratio**2, axis=-1)
  distance = jnp.sum(off**2, axis=-1) - jnp.sum(ratio * off, axis=-1) ** 2 / spread
  scale = jnp.log(std[..., :-1]).sum(axis=-1) + 0.5 * jnp.log(spread)
  constant = 0.5 * off.shape[-1] * math.log(2 * math.pi)
  normal = -0.5 * distance - scale - constant
  return normal - jnp.sum(jax.nn.log_softmax(u), axis=-1)


SQUASHED = Density(_squashed, lambda num_tasks: -float(num_tasks))
"""The published one; its target is -K."""
SIMPLEX = Density(
  _simplex,
  lambda num_tasks: -math.lgamma(num_tasks) - (num_tasks - 1) * (1 + math.log(2)),
)
"""The exact one; its target is as far below the entropy of uniform shares as -K is
below that of the cube [-1, 1]^K."""
