"""LDC-MTL: published numbers of its three forms, and its router."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers
from tests.balancers.loss.published import CALLS, METHODS
from tests.balancers.losses import run_each

STEPS_PER_EPOCH = int(METHODS["steps_per_epoch"])


@pytest.mark.parametrize("num_tasks", CALLS)
@pytest.mark.parametrize("form", ["qm9", "celeba", "nyuv2"])
def test_matches_published_code(form, num_tasks):
  balancer = balancers.ldc_mtl(
    num_tasks,
    STEPS_PER_EPOCH,
    form=form,
    learning_rate=1e-2,
    initial_logits=METHODS[f"ldc_init_{num_tasks}"],
  )
  run = run_each(balancer, {"": (METHODS[f"losses_{num_tasks}"], 0)})[""]
  expected = METHODS[f"ldc_{form}_coef_{num_tasks}"]
  logits = METHODS[f"ldc_{form}_logits_{num_tasks}"]
  np.testing.assert_allclose(run.slopes, expected, 1e-3, 1e-5)
  np.testing.assert_allclose(run.states.router[:, :, 0], logits, 1e-3, 1e-4)


def test_its_first_logits_are_drawn_or_given():
  balancer: Any = balancers.ldc_mtl(50, 10)
  logits = balancer.init(jax.random.key(0)).router
  assert 0.2 <= logits.min() < 0.3 < 0.9 < logits.max() <= 1
  with pytest.raises(ValueError, match=r"draws its first logits: .* got None"):
    balancer.init()
  with pytest.raises(ValueError, match=r"initial_logits must have the shape \(50,\)"):
    balancers.ldc_mtl(50, 10, initial_logits=[1.0])
  with pytest.raises(ValueError, match="form must be 'qm9' or 'celeba' or 'nyuv2'"):
    balancers.ldc_mtl(2, 10, form="cifar")
  for form in ("celeba", "nyuv2"):
    assert balancers.ldc_mtl(2, 10, form=form).init().weights.shape == (2,)


def test_a_router_learns_from_features_and_sends_no_gradient_to_them():
  balancer: Any = balancers.ldc_mtl(
    2, 10, form="nyuv2", num_features=3, learning_rate=0.01
  )
  state = balancer.init()

  def total(features, losses, state):
    weighted, new = balancer.update(losses, state, features=features)
    return weighted.sum(), new

  step = jax.jit(jax.value_and_grad(total, has_aux=True))
  features = jnp.array([1.0, 0.0, 2.0])
  for losses in ([1.0, 2.0], [1.0, 1.5], [1.0, 1.2]):
    (_, state), to_features = step(features, jnp.array(losses), state)
    assert not to_features.any()
  moved = np.abs(state.router) > 1e-4
  np.testing.assert_array_equal(moved, [[True, False, True, True]] * 2)
  with pytest.raises(ValueError, match="num_features=3 needs features"):
    balancer.update(jnp.ones(2), state)
  with pytest.raises(ValueError, match=r"shape \(3,\), got \(2,\)"):
    balancer.update(jnp.ones(2), state, features=jnp.ones(2))
