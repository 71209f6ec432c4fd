"""FAMO: published numbers, with the losses after the step or of the next batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.loss.published import CALLS, METHODS, assert_has_coefficients


@pytest.mark.parametrize("num_tasks", CALLS)
def test_matches_published_code(num_tasks):
  balancer: Any = balancers.famo(num_tasks)

  @jax.jit
  def run(losses, after):
    def step(state, inputs):
      losses, after = inputs
      _, state = balancer.update(losses, state)
      observed = balancer.observe(after, state)
      return observed, (state.weights, observed.logits)

    return jax.lax.scan(step, balancer.init(), (losses, after))[1]

  weights, logits = run(
    METHODS[f"losses_{num_tasks}"], METHODS[f"losses_after_{num_tasks}"]
  )
  np.testing.assert_allclose(weights, METHODS[f"famo_coef_{num_tasks}"], 1e-3)
  np.testing.assert_allclose(logits, METHODS[f"famo_logits_{num_tasks}"], 1e-3, 1e-3)


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("num_tasks", CALLS)
def test_without_observe_it_learns_from_the_next_batch(num_tasks, delayed):
  assert_has_coefficients(
    "famo_delayed", num_tasks, rtol=1e-3, spec="famo", delayed=delayed
  )


def test_only_the_form_that_is_not_delayed_observes():
  assert balancers.famo(2).observe is not None
  assert balancers.famo(2, delayed=True).observe is None


def test_what_was_observed_is_not_used_twice():
  balancer: Any = balancers.famo(2)
  _, state = balancer.update(jnp.array([1.0, 2.0]), balancer.init())
  observed = balancer.observe(jnp.array([0.5, 2.0]), state)
  _, after = balancer.update(jnp.array([9.0, 2.0]), observed)
  np.testing.assert_array_equal(after.logits, observed.logits)
