"""What methods with a preference ask of it."""

import pytest

from igb_jax import balancers


@pytest.mark.parametrize("make", [balancers.cosmos, balancers.pbi])
def test_a_preference_is_checked(make):
  with pytest.raises(
    ValueError, match=r"preference must be positive.*got \[1.0, 0.0\]"
  ):
    make(2, preference=[1.0, 0.0])
  with pytest.raises(ValueError, match="preference must be finite"):
    make(2, preference=[1.0, float("inf")])
  with pytest.raises(ValueError, match=r"preference must have the shape \(2,\)"):
    make(2, preference=[1.0])
  with pytest.raises(TypeError, match="preference must hold numbers"):
    make(2, preference=["a", "b"])
  with pytest.raises(TypeError, match="needs preference"):
    balancers.create("pbi", num_tasks=2)
