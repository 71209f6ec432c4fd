"""Random weights: their distribution and their key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.long_losses import distances_after_outliers
from tests.balancers.loss.published import scan


def test_draws_fresh_weights_with_the_softmax_of_normal_logits():
  balancer = balancers.random_loss_weighting(3)
  _, (_, weights) = scan(balancer, np.ones((4000, 3), np.float32), None, 1)
  assert len(np.unique(np.asarray(weights)[:, 0])) > 3900
  logits = np.log(weights)
  differences = logits[:, 0] - logits[:, 1]  # of two standard normals: N(0, 2)
  assert abs(differences.mean()) < 0.1
  assert abs(differences.std() - np.sqrt(2)) < 0.1


@pytest.mark.parametrize("key", [jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")])
def test_keys_of_every_kind_are_accepted(key):
  state = balancers.random_loss_weighting(3).init(key)
  assert state.key.shape == (2,)
  assert state.key.dtype == jnp.uint32


@pytest.mark.parametrize("name", ["rlw", "rlwlog"])
def test_an_outlier_leaves_no_trace(name):
  assert distances_after_outliers(name, 1e12) == [0, 0, 0]
