"""What methods with a preference ask of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from igb_jax import balancers


@pytest.mark.parametrize("make", [balancers.cosmos, balancers.pbi])
def test_a_preference_is_checked(make):
  for bad in ([1.0, -1.0], [0.0, 0.0]):
    with pytest.raises(ValueError, match=r"must be positive, or zero for some.*got \["):
      make(2, preference=bad)
  with pytest.raises(ValueError, match="preference must be finite"):
    make(2, preference=[1.0, float("inf")])
  with pytest.raises(ValueError, match=r"preference must have the shape \(2,\)"):
    make(2, preference=[1.0])
  with pytest.raises(TypeError, match="preference must hold numbers"):
    make(2, preference=["a", "b"])
  with pytest.raises(TypeError, match="needs preference"):
    balancers.create("pbi", num_tasks=2)


def test_a_task_may_be_preferred_not_at_all():
  """With one task of two preferred, that is all there is but for the penalties."""
  losses, preference = jnp.array([3.0, 4.0]), [2.0, 0.0]
  for balancer, expected in (
    (balancers.cosmos(2, preference, penalty=0.0), [2.0, 0.0]),
    (balancers.pbi(2, preference, theta=0.5), [1.0, 0.5]),
    (balancers.smooth_tchebycheff_raw(2, mu=1.0, preference=preference), None),
  ):
    _, state = balancer.update(losses, balancer.init())
    if expected is None:
      expected = [2 / (1 + np.exp(-6.0)), 0.0]
    np.testing.assert_allclose(state.weights, expected, 1e-5, 1e-30)
