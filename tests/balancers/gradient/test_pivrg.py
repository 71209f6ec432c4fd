"""PIVRG against the published code, with its scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.gradient.published import FEWER, KINDS, assert_near, golden


@pytest.mark.parametrize("num_tasks", FEWER)
def test_pivrg_weighs_by_scores(num_tasks):
  balancer = balancers.pivrg(num_tasks)
  results, states = [], []
  for index, kind in enumerate(KINDS):
    jacobians = golden("methods.npz", "J", num_tasks)[index].astype(np.float32)
    scores = golden("methods.npz", "pivrg_scores", num_tasks)[index].astype(np.float32)
    update = jax.jit(balancer.update)
    state = balancer.init(jacobians[0, 0])
    for jacobian, score in zip(jacobians, scores, strict=True):
      result, state = update(jacobian, state, scores=score)
      results.append(result)
      states.append(state)
    expected = golden("methods.npz", "pivrg", num_tasks)[index]
    if kind != "small":
      found = np.stack(results[-len(jacobians) :])
      assert_near(found, expected, 1e-3)
  assert all(state.residual < 1e-5 for state in states)
  with pytest.raises(ValueError, match=rf"scores must have the shape \({num_tasks},\)"):
    balancer.update(jnp.ones((num_tasks, 2)), balancer.init(jnp.ones(2)), scores=[1.0])
