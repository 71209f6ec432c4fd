"""How probable a softmax of normal numbers is, against numerical integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import integrate, stats

from igb_jax.balancers import sac


@pytest.mark.parametrize("num_tasks", [2, 4])
def test_the_density_on_the_simplex_is_that_of_a_logistic_normal(num_tasks):
  random = np.random.default_rng(num_tasks)
  mu, noise = random.normal(size=(2, 5, num_tasks))
  std = np.exp(random.normal(size=(5, num_tasks)))
  u = mu + std * noise
  found = sac.SIMPLEX.log_prob(*(jnp.asarray(x, jnp.float32) for x in (std, noise, u)))
  for row in range(5):
    v = u[row, :-1] - u[row, -1]
    covariance = np.diag(std[row, :-1] ** 2) + std[row, -1] ** 2
    normal = stats.multivariate_normal(mu[row, :-1] - mu[row, -1], covariance)
    p = np.exp(u[row]) / np.exp(u[row]).sum()
    expected = normal.logpdf(v) - np.log(p).sum()
    np.testing.assert_allclose(found[row], expected, 1e-4)


def test_the_density_on_the_simplex_integrates_to_one():
  """Of two tasks, over the first share."""
  std, mu = np.array([0.7, 1.1]), np.array([0.3, -0.2])
  shares = np.linspace(1e-4, 1 - 1e-4, 20_001)
  # any u of these shares will do: the common part of u does not matter
  u = np.stack([np.log(shares), np.log1p(-shares)], axis=1)
  noise = (u - mu) / std
  args = (
    jnp.asarray(x, jnp.float32) for x in (np.broadcast_to(std, u.shape), noise, u)
  )
  density = np.exp(np.asarray(sac.SIMPLEX.log_prob(*args), np.float64))
  assert integrate.trapezoid(density, shares) == pytest.approx(1, abs=1e-3)


def test_an_agent_takes_a_density():
  agent = sac.agent(3, hidden_sizes=(4,), density=sac.SIMPLEX)
  state = agent.init(jax.random.key(0))
  losses = jax.random.uniform(jax.random.key(1), (8, 3))
  weights = 3 * jax.nn.softmax(jax.random.normal(jax.random.key(2), (8, 3)))
  batch = sac.Transitions(losses, weights, losses[:, 0], losses)
  noise = sac.Noise(*jax.random.normal(jax.random.key(3), (2, 8, 3)))
  published = sac.agent(3, hidden_sizes=(4,))
  other, published = (
    jax.jit(each.update)(state, batch, noise, jnp.ones(8))
    for each in (agent, published)
  )
  flat, expected = (ravel_pytree(state.actor)[0] for state in (other, published))
  assert np.isfinite(flat).all()
  assert (flat != expected).any()
